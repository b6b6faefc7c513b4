"""One update of the weights: forward, backward, clipping, the optimiser, the schedule, the averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from vtk_cli.console import Console
from vtk_cli.engine.devices import Precision, autocast, grad_scaler, resolve_precision
from vtk_cli.engine.loss_meter import LossMeter
from vtk_cli.engine.nonfinite import Computed, Culprits, LeftOut
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.sharded_weights import ShardedWeights, gradients_kept_back
from vtk_cli.engine.processes.whole_weights import WholeWeights
from vtk_cli.engine.seeds import sample_seed
from vtk_cli.errors import JobError


@dataclass(frozen=True)
class Clock:
    """When a batch is computed.

    Args:
        epoch: epochs finished before, from 0.
        step: updates made before, from 0.
        shared_seed: of this batch alone, the same in every process: made of the run's seed, the epoch, the step and the
            batch's place in the update. For what is drawn for the whole batch, of which each process takes its part:
            several processes then draw what one does.
        rank: of this process.
    """

    epoch: int
    step: int
    shared_seed: int
    rank: int = 0

    @property
    def seed(self) -> int:
        """Of this batch in this process alone: what a loss draws from a generator seeded with it, a resumed run draws
        again.
        """
        return sample_seed(self.shared_seed, self.rank, 0) if self.rank else self.shared_seed


class Scheduler(Protocol):
    """What is asked of a timm scheduler."""

    def step(self, epoch: int) -> None:
        """Called after every epoch with the number of epochs finished."""

    def step_update(self, num_updates: int) -> None:
        """Called after every update with the number of updates made."""

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""


Loss = Callable[[nn.Module, Any, Clock], Tensor | Iterator[Tensor]]
"""`loss(model, batch, clock)`: the batch's mean loss, or an iterator of losses whose sum it is.

It may have an attribute `branches`, a tuple with a name for each loss of its iterator: where one is not finite, the
error names it.
"""


def gradients_stay_here(model: nn.Module) -> AbstractContextManager[None]:
    """Inside, gradients are added up in each process and not exchanged; forward and backward both belong inside.

    The next backward pass outside exchanges the sum. For the losses of an iterator but its last one: `with
    gradients_stay_here(model): yield loss`.

    Args:
        model: as the loss function is given it; a model of a single process is left as it is.
    """
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return gradients_kept_back(model) if isinstance(model, FSDPModule) else nullcontext()


class Updater:
    """Everything that an update changes.

    Args:
        model: moved to the world's device, or held in parts by several processes.
        loss: see `Loss`.
        optimizer: over the model's parameters.
        scheduler: stepped after every update.
        clip_norm: the gradient's largest 2-norm; None leaves it.
        ema_decay: decay of the averaged weights; None keeps none.
        precision: of the forward pass.
        seed: of the clock.
        world: this process among the others.
        skip_nonfinite: so many updates whose loss or gradient is not finite are left out, see `LeftOut`; 0: none, and
            nothing is asked of the device.
        data: what knows the names of samples, see `sample_names.name_of`.
        console: warned of updates that are left out.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        scheduler: Scheduler | None,
        *,
        clip_norm: float | None,
        ema_decay: float | None,
        precision: Precision,
        seed: int,
        world: World,
        skip_nonfinite: int = 0,
        data: object = None,
        console: Console | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.scheduler = scheduler
        self._loss, self._clip_norm, self._seed, self._world = loss, clip_norm, seed, world
        self._precision = resolve_precision(precision, world.device)
        self._scaler = grad_scaler(world.device, self._precision)
        held = ShardedWeights if world.size > 1 and world.parallel == "fsdp" else WholeWeights
        self.weights: ShardedWeights | WholeWeights = held(model, optimizer, world, ema_decay)
        self.culprits = Culprits(world, tuple(getattr(loss, "branches", ())), data, console)
        self._left_out, self._left_out_before = None, 0
        if skip_nonfinite:
            self._left_out = LeftOut(skip_nonfinite, self.weights.called, self.culprits, console or Console())
        optimizer.zero_grad(set_to_none=True)

    @property
    def model(self) -> nn.Module:
        """The one that was given; whole when `weights` says so."""
        return self.weights.model

    @property
    def lr(self) -> float:
        """The learning rate now: the largest of the parameter groups'."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))

    def __call__(self, group: Sequence[tuple[Any, ...]], epoch: int, step: int, meter: LossMeter) -> None:
        """Make update number `step` (from 0) from the batches of `group`, each weighted by its samples.

        Raises:
            JobError: its loss or gradient is not finite, and as many such updates were left out as may be.
        """
        samples = sum(len(batch[0]) for batch in group)
        computed: list[Computed] = []
        if self._left_out is not None:
            self._left_out.begin()
        for place, batch in enumerate(group):
            clock = Clock(epoch, step, self._batch_seed(epoch, step, place), self._world.rank)
            with gradients_stay_here(self.weights.called) if place < len(group) - 1 else nullcontext():
                computed.append((self._backward(batch, clock, len(batch[0]) / samples), batch[0]))
        self.weights.finish_gradients()
        is_made = not self._is_left_out(step + 1, computed)
        if is_made:
            for batch_computed in computed:
                meter.add(step + 1, batch_computed)
            self._step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scheduler is not None:
            self.scheduler.step_update(step + 1)
        if is_made:
            self.weights.update_average()

    def finish(self) -> None:
        """The training is over: `weights.model` and `weights.averaged` hold its weights from now on."""
        if self._left_out is not None:
            self._left_out.finish()
        self.weights.finish()

    def require_finite_weights(self, step: int) -> None:
        """Refuse to save weights that an infinite gradient spoiled before any loss showed it.

        Raises:
            JobError: a weight is NaN or infinite.
        """
        if not self.weights.norm().isfinite():
            raise JobError(
                f"the weights are not finite after step {step}; earlier checkpoints are kept;"
                " try a lower learning rate or gradient clipping"
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that an update changes, for a checkpoint; all processes must ask for it together.

        The first one's counts: it is the same however many processes there are, whichever way they hold the weights.
        """
        parts = {"scheduler": self.scheduler, "scaler": self._scaler}
        states = {name: None if part is None else part.state_dict() for name, part in parts.items()}
        left_out = self._left_out_before if self._left_out is None else self._left_out.count
        return {**self.weights.state_dict(), **states, "left out": left_out}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises:
            RuntimeError, ValueError: it is the state of another model or optimiser.
        """
        parts = {"ema": self.weights.averaged, "scheduler": self.scheduler, "scaler": self._scaler}
        for name, part in parts.items():
            if (part is None) != (state[name] is None):
                raise ValueError(f"one has {name} state, the other has not")
        self.weights.load_state_dict(state)
        for name, part in (("scheduler", self.scheduler), ("scaler", self._scaler)):
            if part is not None:
                part.load_state_dict(state[name])
        self._left_out_before = state.get("left out", 0)
        if self._left_out is not None:
            self._left_out.count = self._left_out_before

    def _is_left_out(self, update: int, computed: Sequence[Computed]) -> bool:
        if self._left_out is None:
            return False
        # A gradient that overflows in fp16 is the scaler's: it leaves out the step itself, and scales less.
        norm = self.weights.gradient_norm() if self._scaler is None else None
        return self._left_out.has(update, computed, norm)

    def _batch_seed(self, epoch: int, step: int, place: int) -> int:
        return sample_seed(sample_seed(self._seed, 0, place), epoch, step)

    def _backward(self, batch: tuple[Any, ...], clock: Clock, share: float) -> list[Tensor]:
        """Add `share` of the batch's gradient; the batch's losses, detached and left on their device."""
        indices, *rest = batch
        with autocast(self._world.device, self._precision):
            losses = self._loss(self.weights.called, (indices, *_moved(rest, self._world.device)), clock)
        if isinstance(losses, Tensor):
            return [self._backward_one(losses, share)]
        values: list[Tensor] = []
        while True:
            with autocast(self._world.device, self._precision):
                loss = next(losses, None)
            if loss is None:
                break
            values.append(self._backward_one(loss, share))
            del loss  # its graph goes before the next is built
        if not values:
            raise ValueError("the loss function yielded no loss")
        return values

    def _backward_one(self, loss: Tensor, share: float) -> Tensor:
        scaled = loss if share == 1 else loss * share
        (scaled if self._scaler is None else self._scaler.scale(scaled)).backward()
        return loss.detach()

    def _step(self) -> None:
        if self._clip_norm is not None:
            if self._scaler is not None:
                self._scaler.unscale_(self.optimizer)
            self.weights.clip(self._clip_norm)
        if self._scaler is not None:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        else:
            self.optimizer.step()


def _moved(value: Any, device: torch.device) -> Any:
    """`value` with every tensor in it (in tuples, lists, dicts, or anything with a `to`) on `device`."""
    if hasattr(value, "to"):
        return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_moved(item, device) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, device) for item in value)
    return value
