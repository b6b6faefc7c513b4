"""Everything a person sees.

Results go to stdout (a table, or with `--json` one JSON object and nothing else); progress, notes and warnings go to
stderr. Without a terminal a progress bar becomes a plain line every few seconds. Nothing is ever read as markup, so a
file name with brackets prints as it is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table

from vtk_cli.files import disk_errors

PLAIN_INTERVAL_S = 5.0
"""How often a progress line is printed where there is no terminal."""

_SPELLED_OUT = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
_SPELLED_OUT |= {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))}
"""Control characters, ends of lines by other names, and what turns the direction of text."""


class Progress(Protocol):
    """A running progress display."""

    def advance(self, count: int = 1, status: str = "") -> None:
        """Count `count` more units as done; `status` (`loss 0.31`) replaces the text behind the bar."""


@dataclass
class Console:
    """Where a command speaks. Made once by the face of a command and handed down.

    Args:
        json_output: results are printed as one JSON object; tables are not.
        quiet: no notes and no progress; warnings and results stay.
        verbose: details as well.
    """

    json_output: bool = False
    quiet: bool = False
    verbose: bool = False
    _out: RichConsole = field(default_factory=lambda: _literal_console(stderr=False))
    _err: RichConsole = field(default_factory=lambda: _literal_console(stderr=True))
    _log: Path | None = None

    def note(self, text: str) -> None:
        """Say something a person may like to know, on stderr."""
        if not self.quiet:
            self._err.print(_visible(text), style="dim", soft_wrap=True)
        self._append("note", text)

    def detail(self, text: str) -> None:
        """Say something only `--verbose` shows; the run's log always has it."""
        if self.verbose:
            self._err.print(_visible(text), style="dim", soft_wrap=True)
        self._append("detail", text)

    def warn(self, text: str) -> None:
        """Say something a person must know, on stderr, also with `--quiet`."""
        self._err.print(f"warning: {_visible(text)}", style="yellow", soft_wrap=True)
        self._append("warning", text)

    def error(self, text: str) -> None:
        """Say why the command failed: one line on stderr."""
        self._err.print(f"error: {_visible(text)}", style="bold red", soft_wrap=True)
        self._append("error", text)

    def text(self, text: str, style: str = "") -> None:
        """Print a line of the result on stdout; nothing with `--json`."""
        if not self.json_output:
            self._out.print(_visible(text), style=style or None, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table of the result on stdout; nothing with `--json`. Numbers are aligned right."""
        if self.json_output:
            return
        shown = Table(title=title or None, title_justify="left", title_style="bold")
        for index, name in enumerate(columns):
            numeric = all(isinstance(row[index], (int, float)) or _is_number(str(row[index])) for row in rows)
            shown.add_column(name, justify="right" if numeric and rows else "left", overflow="fold")
        for row in rows:
            shown.add_row(*(_visible(str(cell)) for cell in row))
        self._out.print(shown)

    def emit(self, summary: Mapping[str, Any]) -> None:
        """With `--json`, print the one JSON object of the command on stdout; otherwise nothing."""
        if self.json_output:
            text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
            try:
                self._out.file.write(text)
                self._out.file.flush()
            except BrokenPipeError:
                self._out.on_broken_pipe()

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Progress]:
        """Show progress over `total` units on stderr: a bar on a terminal, else a line every few seconds."""
        if self.quiet:
            yield _Silent()
        elif self._err.is_terminal and not self._err.is_dumb_terminal:
            with RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[status]}", markup=False),
                console=self._err,
                transient=True,
            ) as bars:
                yield _Bar(bars, description, total)
        else:
            yield _Lines(self, description, total)

    @contextmanager
    def log_to(self, path: Path) -> Iterator[None]:
        """Append every note, detail, warning and error, with the time, to the file `path` as well."""
        before, self._log = self._log, path
        try:
            yield
        finally:
            self._log = before

    def _append(self, kind: str, text: str) -> None:
        if self._log is not None:
            with disk_errors(self._log), self._log.open("a", encoding="utf-8") as log:
                lines = _visible(text).replace("\n", "\n    ")  # no file name begins an entry of its own
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {kind}: {lines}\n")


class _Silent:
    def advance(self, count: int = 1, status: str = "") -> None:
        pass


class _Bar:
    def __init__(self, bars: RichProgress, description: str, total: int) -> None:
        self._bars = bars
        self._task = bars.add_task(_visible(description), total=total, status="")

    def advance(self, count: int = 1, status: str = "") -> None:
        if status:
            self._bars.update(self._task, advance=count, status=status)
        else:
            self._bars.update(self._task, advance=count)


class _Lines:
    def __init__(self, console: Console, description: str, total: int) -> None:
        self._console, self._description, self._total = console, description, total
        self._done = 0
        self._start = self._shown = time.monotonic()

    def advance(self, count: int = 1, status: str = "") -> None:
        self._done += count
        now = time.monotonic()
        if now - self._shown < PLAIN_INTERVAL_S:
            return
        self._shown = now
        left = (now - self._start) / max(self._done, 1) * (self._total - self._done)
        behind = f", {status}" if status else ""
        self._console.note(f"{self._description}: {self._done}/{self._total}, about {left:.0f} s left{behind}")


def _visible(text: str) -> str:
    """`text` with what a terminal would obey (escape sequences) or cannot show (bytes that are no UTF-8) spelled out.

    File names come from anywhere; one of them must neither colour, clear nor retitle a terminal, nor stop a run.
    """
    return text.translate(_SPELLED_OUT).encode("utf-8", "backslashreplace").decode("utf-8")


class _Heard(RichConsole):
    """A console whose reader may go: the work goes on, and what is still said goes nowhere."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), self.file.fileno())


def _literal_console(*, stderr: bool) -> RichConsole:
    return _Heard(stderr=stderr, markup=False, emoji=False, highlight=False)


def _is_number(text: str) -> bool:
    try:
        float(text.rstrip("%x"))
    except ValueError:
        return False
    return True
