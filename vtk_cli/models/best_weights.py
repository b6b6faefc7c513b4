"""The weights that did best on the validation images while training went on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from vtk_cli.engine.metrics import Row
from vtk_cli.models.names import file_metadata


class BestWeights:
    """Keeps the weights of the epoch that did best, first of equals; the engine's `AfterEpoch`.

    The file itself says of which epoch it is and how good that was, so that a run that goes on, or makes some epochs
    again, keeps the same.

    Args:
        path: the weight file.
        measure: what is compared, in the rows of `metrics.jsonl`; more is better.
        save: `save(path, model, note)` writes a model's weights with `note` in the file's metadata.
    """

    def __init__(self, path: Path, measure: str, save: Callable[[Path, nn.Module, dict[str, str]], None]) -> None:
        self._path, self._measure, self._save = path, measure, save

    def __call__(self, row: Row, model: nn.Module, averaged: nn.Module | None) -> None:
        """Hear of an epoch: its row, its weights and their average."""
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
        self._save(self._path, best, {"epoch": str(epoch), self._measure: repr(value)})

    def kept(self) -> dict[str, Any] | None:
        """Of which epoch the kept weights are and how good they were; None where there are none."""
        if not self._path.exists():
            return None
        said = file_metadata(self._path)
        return {"epoch": int(said["epoch"]), self._measure: float(said[self._measure])}
