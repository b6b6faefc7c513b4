"""What can go wrong, and the exit code that says so.

An error is raised where the fact is known and caught once, in `vtk_cli.app.main`. Nothing here imports more than
the standard library.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum

LONGEST = 4000
"""Characters of a message about wrong input; of a longer one the beginning and the end are told."""


class ExitCode(IntEnum):
    """What the process returns to the shell or to the scheduler."""

    DONE = 0
    FAILED = 1
    """The job itself failed: disk full, non-finite loss, a claim that does not hold."""
    USAGE = 2
    """Wrong usage or wrong input: options, data, config, names."""
    PREEMPTED = 75
    """Stopped by a signal after a checkpoint was saved: queue me again (BSD's EX_TEMPFAIL)."""
    INTERRUPTED = 130


class VtkError(Exception):
    """An error with one line for the user. `exit_code` is what the process returns."""

    exit_code = ExitCode.FAILED


class UserError(VtkError):
    """The user's input is wrong.

    Args:
        what: what is wrong, e.g. `unknown network 'resnet51'`.
        where: the option, file, line or field, e.g. `nets.txt:3`. Empty when `what` already says it.
        fix: what would be right, e.g. `did you mean resnet50, resnet101?`.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        place = f"{where}: " if where else ""
        remedy = f"; {fix}" if fix else ""
        super().__init__(_shortened(" ".join(f"{place}{what}{remedy}".split())))


def _shortened(line: str) -> str:
    """Names and values of a hostile file may be of any length; a line for people is not."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


class JobError(VtkError):
    """The job failed through no fault of the input: a full disk, a diverged loss."""


class PeerLost(JobError):
    """Another process of the same training has ended, and this one cannot go on without it."""


class Preempted(VtkError):
    """A signal stopped the job after its state was saved; running the same command goes on from there."""

    exit_code = ExitCode.PREEMPTED


class Interrupted(VtkError):
    """The user stopped the job (Ctrl-C); what was saved is in the message."""

    exit_code = ExitCode.INTERRUPTED


class Stopped(KeyboardInterrupt):
    """A signal of the scheduler ended a command where it was, between two saves; like Ctrl-C, nothing catches it."""


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """`did you mean a, b?` from the closest of `known` to `word`; an empty string when none is close."""
    close = difflib.get_close_matches(word, list(known), n=count, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else ""
