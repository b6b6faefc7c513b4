"""Layers of batch normalisation on parts of a batch. Run as a script by each process of a world."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from vtk_cli.engine.processes.batch_norm import synchronise_batch_norm
from vtk_cli.engine.processes.distributed import World, join_world

SHAPES = {
    "1d": (6, 3),
    "1d with a length": (6, 3, 5),
    "2d": (6, 3, 4, 2),
    "2d activated": (6, 3, 4, 2),
    "3d": (6, 3, 2, 2, 3),
    "2d cumulative": (6, 3, 4, 2),
    "2d plain": (6, 3, 4, 2),
}
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "1d": lambda: nn.BatchNorm1d(3),
    "1d with a length": lambda: nn.BatchNorm1d(3),
    "2d": lambda: nn.BatchNorm2d(3),
    "2d activated": lambda: BatchNormAct2d(3),
    "3d": lambda: nn.BatchNorm3d(3),
    "2d cumulative": lambda: nn.BatchNorm2d(3, momentum=None),
    "2d plain": lambda: nn.BatchNorm2d(3, affine=False, track_running_stats=False),
}
PARTS = {"equal": ((0, 3), (3, 6)), "unequal": ((0, 1), (1, 6))}


def layer(kind: str) -> nn.Module:
    """In double precision, its weights drawn."""
    torch.manual_seed(5)
    made = LAYERS[kind]().double()
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


def batches(kind: str) -> list[tuple[Tensor, Tensor]]:
    """Two batches, and what the gradient of the output is."""
    torch.manual_seed(6)
    shape = SHAPES[kind]
    return [(3 + 2 * torch.randn(shape).double(), torch.randn(shape).double()) for _ in range(2)]


def seen(made: nn.Module, kind: str, first: int, last: int) -> dict[str, Any]:
    """What comes of the samples `first` ... `last` of both batches in training, and then of the first in eval mode."""
    outputs, gradients = [], []
    for values, upstream in batches(kind):
        part = values[first:last].clone().requires_grad_()
        output = made(part)
        output.backward(upstream[first:last])
        outputs.append(output.detach())
        gradients.append(part.grad)
    weights = {name: parameter.grad for name, parameter in made.named_parameters()}
    state = {name: value.clone() for name, value in made.state_dict().items()}
    evaluated = made.eval()(batches(kind)[0][0]).detach()
    return {"outputs": outputs, "inputs": gradients, "weights": weights, "state": state, "evaluated": evaluated}


def main() -> None:
    """Everything that the process sees, to a file."""
    torch.set_num_threads(1)
    with join_world("cpu") as world:
        found = {
            (kind, parts): seen(synchronise_batch_norm(layer(kind)), kind, *ranges[world.rank])
            for kind in LAYERS
            for parts, ranges in PARTS.items()
        }
        torch.save({"layers": found, "one value": refusal(world)}, Path(sys.argv[1], f"seen-{world.rank}.pt"))


def refusal(world: World) -> str:
    """What is said of a single value a channel in the whole batch."""
    try:
        synchronise_batch_norm(nn.BatchNorm1d(3))(torch.zeros(1 - world.rank, 3))
    except ValueError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
