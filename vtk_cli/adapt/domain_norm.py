"""Batch normalisation that keeps a layer for the source and one for the target; all other weights are shared.

Domain-specific batch normalisation: arXiv 1906.03950. Statistics of the target measured anew: AdaBN, arXiv 1603.04779.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vtk_cli.errors import UserError

SOURCE, TARGET = 0, 1
TargetNorm = Literal["adabn", "source", "pretrained"]
"""What the target's layers start from: the source's with statistics measured on the target, the source's as they are,
or what they were before the training on the source."""


class DomainBatchNorm(nn.Module):
    """Two copies of a batch normalisation, of which `domain` chooses one.

    Args:
        layer: any batch normalisation, also timm's with an activation.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.bns = nn.ModuleList((copy.deepcopy(layer), copy.deepcopy(layer)))
        self.domain = SOURCE

    def forward(self, values: Tensor) -> Tensor:
        """Normalise a batch of the domain that was chosen."""
        normalised: Tensor = self.bns[self.domain](values)
        return normalised


def with_domain_norm(module: nn.Module) -> nn.Module:
    """`module` with every batch normalisation doubled, each copy as the layer is: weights, statistics and mode.

    Returns:
        `module` itself, changed, unless it is such a layer.
    """
    if isinstance(module, _BatchNorm):
        return DomainBatchNorm(module).train(module.training)
    for name, child in module.named_children():
        if not isinstance(child, DomainBatchNorm):
            setattr(module, name, with_domain_norm(child))
    return module


def set_domain(module: nn.Module, domain: int) -> None:
    """Choose the layers of `domain` everywhere in `module`."""
    for part in module.modules():
        if isinstance(part, DomainBatchNorm):
            part.domain = domain


def one_domain(domain: int | Tensor) -> int:
    """The domain of a batch.

    Args:
        domain: 0 (source) or 1 (target), or one of them for every image, (B,).

    Raises:
        ValueError: the batch is of both, or of neither.
    """
    found = {int(domain)} if isinstance(domain, int) else set(domain.reshape(-1).tolist())
    if len(found) != 1:
        raise ValueError(f"a batch must be of one domain, not of {sorted(found)}: its images are normalised together")
    chosen = int(found.pop())
    if chosen not in {SOURCE, TARGET}:
        raise ValueError(f"there is no domain {chosen}")
    return chosen


def norm_layers(module: nn.Module, domain: int) -> list[_BatchNorm]:
    """The batch normalisations that an image of `domain` passes; where they are not doubled, all."""
    doubled = [part for part in module.modules() if isinstance(part, DomainBatchNorm)]
    inside = {id(layer) for part in doubled for layer in part.bns}
    chosen = [layer for part in doubled if isinstance(layer := part.bns[domain], _BatchNorm)]
    shared = [part for part in module.modules() if isinstance(part, _BatchNorm) and id(part) not in inside]
    return [*chosen, *shared]


def copy_source_norm(module: nn.Module) -> None:
    """Give the target's layers the weights and statistics of the source's."""
    for part in module.modules():
        if isinstance(part, DomainBatchNorm):
            part.bns[TARGET].load_state_dict(part.bns[SOURCE].state_dict())


def initialise_target_norm(
    module: nn.Module, run: Callable[[Tensor], object], batches: Callable[[], Iterable[Tensor]], start: TargetNorm
) -> None:
    """Make the target's layers ready for the first pseudo labels; `module` is left in eval mode.

    Args:
        module: a network after its training on the source.
        run: its forward pass for images of the target.
        batches: gives the target's images, (B, 3, S, S) each, B of 2 or more.
        start: see `TargetNorm`.

    Raises:
        UserError: `pretrained`, and the domains share their layers.
    """
    if start == "pretrained":
        if not any(isinstance(part, DomainBatchNorm) for part in module.modules()):
            what = "the target has no layers of its own to leave as they were"
            raise UserError(what, "--target-bn-init pretrained", "choose adabn or source, or keep --dsbn")
        module.eval()
        return
    copy_source_norm(module)
    module.eval()
    if start == "adabn":
        _measure(norm_layers(module, TARGET), run, batches())


@torch.no_grad()
def _measure(layers: list[_BatchNorm], run: Callable[[Tensor], object], batches: Iterable[Tensor]) -> None:
    """Means over batches of their means and unbiased variances, with nothing else in training mode."""
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch's cumulative average
            layer.training = True
        for batch in batches:
            run(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum, layer.training = momentum, False
