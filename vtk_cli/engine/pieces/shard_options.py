"""Options of work whose pieces do not depend on one another: what `--shard`, `--merge` and `--devices` mean.

`--shard I/COUNT` makes a process one of COUNT tasks, as of a Slurm array: it does pieces I, I+COUNT, ... first, then
any that nobody works on, and stays until all are there (`turns.py`). One of the tasks then assembles the result into
the run folder, as the command does by itself; the others say which did (`assembly.py`). Tasks may start at any time, in
any order, and be killed; more tasks than pieces do no harm. A task that comes when all is done ends at once.
`--shard queue` helps with the pieces and assembles nothing. `--merge` assembles and makes nothing.
Tasks write to the store of pieces alone; the run folder is its assembler's. All have the same options but the shard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.errors import UserError
from vtk_cli.options import RunOptions, SpeechOptions, option

QUEUE = "queue"
_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True, kw_only=True)
class TaskOptions(SpeechOptions):
    """Being one of many processes at work on the same pieces. None of this is part of what a run is."""

    shard: str | None = option(
        None,
        "As task I of COUNT: begin with pieces I, I+COUNT, ..., go on with what nobody works on; one task assembles."
        " queue: help only.",
        panel="Scale",
        metavar="I/COUNT",
        recorded=False,
    )
    merge: bool = option(False, "Assemble what shards have made; make nothing.", panel="Scale", recorded=False)

    @property
    def is_task(self) -> bool:
        """Whether this process assembles where no other task has: `--shard I/COUNT`."""
        return self.shard not in {None, QUEUE}

    @property
    def share(self) -> Share:
        """With which pieces to begin, and whether to make any.

        Raises:
            UserError: `shard` is none.
        """
        if self.merge:
            return Share(makes=False)
        if self.shard in {None, QUEUE}:
            return WHOLE
        said = _SHARD.fullmatch(str(self.shard))
        index, count = (int(said[1]), int(said[2])) if said else (0, 0)
        if not index < count:
            raise UserError(f"{self.shard!r} is no shard", "--shard", "give I/COUNT with I from 0 to COUNT-1, or queue")
        return Share(index, count)

    def check(self) -> None:
        """Options that contradict one another."""
        super().check()
        _ = self.share
        if self.shard and self.merge:
            raise UserError("a shard makes pieces, a merge none", "--shard", "leave out --merge")


@dataclass(frozen=True, kw_only=True)
class ShardOptions(RunOptions, TaskOptions):
    """How independent pieces of work are spread."""

    devices: str | None = option(
        None, "One process a device, e.g. 0,1,2,3 (CUDA) or cpu,cpu.", panel="Scale", metavar="D,D,..."
    )

    def check(self) -> None:
        """Options that contradict one another."""
        super().check()
        if self.devices and (self.shard or self.merge):
            flag = "--shard" if self.shard else "--merge"
            raise UserError("a shard or a merge starts no processes", flag, "leave out --devices")
