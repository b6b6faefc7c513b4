"""Sums over the batch of all processes, for losses that divide by a count of it or are no mean over its samples.

Processes that train together take the mean of their gradients. For a loss that is a mean over samples this is the
gradient of one process with the whole batch; for any other it is so once the sums in it are of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

from vtk_cli.engine.processes.distributed import World


def summed(value: Tensor, world: World | None) -> Tensor:
    """The sum of `value` over all processes, in each; all must call it together.

    A loss f(summed(x)) is the same in every process, and the mean of the processes' gradients is its gradient: each
    gets f' times that of its own x, times as many as there are. Nothing is exchanged in the backward pass.

    Args:
        value: of one shape everywhere.
        world: this process among the others; None: it is alone.
    """
    if world is None or world.size == 1:
        return value
    total: Tensor = _Summed.apply(value, world.size)
    return total


def gathered(value: Tensor, world: World | None, sizes: Sequence[int]) -> Tensor:
    """The rows of all processes one after another, in each; all must call it together.

    A loss of these rows is the same in every process, and as with `summed` the mean of the processes' gradients is its
    gradient: whatever the loss does with the whole batch, and however many of its rows each process has.

    Args:
        value: (n, ...), n differing from process to process.
        world: this process among the others; None: it is alone.
        sizes: n of each process, in their order; empty: nothing is exchanged, each has the whole batch.
    """
    if world is None or world.size == 1 or not sizes:
        return value
    rows: Tensor = _Gathered.apply(value, world.rank, tuple(sizes))
    return rows


class _Gathered(Function):
    @staticmethod
    def forward(context: Any, value: Tensor, rank: int, sizes: tuple[int, ...]) -> Tensor:
        context.rank, context.sizes = rank, sizes
        sent = value.new_zeros(max(sizes), *value.shape[1:])
        sent[: len(value)] = value
        received = [torch.empty_like(sent) for _ in sizes]
        dist.all_gather(received, sent)
        return torch.cat([rows[:size] for rows, size in zip(received, sizes, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        own: Tensor = gradients[0].split(list(context.sizes))[context.rank]
        return own * len(context.sizes), None, None


class _Summed(Function):
    @staticmethod
    def forward(context: Any, value: Tensor, size: int) -> Tensor:
        context.size = size
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * context.size, None
