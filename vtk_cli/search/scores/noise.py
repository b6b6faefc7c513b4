"""Gaussian noise on the weights of a path, the same whenever and wherever it is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from vtk_cli.search.scores.settings import ScoreSettings

KEPT_BYTES = 2**30
"""Common noise that is kept on the device, for the next architecture with the same weights."""


class Noise:
    """Draws e_1 to e_T for every weight, N(0, 1) each, on the device of the weight.

    Noise is made from the seed, the draw, the weight's name and, unless it is common to all architectures, their
    genes: neither the order of architectures nor what else is drawn changes it, nor does the kind of device.

    Args:
        settings: seed, number of levels, and whether the noise is common.
        kept_bytes: how much common noise is kept.
    """

    def __init__(self, settings: ScoreSettings, kept_bytes: int = KEPT_BYTES) -> None:
        self._settings, self._room = settings, kept_bytes
        self._kept: dict[tuple[int, str], tuple[Tensor, ...]] = {}

    def levels(
        self, parameters: Mapping[str, nn.Parameter], draw: int, genes: Sequence[int]
    ) -> list[tuple[Tensor, ...]]:
        """For each parameter, in the order of `parameters`, the noise of each level, shaped like it."""
        return [self._of(name, parameter, draw, genes) for name, parameter in parameters.items()]

    def _of(self, name: str, parameter: nn.Parameter, draw: int, genes: Sequence[int]) -> tuple[Tensor, ...]:
        kept = self._kept.get((draw, name))
        if kept is not None:
            return kept
        settings = self._settings
        own = "" if settings.common_noise else f"/{','.join(map(str, genes))}"
        seed = int.from_bytes(f"{name}{own}".encode())
        rng = np.random.default_rng([settings.seed, draw, seed])
        drawn = rng.standard_normal((len(settings.sigmas), *parameter.shape), dtype=np.float32)
        noise = torch.from_numpy(drawn).to(parameter.device, parameter.dtype)
        levels: tuple[Tensor, ...] = noise.unbind()
        size = noise.numel() * noise.element_size()
        if settings.common_noise and size <= self._room:
            self._room -= size
            self._kept[draw, name] = levels
        return levels


@contextmanager
def restored(parameters: Sequence[nn.Parameter]) -> Iterator[list[Tensor]]:
    """Yield copies of `parameters`, and afterwards write them back, bit for bit."""
    copies = [parameter.detach().clone() for parameter in parameters]
    try:
        yield copies
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list[Tensor](parameters), copies)


@torch.no_grad()
def perturbed(
    parameters: Sequence[nn.Parameter],
    noise: Sequence[Sequence[Tensor]],
    trained: Sequence[Tensor],
    settings: ScoreSettings,
) -> Iterator[None]:
    """Put the noise of one level after the other on `parameters`, in place; `restored` undoes it.

    Cumulative noise goes on top of the last level's, with the deviation s_t - s_{t-1}; direct noise on the trained
    weights, with s_t (arXiv 2305.08611, released code, which has the former).

    Args:
        parameters: of any values.
        noise: of each parameter, at each level, standard normal.
        trained: copies of the trained weights.
        settings: the levels, and how the noise is scaled.
    """
    weights: list[Tensor] = list(parameters)
    scales = [filter_norms(one) for one in trained] if settings.scale == "filter" else None
    last = 0.0
    for level, sigma in enumerate(settings.sigmas):
        step = [one[level] for one in noise]
        if scales is not None:
            step = [one * scale for one, scale in zip(step, scales, strict=True)]
        if level == 0 or settings.noise == "direct":
            torch._foreach_copy_(weights, list(trained))
            last = 0.0
        torch._foreach_add_(weights, step, alpha=sigma - last)
        last = sigma
        yield


def filter_norms(weight: Tensor) -> Tensor:
    """The 2-norm of each filter of a weight (O, ...), shaped to multiply it; of a vector the absolute values."""
    if weight.dim() < 2:
        return weight.abs()
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return norms.view(-1, *[1] * (weight.dim() - 1)).expand_as(weight)
