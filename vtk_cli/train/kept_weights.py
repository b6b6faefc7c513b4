"""The weights of a run, saved: those that did best so far, and those at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from vtk_cli.engine.metrics import Row
from vtk_cli.models.names import file_metadata
from vtk_cli.train.classifier import Classifier
from vtk_cli.train.options import TrainOptions
from vtk_cli.train.preparation import Training
from vtk_cli.train.trained import save_trained


class BestWeights:
    """Keeps the weights of the epoch that did best on the validation images, first of equals.

    The file itself says of which epoch it is and how good that was, so that a run that goes on, or makes some epochs
    again, keeps the same.

    Args:
        options, training: of the run.
        path: the weight file.
    """

    def __init__(self, options: TrainOptions, training: Training, path: Path) -> None:
        self._options, self._training, self._path = options, training, path
        self._measure = "map" if training.data.splits.train.multi_label else "top1"

    def __call__(self, row: Row, model: nn.Module, averaged: nn.Module | None) -> None:
        """Hear of an epoch: its row of `metrics.jsonl`, its weights and their average."""
        epoch = int(row["epoch"] or 0)
        measured = [
            (float(value), one)
            for prefix, one in (("", model), ("ema_", averaged))
            if one is not None and (value := row.get(f"{prefix}{self._measure}")) is not None
        ]
        if not measured:
            return
        value, best = max(measured, key=lambda pair: pair[0])
        if (before := self.kept()) is not None:
            made_again = before["epoch"] > epoch  # a killed run had made this epoch and later ones already
            if made_again or (before["epoch"] < epoch and before[self._measure] >= value):
                return
        note = {"epoch": str(epoch), self._measure: repr(value)}
        save_weights(self._options, self._training, self._path, best, note)

    def kept(self) -> dict[str, Any] | None:
        """Of which epoch the kept weights are and how good they were; None where there are none."""
        if not self._path.exists():
            return None
        said = file_metadata(self._path)
        return {"epoch": int(said["epoch"]), self._measure: float(said[self._measure])}


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
