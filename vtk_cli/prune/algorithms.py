"""Ways to a small generator: what is trained, what happens before a step, what is left at the end.

Searched on frozen weights: edge-popup (arXiv 1911.13299) and Gem-Miner (arXiv 2202.12002). Trained weights: dense,
sparse (a random mask), iterative magnitude pruning, magnitude pruning in one step. Neither: a random mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vtk_cli.engine.seeds import sample_seed
from vtk_cli.errors import UserError
from vtk_cli.prune.calibration import recalibrate
from vtk_cli.prune.gem_miner import GemMiner
from vtk_cli.prune.keeping import AlgorithmName, ScoreInit
from vtk_cli.prune.magnitude import IterativeMagnitude, magnitude_masks
from vtk_cli.prune.masking import MaskedNetwork, Selection, masked, set_masks
from vtk_cli.prune.search import MaskedSearch, Search, scores_of, weights_of
from vtk_cli.prune.selection import select
from vtk_cli.prune.weights import initialise_scores

__all__ = [
    "EdgePopup",
    "FixedMask",
    "GemMiner",
    "IterativeMagnitude",
    "Search",
    "SearchSettings",
    "create_search",
    "magnitude_masks",
    "random_masks",
    "recalibrate",
]

_MASKS = 2
"""Keeps the generators of random masks apart from those of weights and scores."""


@dataclass(frozen=True)
class SearchSettings:
    """What the algorithms are told.

    Args:
        selection: how much is kept, and where.
        steps: updates that will be made.
        seed: of scores and random masks.
        score_init: of edge-popup's scores.
        freeze_first, freeze_last: leave the first (last) prunable layer dense, random and out of the pool.
        rounds: of iterative magnitude pruning.
        rewind: to the weights after so many steps.
    """

    selection: Selection
    steps: int
    seed: int = 0
    score_init: ScoreInit = "uniform"
    freeze_first: bool = False
    freeze_last: bool = False
    rounds: int = 5
    rewind: int = 0


def create_search(algorithm: AlgorithmName, generator: nn.Module, settings: SearchSettings) -> Search:
    """Set a generator on its way.

    Args:
        algorithm: how.
        generator: plain, with its weights: random ones, or those of a checkpoint. It becomes a part of the search.
        settings: see there.

    Raises:
        UserError: the settings do not go together.
    """
    if algorithm == "dense":
        return Search(generator, list(generator.parameters()))
    freeze = {"freeze_first": settings.freeze_first, "freeze_last": settings.freeze_last}
    twin = masked(generator, settings.selection, **freeze)
    layers = twin.layers
    if algorithm == "edge-popup":
        initialise_scores(layers.values(), settings.score_init, settings.selection.scope, settings.seed)
        return EdgePopup(twin)
    if algorithm == "gem-miner":
        if settings.selection.structure != "none":
            raise UserError("Gem-Miner has no 2:4", "--structure", "give --algo edge-popup, or --structure none")
        initialise_scores(layers.values(), "positive", "global", settings.seed)
        return GemMiner(twin, settings.steps)
    if algorithm == "imp":
        return IterativeMagnitude(twin, settings.steps, settings.rounds, settings.rewind)
    chosen = magnitude_masks(twin, settings.selection) if algorithm == "magnitude" else None
    set_masks(twin.network, chosen or random_masks(twin, settings.selection, settings.seed))
    return FixedMask(twin, train=algorithm != "random")


class EdgePopup(MaskedSearch):
    """Scores are trained; the largest |score| are kept in every forward pass.

    Args:
        twin: its layers have scores.
    """

    needs_all_weights = True

    def __init__(self, twin: MaskedNetwork) -> None:
        super().__init__(twin, scores_of(twin))

    def finish(self) -> None:
        """The masks are those of the last scores."""
        self.twin.refresh()


class FixedMask(MaskedSearch):
    """The mask is given; the kept weights are trained, or nothing is.

    Args:
        twin: its masks are fixed.
        train: whether the kept weights are trained.
    """

    def __init__(self, twin: MaskedNetwork, *, train: bool) -> None:
        super().__init__(twin, weights_of(twin) if train else ())


def random_masks(twin: MaskedNetwork, selection: Selection, seed: int) -> dict[str, Tensor]:
    """Masks that keep exactly the promised number of weights, every choice equally likely.

    Args:
        twin: the network.
        selection: how many, and where.
        seed: the same one gives the same masks on every device.
    """
    layers = twin.layers
    amounts: dict[str, Tensor] = {}
    for number, (name, layer) in enumerate(layers.items()):
        generator = torch.Generator().manual_seed(sample_seed(seed, _MASKS, number))
        amounts[name] = torch.rand(layer.mask.shape, generator=generator).to(layer.mask.device)
    return select(layers, amounts, selection.keep, selection.scope, selection.structure)
