"""Text and Markdown as the language of manual pages has them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"\*\*(?P<bold>.+?)\*\*|`(?P<code>[^`]+)`|\[(?P<link>[^\]]+)\]\([^)]*\)|\*(?P<italic>[^*]+)\*")
_FONTS = {"bold": "B", "code": "B", "italic": "I"}


def roff(text: str) -> str:
    """Text as roff prints it: backslashes and hyphens escaped, no line that starts with a control character."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def markdown_as_roff(text: str) -> list[str]:
    """The lines of a manual page's body.

    Args:
        text: Markdown made of headings, paragraphs, fenced code, tables and comments. A table becomes a list: each
            row under what its first cell says, the others after the headings of their columns.
    """
    lines: list[str] = []
    for number, part in enumerate(_FENCED.split(text)):
        if number % 2:  # `split` puts what a group matched between the rest
            lines += [".PP", ".nf", *(roff(line) for line in part.rstrip("\n").split("\n")), ".fi"]
            continue
        for block in re.split(r"\n\s*\n", re.sub(r"<!--.*?-->", "", part, flags=re.DOTALL)):
            lines += _block(block.strip())
    return [line for place, line in enumerate(lines) if line != ".PP" or not _is_heading(lines[place - 1 : place])]


def _is_heading(lines: list[str]) -> bool:
    """Whether these end in a heading, after which a paragraph begins by itself."""
    return not lines or lines[-1].startswith(".S")


def _block(block: str) -> Iterator[str]:
    if not block:
        return
    if heading := re.fullmatch(r"#+ (.+)", block):
        yield f".SH {roff(heading[1].upper())}"
    elif block.startswith("|"):
        yield from _rows(block)
    else:
        yield ".PP"
        yield _spans(" ".join(block.split()))


def _rows(table: str) -> Iterator[str]:
    columns, _, *rows = (_cells(line) for line in table.splitlines())
    for first, *others in rows:
        yield ".TP"
        yield _spans(first)
        told = [f"{column}: {cell}" for column, cell in zip(columns[1:], others, strict=True) if cell]
        yield _spans("; ".join(told))


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _spans(text: str) -> str:
    """A line of text with its bold, italic and code words in their fonts; of links, the words."""
    made, place = "", 0
    for span in _SPAN.finditer(text):
        kind = str(span.lastgroup)
        words = roff(span[kind]).removeprefix("\\&")
        made += roff(text[place : span.start()]).removeprefix("\\&")
        made += f"\\f{_FONTS[kind]}{words}\\fR" if kind in _FONTS else words
        place = span.end()
    made += roff(text[place:]).removeprefix("\\&")
    return f"\\&{made}" if made.startswith((".", "'")) else made
