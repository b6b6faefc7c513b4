"""Which architectural choices make two networks differ: regression of SAT on what differs (arXiv 2210.11407).

For every pair of networks f in {0, 1}^F says which of F components differ; gradient-boosted trees predict SAT from f,
and a component matters as much as the prediction suffers when its column is shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.inspection import permutation_importance
from sklearn.metrics import r2_score

from vtk_cli.errors import UserError
from vtk_cli.similarity.sat import Floats

FEWEST_NETWORKS = 5
HELD_OUT = 0.2


@dataclass(frozen=True)
class BoostedTrees:
    """Settings of the regression; the defaults are the published ones."""

    trees: int = 500
    depth: int = 12
    min_samples_split: int = 4
    learning_rate: float = 0.02


PUBLISHED = BoostedTrees()


@dataclass(frozen=True)
class Importance:
    """How much each component explains of SAT.

    Args:
        features: the F components, most important first.
        mean: (F,) the loss of R2 when the component's column is shuffled, mean over shuffles.
        spread: (F,) its standard deviation over shuffles.
        r2_train: R2 of the regression on the pairs it was fitted to.
        r2_new_pairs: R2 on a held-out fifth of the pairs; their networks appear in other pairs of the training set.
        r2_new_networks: R2 on the pairs that touch a held-out fifth of the networks, none of them seen in training.
    """

    features: tuple[str, ...]
    mean: Floats
    spread: Floats
    r2_train: float
    r2_new_pairs: float
    r2_new_networks: float


def feature_importance(
    score: Floats,
    differs: NDArray[Any],
    features: Sequence[str],
    *,
    settings: BoostedTrees = PUBLISHED,
    shuffles: int = 10,
    seed: int = 0,
) -> Importance:
    """Permutation importance of each component for SAT, with the regression's fit on seen and unseen data.

    Args:
        score: (N, N) SAT, symmetric and finite; the diagonal is not used.
        differs: (N, N, F) of 0 and 1 (or bool), symmetric; 1 where component f of networks i and j differs.
        features: the F components' names.
        settings: of the regression.
        shuffles: of each column.
        seed: of the trees, the held-out choices and the shuffles.

    Raises:
        UserError: fewer than 5 networks, or all scores equal.
        ValueError: the shapes disagree.
    """
    networks = len(score)
    if differs.shape != (networks, networks, len(features)):
        raise ValueError(f"differs must be {(networks, networks, len(features))}, got {differs.shape}")
    if networks < FEWEST_NETWORKS:
        raise UserError(
            f"feature importance over {networks} networks", fix=f"give at least {FEWEST_NETWORKS}, better dozens"
        )
    first, second = np.triu_indices(networks, k=1)
    inputs, target = differs[first, second].astype(np.float64), score[first, second]
    if np.ptp(target) == 0.0:
        raise UserError("all scores are equal: there is nothing to explain", "feature importance")

    random = np.random.default_rng(seed)
    new_pairs = _fifth(len(target), random)
    is_new = _fifth(networks, random)
    new_networks = is_new[first] | is_new[second]

    model = _fitted(inputs, target, settings, seed)
    shuffled = permutation_importance(model, inputs, target, scoring="r2", n_repeats=shuffles, random_state=seed)
    order = np.argsort(-shuffled.importances_mean, kind="stable")
    return Importance(
        features=tuple(features[f] for f in order),
        mean=shuffled.importances_mean[order],
        spread=shuffled.importances_std[order],
        r2_train=float(model.score(inputs, target)),
        r2_new_pairs=_held_out_r2(inputs, target, new_pairs, settings, seed),
        r2_new_networks=_held_out_r2(inputs, target, new_networks, settings, seed),
    )


def _fitted(inputs: Floats, target: Floats, settings: BoostedTrees, seed: int) -> Any:
    model = GradientBoostingRegressor(
        n_estimators=settings.trees,
        max_depth=settings.depth,
        min_samples_split=settings.min_samples_split,
        learning_rate=settings.learning_rate,
        random_state=seed,
    )
    return model.fit(inputs, target)


def _held_out_r2(inputs: Floats, target: Floats, held: NDArray[np.bool_], settings: BoostedTrees, seed: int) -> float:
    model = _fitted(inputs[~held], target[~held], settings, seed)
    return float(r2_score(target[held], model.predict(inputs[held])))


def _fifth(count: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """A random fifth of `count` things, as a mask; never none."""
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[random.permutation(count)[: max(1, round(HELD_OUT * count))]] = True
    return chosen
