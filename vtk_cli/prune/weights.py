"""The frozen random weights and the first scores.

Signed constants (arXiv 1911.13299: theta = +sigma or -sigma) come from counter-based random bits, so that the same
seed gives the same weights on every machine, device and version of any library: weight i of layer l is positive where
bit i % 64 of word i // 64 of Philox4x64-10 (Salmon et al., SC 2011) under the key (seed, l) is 1. The other
initialisations are drawn by torch's generator on the CPU.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from vtk_cli.engine.seeds import sample_seed
from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file
from vtk_cli.models.weights import load_exactly, read_state_dict
from vtk_cli.prune.keeping import Scope, ScoreInit, WeightInit
from vtk_cli.prune.masking import Masked, prunable

SMALL_STD = 0.02
LARGE_STD = 10.0
SCORE_BOUND = 0.1
_SCORES = 1
"""Keeps the scores' generators apart from the weights' where both have the same seed."""


@dataclass(frozen=True)
class WeightRule:
    """How frozen weights are made.

    Args:
        init: `signed-constant`: sigma or -sigma with sigma = sqrt(2 / fan); `kaiming-normal`: N(0, 2 / fan);
            `normal`: N(0, 0.02^2); `gaussian10`: N(0, 10^2).
        seed: 0 to 2**64 - 1.
        scale: what the fan is multiplied by; the kept fraction with `--scale-fan`, else 1.
    """

    init: WeightInit = "signed-constant"
    seed: int = 0
    scale: Fraction = Fraction(1)


def true_fan(layer: nn.Module) -> Fraction:
    """How many inputs reach one output of a layer, away from the border.

    A transposed convolution spreads each input over kh x kw outputs, `stride` apart, so that C_in kh kw / (sh sw) of
    them meet in one output. With stride 1 and no padding it is the projection of a single pixel, each output of which
    sees that pixel alone: C_in.
    """
    if isinstance(layer, nn.ConvTranspose2d):
        inputs = layer.in_channels // layer.groups
        if layer.stride == (1, 1) and layer.padding == (0, 0):
            return Fraction(inputs)
        return Fraction(inputs * math.prod(layer.kernel_size), math.prod(layer.stride))
    if isinstance(layer, nn.Conv2d):
        return Fraction(layer.in_channels // layer.groups * math.prod(layer.kernel_size))
    return Fraction(cast("nn.Linear", layer).in_features)


def sigma(layer: nn.Module, scale: Fraction = Fraction(1)) -> float:
    """sqrt(2 / (scale * fan)), rounded once to float32."""
    return float(np.float32(math.sqrt(2 / (true_fan(layer) * scale))))


def signs(seed: int, layer: int, count: int) -> Tensor:
    """Which weights of a layer are positive.

    Args:
        seed: 0 to 2**64 - 1.
        layer: the layer's number among the prunable ones, from 0.
        count: how many.

    Returns:
        bool (count,).
    """
    bits = np.random.Philox(key=np.array([seed, layer], np.uint64))
    words = bits.random_raw(-(-count // 64)).astype("<u8")
    return torch.from_numpy(np.unpackbits(words.view(np.uint8), count=count, bitorder="little").astype(np.bool_))


@torch.no_grad()
def initialise_weights(network: nn.Module, rule: WeightRule) -> None:
    """Fill the weights of all prunable layers, masked or not; biases become 0.

    The layers are numbered in forward order; each draws from a generator of its own.
    """
    for number, layer in enumerate(prunable(network).values()):
        weight = cast("Tensor", layer.weight)
        weight.copy_(_drawn(layer, number, rule).view(weight.shape))
        if isinstance(bias := layer.bias, Tensor):
            bias.zero_()


def load_weights(generator: nn.Module, path: Path) -> str:
    """Start from a checkpoint instead of random weights.

    Args:
        generator: plain.
        path: a weight file of exactly this generator.

    Returns:
        The file's SHA-256.

    Raises:
        UserError: it cannot be read, or is of another generator.
    """
    load_exactly(generator, read_state_dict(path), str(path))
    return sha256_file(path)


@torch.no_grad()
def initialise_scores(layers: Iterable[Masked], init: ScoreInit, scope: Scope, seed: int) -> None:
    """Give masked layers their first scores.

    Args:
        layers: in forward order.
        init: `uniform`: U(-0.1, 0.1); `kaiming`: U(-1/sqrt(fan), 1/sqrt(fan)); `positive`: U(0, 1), Gem-Miner's.
        scope: of the selection.
        seed: of the scores alone, each layer's generator being its own.

    Raises:
        UserError: see `check_scores`.
    """
    check_scores(init, scope)
    for number, layer in enumerate(layers):
        weight = layer.weight
        drawn = torch.rand(weight.shape, generator=_generator(seed, number, _SCORES))
        if init != "positive":
            bound = SCORE_BOUND if init == "uniform" else 1 / math.sqrt(true_fan(layer))
            drawn = (2 * drawn - 1) * bound
        layer.scores = nn.Parameter(drawn.to(weight))


def check_scores(init: ScoreInit, scope: Scope) -> None:
    """Refuse scores on a scale of their own in every layer where one threshold cuts them all.

    Raises:
        UserError: `kaiming` with `global`.
    """
    if init == "kaiming" and scope == "global":
        what = "kaiming scores are on another scale in every layer, and one threshold would empty whole layers"
        raise UserError(what, "--score-init", "give --score-init uniform, or --scope layer")


def weights_sha256(network: nn.Module) -> str:
    """The SHA-256 of the weights of all prunable layers before masking: float32, little-endian, in forward order."""
    return _sha256(cast("Tensor", layer.weight) for layer in prunable(network).values())


def effective_sha256(network: nn.Module) -> str:
    """The SHA-256 of the weights that all prunable layers run with: float32, little-endian, in forward order."""
    layers = prunable(network).values()
    return _sha256(one.effective_weight() if isinstance(one, Masked) else cast("Tensor", one.weight) for one in layers)


def _drawn(layer: nn.Module, number: int, rule: WeightRule) -> Tensor:
    """The weights of a layer, flat, on the CPU."""
    count = cast("Tensor", layer.weight).numel()
    if rule.init == "signed-constant":
        size = sigma(layer, rule.scale)
        return torch.where(signs(rule.seed, number, count), size, -size)
    std = {"normal": SMALL_STD, "gaussian10": LARGE_STD}.get(rule.init) or sigma(layer, rule.scale)
    return torch.randn(count, generator=_generator(rule.seed, number)) * std


def _generator(seed: int, number: int, use: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(sample_seed(seed, use, number))


@torch.no_grad()
def _sha256(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()
