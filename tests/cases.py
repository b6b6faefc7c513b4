"""The tables of cases that were tried and held: told by the tests, put into the README with `--cases README.md`.

A pytest plugin. A test says `held(...)` when all it asserts is true; a table is written where no test failed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from vtk_cli.families.marks import insert_in


class Held(NamedTuple):
    """A case that held.

    Args:
        suite: `faults` or `hostile`.
        case: its kind, `SIGKILL at random moments of vtk train`: one row of the table.
        outcome: what was seen: the exit code, what the message says, bounds of time and memory.
        times: how often it was tried.
    """

    suite: str
    case: str
    outcome: str
    times: int = 1


_HELD: ContextVar[list[Held] | None] = ContextVar("held", default=None)


def held(suite: str, case: str, outcome: str, times: int = 1) -> None:
    """Say that a case held; see `Held`. Without `--cases` nobody listens."""
    listening = _HELD.get()
    if listening is not None:
        listening.append(Held(suite, case, outcome, times))


def table(cases: Iterable[Held]) -> str:
    """A Markdown table with a row a case kind, in the order of their names."""
    tried: defaultdict[str, int] = defaultdict(int)
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for one in cases:
        tried[one.case] += one.times
        seen[one.case].add(one.outcome)
    rows = [("case", "tried", "what was seen"), ("---", "--:", "---")]
    rows += [(case, str(tried[case]), "; or: ".join(sorted(seen[case]))) for case in sorted(tried)]
    return "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


class CaseTables:
    """The plugin that `--cases` asks for: it listens here and, with xdist, in the workers.

    Args:
        page: the Markdown file with the marks `<!-- cases SUITE -->` and `<!-- end -->`.
        is_worker: whether this process is one of xdist's, which send what they heard to the first.
    """

    def __init__(self, page: Path, *, is_worker: bool) -> None:
        self._page, self._is_worker = page, is_worker
        self._cases: list[Held] = []
        _HELD.set(self._cases)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Hear what a worker heard."""
        self._cases += [Held(*case) for case in getattr(node, "workeroutput", {}).get("cases", ())]

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Send what was heard, or write it."""
        if self._is_worker:
            session.config.workeroutput["cases"] = [tuple(case) for case in self._cases]  # type: ignore[attr-defined]
        elif exitstatus == pytest.ExitCode.OK:
            for suite in sorted({case.suite for case in self._cases}):
                insert_in(self._page, f"cases {suite}", table(case for case in self._cases if case.suite == suite))
