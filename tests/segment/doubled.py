"""Imported before `vtk segment`, lets it train in float64: what it computes is then told from how it rounds."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vtk_cli.segment import job
from vtk_cli.segment.refine import stage
from vtk_cli.segment.training.preparation import Training


def doubled_training(*arguments: Any, **named: Any) -> Training:
    """What `prepare` gives, in float64."""
    training: Training = prepare(*arguments, **named)
    _double(training.network)
    return training


def doubled_refiner(*arguments: Any) -> nn.Module:
    """A MaskRefineNet in float64."""
    return _double(build_refine_network(*arguments))


def _double(network: nn.Module) -> nn.Module:
    network.double().register_forward_pre_hook(_double_input)
    return network


def _double_input(network: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
    return (given[0].double(),)


prepare, build_refine_network = job.prepare, stage.build_refine_network
job.prepare, stage.build_refine_network = doubled_training, doubled_refiner
