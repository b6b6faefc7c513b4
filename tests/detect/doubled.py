"""Imported before `vtk detect train`, lets it train in float64: what it computes is then told from how it rounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from vtk_cli.detect import job
from vtk_cli.detect.predictions import PaddedImages
from vtk_cli.detect.preparation import Training


def doubled(*arguments: Any) -> Training:
    """What `prepare` gives, in float64."""
    training: Training = prepare(*arguments)
    training.network.double().register_forward_pre_hook(_double_images)
    return training


def _double_images(network: nn.Module, given: tuple[PaddedImages, ...]) -> tuple[PaddedImages]:
    return (replace(given[0], images=given[0].images.double()),)


prepare = job.prepare
job.prepare = doubled
