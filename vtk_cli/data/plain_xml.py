"""Annotation files in XML, from anyone: without a document type, whose entities could grow without bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from vtk_cli.errors import UserError

DEEPEST = 100
"""Elements in elements; annotations have five of them."""


class _Refused(ValueError):
    """What annotations do not have."""


class _PlainTree(ET.TreeBuilder):
    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def doctype(self, *_: Any) -> None:
        raise _Refused("has a document type (<!DOCTYPE>), which annotations do not have")

    def start(self, tag: Any, attrs: Any, /) -> ET.Element:
        self._depth += 1
        if self._depth > DEEPEST:
            raise _Refused(f"has elements {DEEPEST} deep in one another")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ET.Element:
        self._depth -= 1
        return super().end(tag)


def read_xml(path: Path, most: int) -> ET.Element:
    """The top element of a file of at most `most` bytes; nothing that it names is opened.

    Raises:
        UserError: it cannot be read, is larger, is no XML (with the line), or has a document type.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise UserError(f"is larger than {most >> 20} MiB", str(path))
        parser = ET.XMLParser(target=_PlainTree())  # noqa: S314  (document types, hence entities, are refused)
        parser.feed(content)
        top: ET.Element = parser.close()
    except ET.ParseError as error:
        line, _ = error.position
        raise UserError(f"is not XML: {error.msg}", f"{path}:{line}") from error
    except (ValueError, LookupError) as error:  # refused, or in an encoding that is not known
        raise UserError(str(error), str(path)) from error
    except OSError as error:
        raise UserError("cannot be read", str(path), error.strerror or "") from error
    return top
