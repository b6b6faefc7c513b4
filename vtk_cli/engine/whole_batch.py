"""Sums over the batch of all processes, for losses that divide by a count of it or are no mean over its samples.

Processes that train together take the mean of their gradients. For a loss that is a mean over samples this is the
gradient of one process with the whole batch; for any other it is so once the sums in it are of the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

from vtk_cli.engine.distributed import World


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
