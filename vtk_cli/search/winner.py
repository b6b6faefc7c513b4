"""What a search found, as a network to train: its architecture, its shape, and how to train it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.architecture import Architecture
from vtk_cli.models.spaces.darts import DartsSpace
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Shape, Space
from vtk_cli.options import option_fields
from vtk_cli.search.image_options import ImageOptions
from vtk_cli.search.retrain_options import RetrainOptions
from vtk_cli.search.retrain_recipes import RETRAIN_RECIPES, retrain_recipe_of
from vtk_cli.search.scored import Scored, Scores, finite
from vtk_cli.search.supernet_file import SupernetRun
from vtk_cli.search.verb_options import SearchOptions

_OF_DATA = ("data", "val", "size", "workers", "seed", "device")


@dataclass(frozen=True)
class Winner:
    """The best architecture of a search.

    Args:
        architecture: with its score and the checksum of its supernet.
        shape: of its network.
        row: what it was judged by.
    """

    architecture: Architecture
    shape: Shape
    row: Scored


def winner_of(scores: Scores, supernet: SupernetRun, *, fit_width: float | None = None) -> Winner:
    """The first of the scores.

    Args:
        scores: the best first.
        supernet: they were judged with.
        fit_width: multiply-accumulates that its network is brought near to by its width; None leaves the width.

    Raises:
        UserError: nothing was scored, or nothing has a finite score; networks of the space have one width.
    """
    if not scores.rows or not math.isfinite(scores.rows[0].score):
        what = f"none of {len(scores.rows):,} architectures has a finite {scores.judgement.name}"
        raise UserError(what, str(supernet.folder), "train the supernet anew, with a lower --lr")
    row = scores.rows[0]
    shape = scores.shape if fit_width is None else fitted(scores.space, row.genes, scores.shape, fit_width)
    values = {name: finite(value) for name, value in row.metrics.items()}
    found = {
        "score": {scores.judgement.name: finite(row.score), **values},
        "supernet_sha256": supernet.sha256["final"],
    }
    architecture = Architecture(
        scores.space,
        row.genes,
        shape.form,
        shape.width or None,
        shape.cells or None,
        shape.classes,
        shape.resolution,
        found,
    )
    return Winner(architecture, shape, row)


def check_retraining(options: SearchOptions, space: Space) -> None:
    """Refuse, before anything is trained, what the network of the best architecture could not be.

    Raises:
        UserError: there is no such recipe; networks of the space have one width.
    """
    if options.retrain:
        _recipe(options, space.name, options.form or space.alone)
    if options.fit_width is not None:
        _require_widths(space)


def fitted(space: Space, genes: Genes, shape: Shape, macs: float) -> Shape:
    """The shape with the width whose multiply-accumulates come nearest to `macs`.

    Raises:
        UserError: networks of the space have one width.
    """
    return _require_widths(space).fit_width(genes, macs, shape)


def retraining_of(options: SearchOptions, winner: Winner) -> RetrainOptions:
    """The training of the winner's network: its recipe, on the images of the search.

    Raises:
        UserError: there is no such recipe.
    """
    recipe = _recipe(options, winner.shape.space, winner.shape.form)
    values: dict[str, Any] = {**RETRAIN_RECIPES[recipe], "recipe": recipe}
    known = option_fields(ImageOptions)
    values |= {name: getattr(options, name) for name in _OF_DATA if name in known}
    values |= {name: getattr(options, name) for name in ("checkpoint_seconds", "skip_nonfinite")}
    if options.retrain_epochs is not None:
        values["epochs"] = options.retrain_epochs
    return RetrainOptions(**values)


def _recipe(options: SearchOptions, space: str, form: str) -> str:
    recipe = options.retrain_recipe or retrain_recipe_of(space, form)
    if recipe not in RETRAIN_RECIPES:
        raise UserError(f"no such recipe {recipe!r}", "--retrain-recipe", f"there are {', '.join(RETRAIN_RECIPES)}")
    return recipe


def _require_widths(space: Space) -> DartsSpace:
    if not isinstance(space, DartsSpace):
        raise UserError(f"networks of {space.name} have one width", "--fit-width", "leave it out; darts has many")
    return space
