"""The moving average of a network's state, each tensor of it once, however many names it has there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn


def state_tensors(model: nn.Module) -> list[Tensor]:
    """The parameters and then the buffers that a model's state holds, each once."""
    buffers = dict(model.named_buffers())
    return [*model.parameters(), *(buffers[name] for name in kept_buffers(model))]


def kept_buffers(model: nn.Module) -> list[str]:
    """The names of the buffers that a model's state holds, one for each."""
    state = model.state_dict()
    return [name for name, _ in model.named_buffers() if name in state]


class Averages:
    """timm's `ModelEmaV3` over tensors.

    Over a model it would average a tensor once for each name, so that a shared head would follow many times as fast.

    Args:
        tensors: averages; those of integers are the latest instead.
        decay: of the averages, in [0, 1).
    """

    def __init__(self, tensors: Sequence[Tensor], decay: float) -> None:
        self.tensors = list(tensors)
        self._ema = ModelEmaV3(_State([torch.zeros(())]), decay=decay)
        self._ema.module = _State(self.tensors)

    def update(self, tensors: Sequence[Tensor]) -> None:
        """Move towards `tensors`, given in the same order."""
        self._ema.update(_State(tensors))


class _State(nn.Module):
    """Tensors as what `ModelEmaV3` averages: the state of a module."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        for number, tensor in enumerate(tensors):
            self.register_buffer(str(number), tensor.detach())

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The tensors: `ModelEmaV3` asks the first one for its device."""
        return cast("Iterator[nn.Parameter]", self.buffers(recurse))
