"""Parameters and multiply-adds of a network, on tensors without data: nothing is computed, no weights are read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vtk_cli.catalogue.gathering import model_lists
from vtk_cli.models.listing import Built, ListedNetwork
from vtk_cli.models.names import parse_network
from vtk_cli.models.zoo import build

_IMAGENET = 1000
"""Classes of the published architectures."""


@dataclass(frozen=True)
class Count:
    """What was counted.

    Args:
        params: parameters; None where the network cannot be built without data.
        macs: multiply-adds of one forward pass: matrix products, convolutions and attention; None where it cannot be
            run without data.
        why: why one of them is None; else empty.
    """

    params: int | None
    macs: int | None
    why: str = ""


def counted(network: ListedNetwork) -> Count:
    """Count a network; a search space is none."""
    if network.kind == "space":
        return Count(None, None, "a space is many networks")
    try:
        module, arguments = _built(network)
    except Exception as error:  # noqa: BLE001 - networks refuse to be built without data in as many ways as there are
        return Count(None, None, _reason(error))
    params = sum(parameter.numel() for parameter in module.parameters())
    try:
        return Count(params, _macs(module, arguments))
    except Exception as error:  # noqa: BLE001 - and to be run
        return Count(params, None, _reason(error))


def _built(network: ListedNetwork) -> Built:
    with torch.device("meta"):
        if network.kind in {"alias", "timm", "torchvision", "architecture"}:
            classes = _IMAGENET if network.kind == "architecture" else None  # the libraries' networks have their own
            module, pixels = build(parse_network(network.name), None, classes, {}, offline=True)
            return module, (torch.zeros(1, 3, pixels.input_size, pixels.input_size),)
        owner = next(each for each in model_lists().values() if network in each.listed())
        built: Built = owner.built(network.name)
        return built


def _macs(module: nn.Module, arguments: tuple[object, ...]) -> int:
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad(), torch.compiler.set_stance("force_eager"), counter:
        module.eval().requires_grad_(requires_grad=False)(*arguments)
    return int(counter.get_total_flops()) // 2


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
