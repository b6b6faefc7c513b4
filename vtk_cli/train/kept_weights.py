"""The weights of a run, saved: those that did best so far, and those at the end."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vtk_cli.models.best_weights import BestWeights
from vtk_cli.models.trained_weights import save_trained
from vtk_cli.train.classifier import Classifier
from vtk_cli.train.options import TrainOptions
from vtk_cli.train.preparation import Training


def best_weights(options: TrainOptions, training: Training, path: Path) -> BestWeights:
    """Keeps those of the epoch with the highest top-1, or mean average precision where an image has many labels."""
    measure = "map" if training.data.splits.train.multi_label else "top1"

    def save(path: Path, model: nn.Module, note: dict[str, str]) -> None:
        save_weights(options, training, path, model, note)

    return BestWeights(path, measure, save)


def save_weights(options: TrainOptions, training: Training, path: Path, model: nn.Module, note: dict[str, str]) -> None:
    """Write what inference needs of a classifier: no point head, no mask token.

    Raises:
        JobError: the disk is full.
    """
    train = training.data.splits.train
    save_trained(
        path,
        classifier_of(model).inference_state(),
        architecture=training.network.name.tagged,
        config=training.eval_pixels,
        model_args=training.network.model_args,
        class_names=train.class_names,
        multi_label=train.multi_label,
        note={**note, "seed": str(options.seed)},
    )


def classifier_of(model: nn.Module) -> Classifier:
    """`model`, which the loop knows as any module."""
    if not isinstance(model, Classifier):
        raise TypeError(f"a {type(model).__name__} is no Classifier")
    return model
