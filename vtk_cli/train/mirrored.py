"""Who is mixed with whom: sample i of the batch of all processes with sample B - 1 - i.

Process r of N has the samples r b ... (r + 1) b - 1; their partners are those of process N - 1 - r, the last one first.
So that N processes mix what one does, these two hand each other their samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from vtk_cli.engine.processes.distributed import World


@dataclass(frozen=True)
class Mirrored:
    """The pairs that samples of this process are in; where the batch is odd, the one in its middle is in none.

    Args:
        samples: b, of this process; every process has as many.
        world: this process among the others; None: it is alone.
    """

    samples: int
    world: World | None = None

    @property
    def first(self) -> int:
        """The number of the first pair among those of the whole batch."""
        return 0 if self.world is None else min(self.world.rank, self._other) * self.samples

    def pairs(self, rows: Tensor) -> Tensor:
        """Whole pairs (2m, ...) in the order of the batch, sample i with sample 2m - 1 - i.

        Args:
            rows: (b, ...), of this process; given to the other one where half of the pairs are there.
        """
        if self._is_whole:
            half = self.samples // 2
            return rows if self.samples % 2 == 0 else torch.cat((rows[:half], rows[half + 1 :]))
        theirs = self._exchanged(rows)
        return torch.cat((rows, theirs) if self._is_lower else (theirs, rows))

    def mine(self, pairs: Tensor, rows: Tensor) -> Tensor:
        """This process's samples (b, ...) of `pairs` (2m, ...), one without a partner as it is in `rows`."""
        if self._is_whole:
            half = self.samples // 2
            alone = () if self.samples % 2 == 0 else (rows[half : half + 1],)
            return torch.cat((pairs[:half], *alone, pairs[half:])) if alone else pairs
        return pairs[: self.samples] if self._is_lower else pairs[self.samples :]

    @property
    def _other(self) -> int:
        return 0 if self.world is None else self.world.size - 1 - self.world.rank

    @property
    def _is_whole(self) -> bool:
        """Whether both of every pair are here: a single process, or the one in the middle."""
        return self.world is None or self.world.rank == self._other

    @property
    def _is_lower(self) -> bool:
        return self.world is not None and self.world.rank < self._other

    def _exchanged(self, rows: Tensor) -> Tensor:
        """The rows of the other process, while it gets these."""
        sent = rows.contiguous()
        received = torch.empty_like(sent)
        requests = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, sent, self._other), dist.P2POp(dist.irecv, received, self._other)]
        )
        for request in requests:
            request.wait()
        return received
