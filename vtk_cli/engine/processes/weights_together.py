"""Weights of a network in parts, asked for by a loss outside of forward passes: whole ones, or this process's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from vtk_cli.engine.processes.sharded_optimizer import own_rows


@contextmanager
def weights_together(model: nn.Module) -> Iterator[None]:
    """Inside, the parameters that lie outside of all blocks are whole; what is written to them stays.

    All processes must enter, and write the same. A forward pass that follows finds these weights put together.

    Args:
        model: as the loss function is given it; one whose weights are whole anyway is left as it is.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    model.reshard()  # what a pass left together may be older than the parts
    parts = dict(model.named_parameters())
    model.unshard()
    yield
    with torch.no_grad():
        for name, whole in model.named_parameters():
            if whole is not parts[name]:
                own_memory(parts[name]).copy_(own_part(whole, parts[name]))


def own_memory(parameter: Tensor) -> Tensor:
    """What this process has of a parameter, the same memory, detached; all of it where it is whole."""
    return parameter.to_local().detach() if isinstance(parameter, DTensor) else parameter.detach()


def own_part(whole: Tensor, parameter: Tensor) -> Tensor:
    """What of `whole`, a tensor of the shape of a parameter, lies where this process's part of the parameter does."""
    return own_rows(whole, parameter.device_mesh) if isinstance(parameter, DTensor) else whole
