"""What a look at an installation says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """A fact.

    Args:
        key: for programs.
        what: for people.
        found: the fact in words.
        value: the fact for programs, of JSON's types; None: the words.
    """

    key: str
    what: str
    found: str
    value: Any = None


@dataclass(frozen=True)
class Missing:
    """Something that is not there and need not be.

    Args:
        what: is missing.
        without: what cannot be done without it, or is slower.
        mend: the command that brings it.
    """

    what: str
    without: str
    mend: str


@dataclass(frozen=True)
class KernelChoice:
    """The backend that an operator uses for tensors on `device`, None where none can run, and why."""

    operator: str
    device: str
    backend: str | None
    why: str


@dataclass(frozen=True)
class Findings:
    """What was found of one thing; `problems` are what is there and cannot work, a sentence each with its remedy."""

    lines: Sequence[Line] = ()
    missing: Sequence[Missing] = ()
    problems: Sequence[str] = ()


@dataclass(frozen=True)
class Examination(Findings):
    """Everything that was found."""

    kernels: Sequence[KernelChoice] = ()

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            **{line.key: line.found if line.value is None else line.value for line in self.lines},
            "kernels": [asdict(choice) for choice in self.kernels],
            "missing": [asdict(each) for each in self.missing],
            "problems": list(self.problems),
        }
