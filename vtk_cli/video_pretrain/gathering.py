"""Tensors of several processes as one, with their gradients, and shuffling a batch over the processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if world_size() > 1 else 0


def gathered(tensor: Tensor) -> Tensor:
    """(n, ...) of every process, as many in each, to (n x processes, ...) in their order; differentiable.

    The gradient of what each process makes of it reaches the process that a row came from.
    """
    if world_size() == 1:
        return tensor
    everything: Tensor = _Gathered.apply(tensor)
    return everything


def gathered_detached(tensor: Tensor) -> Tensor:
    """As `gathered`, without a gradient."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


class _Gathered(torch.autograd.Function):
    """`gathered_detached`; backwards, the gradients of all processes are summed and each takes its own rows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        return gathered_detached(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        whole = gradient.contiguous().clone()
        dist.all_reduce(whole)
        return whole[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes; not differentiable."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


class ShuffledOver:
    """Rows dealt out anew among the processes, and put back: batch normalisation cannot tell who belongs together.

    As MoCo does with its keys (arXiv 1911.05722, Section 3.3). One process leaves the rows as they are.

    Args:
        rows: of this process; every process has as many.
        generator: seeded alike in every process.
    """

    def __init__(self, rows: int, generator: torch.Generator) -> None:
        self._rows = rows
        self._order = torch.randperm(rows * world_size(), generator=generator) if world_size() > 1 else None

    def deal(self, tensor: Tensor) -> Tensor:
        """This process's rows after the dealing."""
        if self._order is None:
            return tensor
        mine = self._order[rank() * self._rows : (rank() + 1) * self._rows]
        return gathered_detached(tensor)[mine.to(tensor.device)]

    def collect(self, tensor: Tensor) -> Tensor:
        """What was made of dealt rows, at its place again."""
        if self._order is None:
            return tensor
        whole = gathered_detached(tensor)
        back = torch.argsort(self._order)[rank() * self._rows : (rank() + 1) * self._rows]
        return whole[back.to(tensor.device)]
