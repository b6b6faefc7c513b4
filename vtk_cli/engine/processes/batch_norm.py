"""Batch normalisation over the batch of all processes: mean and variance of the whole, its gradient through both.

torch's `SyncBatchNorm` is for accelerators alone. Here it is used on those; on the CPU its mathematics is written out
(arXiv 1502.03167, Algorithm 1, the sums over all processes).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Let every batch normalisation in `model` see, while it trains, the batch of all processes.

    In place: each layer stays the object that it is, with its parameters, buffers, hooks, names, and a subclass of the
    class that it had. In eval mode, and in a world of one, it does what it did before. The processes' shares may
    differ in size.

    Args:
        model: before it is wrapped for several processes; the world may be joined later.

    Returns:
        `model`.

    Raises:
        ValueError: a layer is of a kind of batch normalisation that is unknown here.
    """
    for name, module in model.named_modules():
        if not isinstance(module, (_BatchNorm, nn.SyncBatchNorm)) or type(module) in _KINDS.values():
            continue
        if type(module) not in _KINDS:
            raise ValueError(f"{name}: {type(module).__name__} cannot be synchronised")
        module.__class__ = _KINDS[type(module)]  # type: ignore[assignment]  # it is a batch normalisation
    return model


def ordinary_batch_norm(model: nn.Module) -> nn.Module:
    """Undo `synchronise_batch_norm`: every layer is of its own class again, with what it has learnt.

    Returns:
        `model`.
    """
    before = {kind: plain for plain, kind in _KINDS.items()}
    for module in model.modules():
        if type(module) in before:
            module.__class__ = before[type(module)]
    return model


class _Synchronised(_BatchNorm):
    """Before a class of batch normalisation: what it does in training, among several processes."""

    # What torch's forward for accelerators asks of a layer besides what every batch normalisation has.
    process_group: dist.ProcessGroup | None = None
    _check_non_zero_input_channels: Any = nn.SyncBatchNorm._check_non_zero_input_channels

    @property
    def _is_shared(self) -> bool:
        return self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, ...) normalised; B may differ from process to process."""
        if not self._is_shared:
            alone: Tensor = super().forward(features)
            return alone
        if features.device.type != "cpu":
            return nn.SyncBatchNorm.forward(self, features)  # type: ignore[arg-type]  # it asks for no more than is here
        self._check_input_dim(features)  # type: ignore[no-untyped-call]
        axes, shape = [0, *range(2, features.ndim)], (1, -1, *[1] * (features.ndim - 2))
        values = features.to(torch.promote_types(features.dtype, torch.float32))
        mine = values.new_tensor([features.numel() // features.shape[1]])
        sums = _Sum.apply(torch.cat((values.sum(axes), mine)))
        count = sums[-1].detach()
        if count <= 1:
            raise ValueError("batch normalisation needs more than one value a channel to train")
        mean = sums[:-1] / count
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            normalised = normalised * self.weight.view(shape)
        if self.bias is not None:
            normalised = normalised + self.bias.view(shape)
        whole: Tensor = normalised.to(features.dtype)
        return whole

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        """Move the running statistics towards the batch's."""
        if not self.track_running_stats or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            if running is not None:
                running.lerp_(new.to(running.dtype), share)


class SynchronisedBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """`nn.BatchNorm1d` over all processes."""


class SynchronisedBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """`nn.BatchNorm2d` over all processes."""


class SynchronisedBatchNorm3d(_Synchronised, nn.BatchNorm3d):
    """`nn.BatchNorm3d` over all processes."""


class SynchronisedBatchNormAct2d(_Synchronised, BatchNormAct2d):  # type: ignore[misc]  # timm is untyped
    """timm's `BatchNormAct2d`, which activates what it has normalised, over all processes."""

    act: nn.Module
    drop: nn.Module

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) normalised and activated."""
        normalised: Tensor = super().forward(features)
        if self._is_shared:
            normalised = self.act(self.drop(normalised))
        return normalised


class _Sum(Function):
    """The sum over all processes; as each one's loss depends on it, its gradient is the sum of their gradients."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SynchronisedBatchNorm1d,
    nn.BatchNorm2d: SynchronisedBatchNorm2d,
    nn.BatchNorm3d: SynchronisedBatchNorm3d,
    BatchNormAct2d: SynchronisedBatchNormAct2d,
}
