"""A network that is whole in every process: alone, or with gradients averaged among several (PyTorch's DDP)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm.utils import distribute_bn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vtk_cli.engine.averages import Averages, state_tensors
from vtk_cli.engine.processes.distributed import World


class WholeWeights:
    """A model, its average, and the optimiser's state.

    Attributes:
        model: the one that was given.
        averaged: its exponential moving average; None: none is kept.
        called: what a loss calls.

    Args:
        model: moved to the world's device; wrapped to average gradients among several processes.
        optimizer: over the model's parameters.
        world: this process among the others.
        ema_decay: of the average; None keeps none.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, world: World, ema_decay: float | None
    ) -> None:
        self.model = model.to(world.device)
        self.called: nn.Module = self.model
        self._optimizer, self._world = optimizer, world
        if world.size > 1:
            devices = [world.device] if world.device.type == "cuda" else None
            self.called = DistributedDataParallel(self.model, device_ids=devices)
        # Copied after the wrapper has made the processes' weights equal.
        self.averaged: nn.Module | None = None
        if ema_decay is not None:
            self.averaged = copy.deepcopy(self.model).eval()
            self._averages = Averages(state_tensors(self.averaged), ema_decay)

    def finish_gradients(self) -> None:
        """Called before an update, when all its gradients are there."""

    def gradient_norm(self) -> Tensor:
        """The 2-norm of the gradient, 0-dimensional."""
        gradients = [one.grad for one in self._parameters if one.grad is not None]
        return nn.utils.get_total_norm(gradients).to(self._world.device)

    def clip(self, largest: float) -> None:
        """Scale the gradient down to a 2-norm of `largest`, if it is longer."""
        nn.utils.clip_grad_norm_(self._parameters, largest)

    def update_average(self) -> None:
        """Called after every update."""
        if self.averaged is not None:
            self._averages.update(state_tensors(self.model))

    def norm(self) -> Tensor:
        """The 2-norm of all weights that learn, 0-dimensional."""
        return nn.utils.get_total_norm([parameter.detach() for parameter in self._parameters])

    def whole(self) -> AbstractContextManager[None]:
        """Inside, `model` and `averaged` hold the weights as they are now, on the device."""
        return nullcontext()

    def finish(self) -> None:
        """The training is over: `model` and `averaged` hold its weights from now on."""

    def share_statistics(self) -> None:
        """Give all processes the first one's running statistics, which are those that are saved.

        Weights are equal everywhere, but each process has normalised batches of its own since the last forward pass.
        """
        if self._world.size > 1:
            for model in (self.model, self.averaged):
                if model is not None:
                    distribute_bn(model, self._world.size, reduce=False)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: the states of `model`, `ema` and `optimizer`; all processes must ask for it together."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`, whichever way the weights were held then.

        Raises:
            RuntimeError, ValueError: it is the state of another model or optimiser.
        """
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["ema"])

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
