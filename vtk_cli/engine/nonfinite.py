"""Losses and gradients that are not finite: whose they are, and the updates that are left out because of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.sample_names import NAMED, in_a_line, name_of
from vtk_cli.errors import JobError

Computed = tuple[Sequence[Tensor], Tensor]
"""The losses whose sum is a batch's mean loss, scalars left on their device, and the batch's samples (B,)."""

ADVICE = "earlier checkpoints are kept; try a lower learning rate, gradient clipping, or bf16 or fp32 in place of fp16"
LEAVE_OUT = f"{ADVICE}, or leave out such updates with --skip-nonfinite"


def batch_loss(losses: Sequence[Tensor]) -> Tensor:
    """The sum of a batch's losses, 0-dimensional."""
    return functools.reduce(torch.add, losses)


@dataclass(frozen=True)
class Culprits:
    """Says whose loss or gradient is not finite. All processes ask together, and hear the same.

    Args:
        world: this process among the others.
        branches: names of the losses that make up a batch's loss; empty for nameless ones.
        data: what knows the names of samples, see `sample_names.name_of`.
        console: its log gets all names, where there are many.
    """

    world: World
    branches: tuple[str, ...] = ()
    data: object = None
    console: Console | None = None

    def of_loss(self, update: int, computed: Computed) -> str:
        """`the loss of points is nan at step 3, in the batch of a.png, b.png`, of the first process where it is not.

        Args:
            update: from 1.
            computed: a batch of this process; that of another one, or their mean, may be the one that is not finite.
        """
        losses, indices = computed
        mine = ([float(loss) for loss in losses], self._names([indices]))
        guilty = [found for found in self.world.gather(mine) if not math.isfinite(sum(found[0]))] or [mine]
        values, names = self.world.broadcast(guilty[0])
        named = zip(self.branches, values, strict=True) if len(self.branches) == len(values) else ()
        branches = " and ".join(name for name, loss in named if not math.isfinite(loss))
        what = f"the loss{f' of {branches}' if branches else ''} is {sum(values)} at step {update}"
        return f"{what}, in the batch of {self._told(update, names)}"

    def of_gradient(self, update: int, computed: Sequence[Computed]) -> str:
        """`the gradient is not finite at step 3, in the batch of a.png, b.png`: all batches, of all processes.

        Args:
            update: from 1.
            computed: the batches of this process that make up the update.
        """
        names = [name for names in self.world.gather(self._names([one for _, one in computed])) for name in names]
        return f"the gradient is not finite at step {update}, in the batch of {self._told(update, names)}"

    def _names(self, batches: Sequence[Tensor]) -> list[str]:
        return [name_of(self.data, index) for indices in batches for index in indices.tolist()]

    def _told(self, update: int, names: list[str]) -> str:
        if len(names) > NAMED and self.console is not None and self.world.is_main:
            self.console.detail(f"the samples of step {update}: {', '.join(names)}")
        return in_a_line(names)


class LeftOut:
    """Leaves out up to so many updates whose loss or gradient is not finite, each with a warning.

    What the forward pass wrote to buffers (running statistics, queues) is put back; what a method does before its first
    forward pass (a momentum network that follows, weights that are set back) stays.

    Args:
        limit: how many, in all sittings together.
        model: as the loss is given it.
        culprits: names the samples.
        console: warned by the first process.

    Attributes:
        count: how many were left out so far.
    """

    def __init__(self, limit: int, model: nn.Module, culprits: Culprits, console: Console) -> None:
        self.count, self._limit = 0, limit
        self._model, self._culprits, self._console = model, culprits, console
        self._world = culprits.world
        self._is_due, self._before = False, list[tuple[nn.Module, str, Tensor]]()
        self._hook = model.register_forward_pre_hook(torch.compiler.disable(self._remember))

    def begin(self) -> None:
        """An update begins: the next forward pass is its first."""
        self._is_due = True

    def has(self, update: int, computed: Sequence[Computed], norm: Tensor | None) -> bool:
        """Whether this update is to be left out; the same in all processes, which wait for their devices.

        Args:
            update: from 1.
            computed: its batches.
            norm: 2-norm of the gradient; None where only the loss counts.

        Raises:
            JobError: it would be one too many.
        """
        losses = torch.stack([batch_loss(losses).float() for losses, _ in computed])
        finite = losses.isfinite().all()
        sound = finite if norm is None else finite & norm.isfinite()
        flags = torch.stack((finite, sound)).int()
        if self._world.size > 1:
            dist.all_reduce(flags, dist.ReduceOp.MIN)
        is_finite, is_sound = map(bool, flags.tolist())
        self._is_due = False
        if is_sound:
            self._before.clear()
            return False
        self._put_back()
        self._take(self._told(update, computed, is_finite=is_finite))
        return True

    def finish(self) -> None:
        """The training is over."""
        self._hook.remove()
        self._before.clear()

    def _told(self, update: int, computed: Sequence[Computed], *, is_finite: bool) -> str:
        if is_finite:
            return self._culprits.of_gradient(update, computed)
        mine = [math.isfinite(float(batch_loss(losses))) for losses, _ in computed]
        everywhere = [all(batch) for batch in zip(*self._world.gather(mine), strict=True)]
        return self._culprits.of_loss(update, computed[everywhere.index(False)])

    def _take(self, told: str) -> None:
        if self.count >= self._limit:
            left = f"{self.count} such update{'s were' if self.count > 1 else ' was'} left out before"
            raise JobError(f"{told}; {left}, as many as --skip-nonfinite allows; {ADVICE}")
        self.count += 1
        if self._world.is_main:
            self._console.warn(f"{told}; this update is left out, number {self.count} of {self._limit} at most")

    def _remember(self, model: nn.Module, _: object) -> None:
        if self._is_due:
            self._is_due = False
            self._before = [
                (module, name, buffer.detach().clone())
                for module in model.modules()
                for name, buffer in module.named_buffers(recurse=False)
            ]

    @torch.no_grad()
    def _put_back(self) -> None:
        for module, name, before in self._before:
            buffer = module.get_buffer(name)
            if buffer.shape == before.shape:
                buffer.copy_(before)  # in place: wrappers know it
            else:
                setattr(module, name, before)
        self._before = []
