"""Options of work whose pieces do not depend on one another."""

from __future__ import annotations

from dataclasses import dataclass

from vtk_cli.errors import UserError
from vtk_cli.options import RunOptions, option


@dataclass(frozen=True, kw_only=True)
class ShardOptions(RunOptions):
    """How independent pieces of work are spread."""

    shard: str | None = option(
        None,
        "Compute pieces I, I+COUNT, ... only (I/COUNT), or queue: whatever nobody works on.",
        panel="Scale",
        metavar="I/COUNT",
    )
    devices: str | None = option(
        None, "One process a device, e.g. 0,1,2,3 (CUDA) or cpu,cpu.", panel="Scale", metavar="D,D,..."
    )

    @property
    def shard_numbers(self) -> tuple[int, int] | None:
        """(index, count) of `--shard I/COUNT`; None for `queue` and without a shard.

        Raises:
            UserError: it is neither.
        """
        if self.shard in {None, "queue"}:
            return None
        index, _, count = str(self.shard).partition("/")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise UserError(f"{self.shard!r} is no shard", "--shard", "give I/COUNT with I from 0 to COUNT-1, or queue")
        return int(index), int(count)
