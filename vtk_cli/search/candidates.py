"""Measured architectures of a trained supernet: from the store, by this process, or by others at work on the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vtk_cli.engine.pieces.results import ResultStore, work_through
from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.engine.signals import StopRequest
from vtk_cli.files import content_key
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.search.scores.scorer import Measured, Scorer
from vtk_cli.search.scores.settings import Measurement

KEPT = "scores"
"""What is kept when work is stopped, for messages."""
_VERSION = 1
"""Raised when a measurement changes its meaning, so that kept ones are not taken for it."""


def nobody() -> None:
    """Hears nothing."""


@dataclass(frozen=True)
class _Piece:
    genes: Genes
    measurement: Measurement


@dataclass(frozen=True)
class Candidates:
    """What can be measured.

    Args:
        scorer: measures.
        about: what else shapes a measurement: checksums of weights (`initial`, `final`) and `images`.
        store: where measurements are kept.
    """

    scorer: Scorer
    about: dict[str, Any]
    store: ResultStore

    def measured(
        self,
        population: Sequence[Genes],
        needs: Iterable[Measurement],
        stop: StopRequest,
        heard: Callable[[], None] = nobody,
        share: Share = WHOLE,
    ) -> list[Measured]:
        """What was measured of each architecture, in their order.

        Args:
            population: different architectures.
            needs: what is to be measured of each.
            stop: obeyed between two measurements.
            heard: called for each architecture once all of it is there.
            share: with which measurements to begin, and whether to make any.

        Raises:
            UserError: it cannot be measured; the share makes nothing, and measurements are missing.
            Preempted, KeyboardInterrupt: a signal came; what was measured is kept.
        """
        kinds, pieces = _ordered(needs), self._pieces(population, needs)
        parts: dict[Genes, dict[Measurement, Measured]] = {genes: {} for genes in population}

        def note(piece: _Piece, result: Measured) -> None:
            parts[piece.genes][piece.measurement] = result
            if len(parts[piece.genes]) == len(kinds):
                heard()

        work_through(
            pieces,
            key=self._key,
            compute=self._compute,
            store=self.store,
            stop=stop,
            kept=KEPT,
            share=share,
            name=lambda piece: f"{piece.measurement} of {' '.join(map(str, piece.genes))}",
            heard=note,
            sound=lambda piece, result: isinstance(result.get(piece.measurement), dict),
        )
        return [_joined(parts[genes]) for genes in population]

    def keys(self, population: Sequence[Genes], needs: Iterable[Measurement]) -> list[str]:
        """Of everything that `measured` asks of the store."""
        return [self._key(piece) for piece in self._pieces(population, needs)]

    def _pieces(self, population: Sequence[Genes], needs: Iterable[Measurement]) -> list[_Piece]:
        kinds = _ordered(needs)
        return [_Piece(genes, kind) for genes in population for kind in kinds]

    def _key(self, piece: _Piece) -> str:
        return content_key(
            {
                "version": _VERSION,
                "genes": list(piece.genes),
                "settings": self.scorer.settings.key(piece.measurement),
                **self._shaping[piece.measurement],
            }
        )

    @cached_property
    def _shaping(self) -> dict[Measurement, dict[str, Any]]:
        """What shapes each measurement: the angle sees no image, the others not the initial weights."""
        images = {name: value for name, value in self.about.items() if name != "initial"}
        weights = {name: value for name, value in self.about.items() if name in {"initial", "final"}}
        return {"clean": images, "noise": images, "angle": weights}

    def _compute(self, piece: _Piece) -> Measured:
        measured = self.scorer.measure(piece.genes, {piece.measurement})
        if piece.measurement == "noise":  # the clean pass was made on the way
            self.store.put(self._key(_Piece(piece.genes, "clean")), {"clean": measured["clean"]})
        return measured


def _ordered(needs: Iterable[Measurement]) -> list[Measurement]:
    """Without the clean pass where noise brings it along."""
    asked = set(needs)
    if "noise" in asked:
        asked.discard("clean")
    return [kind for kind in ("clean", "noise", "angle") if kind in asked]


def _joined(parts: dict[Measurement, Measured]) -> Measured:
    return {name: value for part in parts.values() for name, value in part.items()}
