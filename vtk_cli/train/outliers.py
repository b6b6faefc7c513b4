"""How well a classifier's confidence tells images of its classes from images of none of them: ImageNet-O.

Source: arXiv 1907.07174, Section 4, and the code published with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vtk_cli.console import Console
from vtk_cli.data.classification import EvalSet, ImageSource
from vtk_cli.data.evaluation_batches import EvaluationBatches, evaluation_transform
from vtk_cli.engine.devices import Precision
from vtk_cli.engine.processes.distributed import World
from vtk_cli.errors import UserError
from vtk_cli.models.evaluation import Evaluation, evaluate
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.train.robustness import SetScore

Floats = NDArray[np.float64]


def outlier_precision(outside: Floats, inside: Floats) -> float:
    """The area under the precision-recall curve, as a sum of steps; what is to be found are the outliers.

    Args:
        outside: largest softmax probability of each image of no class, (n,).
        inside: of each image of a class, (m,).

    Returns:
        In [0, 1]; confidence that knows nothing comes to n / (n + m).
    """
    is_outlier = np.concatenate([np.ones(len(outside)), np.zeros(len(inside))])
    from sklearn.metrics import average_precision_score  # takes a second

    return float(average_precision_score(is_outlier, -np.concatenate([outside, inside])))


def score_outliers(
    network: nn.Module,
    sets: Mapping[str, EvalSet],
    own: ImageSource,
    *,
    pixels: PixelConfig,
    device: torch.device,
    precision: Precision,
    batch_size: int,
    workers: int,
    console: Console,
    world: World | None = None,
) -> list[SetScore]:
    """Measure how well confidence finds the images of each set among images of the classes.

    The folders of a set say which classes its images are taken for; the logits of these alone are compared, and the
    images of these alone are set beside them.

    Args:
        network: maps normalised images (B, 3, S, S) to logits (B, C).
        sets: of images that show none of the classes, by name.
        own: images that do, with their labels.
        pixels: the preprocessing.
        device, precision, batch_size, workers: of the forward pass.
        console: hears of broken files.
        world: this process among those that share the work; None for a single one.

    Raises:
        UserError: there are no images of the classes of a set, or images have several labels.
    """

    def confidences(source: ImageSource, classes: tuple[int, ...] | None) -> Floats:
        batches = EvaluationBatches(
            source,
            evaluation_transform(pixels),
            batch_size=batch_size,
            workers=workers,
            console=console,
            world=world,
            pin_memory=device.type == "cuda",
        )
        found = evaluate(
            network, batches, pixels=pixels, device=device, precision=precision, world=world, restrict=classes
        )
        batches.close()
        if not isinstance(found, Evaluation):
            what = "the confidence in one class says nothing of images that may show several"
            raise UserError(what, "--outlier-set", "leave it out")
        return found.confidences

    scores = []
    for name, outliers in sets.items():
        inside = own if outliers.classes is None or own.multi_label else _of_classes(own, outliers.classes)
        if not len(inside):
            raise UserError(f"{own.name} has no images of its classes", f"--outlier-set {name}", "name other images")
        found = confidences(outliers.source, outliers.classes), confidences(inside, outliers.classes)
        scores.append(SetScore(name, "AUPR", outlier_precision(*found), sum(map(len, found))))
    return scores


def _of_classes(source: ImageSource, classes: tuple[int, ...]) -> ImageSource:
    wanted = torch.isin(source.targets, torch.tensor(classes))
    return source.subset(wanted.nonzero()[:, 0].tolist())
