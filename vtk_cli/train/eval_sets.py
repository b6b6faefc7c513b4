"""A classifier on sets besides its own: ImageNet-V2, -A, -R, -Sketch, -C, ReaL, the Backgrounds Challenge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from vtk_cli.console import Console
from vtk_cli.data.classification import EvalSet, open_eval_set
from vtk_cli.data.evaluation_batches import EvaluationBatches, evaluation_transform
from vtk_cli.engine.devices import Precision
from vtk_cli.engine.processes.distributed import World
from vtk_cli.errors import UserError
from vtk_cli.models.evaluation import evaluate
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.train.robustness import Examined, SetScore, report_card


def open_sets(
    sets: Mapping[str, Path], class_names: tuple[str, ...], console: Console, flag: str = "--eval-set"
) -> dict[str, EvalSet]:
    """Open the sets of `--eval-set`, so that one that is not there is heard of before the work and not after.

    Args:
        sets: name -> folder.
        class_names: of the classifier, by label, as the class folders of training are called.
        console: hears of classes that are left out.
        flag: the option that names them.

    Raises:
        UserError: a set cannot be read, or has no class that the classifier knows.
    """
    opened = {}
    for name, path in sets.items():
        try:
            opened[name] = open_eval_set(path, class_names, console=console)
        except UserError as error:
            raise UserError(error.what, f"{flag} {name}={path}", error.fix) from error
    return opened


def score_sets(
    network: nn.Module,
    sets: Mapping[str, EvalSet],
    *,
    pixels: PixelConfig,
    device: torch.device,
    precision: Precision,
    batch_size: int,
    workers: int,
    console: Console,
    world: World | None = None,
) -> list[SetScore]:
    """Measure a classifier on every set; only the logits of the classes that a set has are compared.

    Args:
        network: maps normalised images (B, 3, S, S) to logits (B, C).
        sets: as `open_sets` gives them.
        pixels: the preprocessing.
        device, precision, batch_size, workers: of the forward pass, in this process.
        console: hears of broken files.
        world: this process among those that share the work; None for a single one.
    """
    examined: dict[str, Examined] = {}
    for name, found in sets.items():
        batches = EvaluationBatches(
            found.source,
            evaluation_transform(pixels),
            batch_size=batch_size,
            workers=workers,
            console=console,
            world=world,
            pin_memory=device.type == "cuda",
        )
        evaluation = evaluate(
            network,
            batches,
            pixels=pixels,
            device=device,
            precision=precision,
            world=world,
            restrict=found.classes,
        )
        batches.close()
        examined[name] = Examined(evaluation, found.label_sets)
    return report_card(examined)
