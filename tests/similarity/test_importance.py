from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from vtk_cli.errors import UserError
from vtk_cli.similarity.importance import PUBLISHED, BoostedTrees, Importance, feature_importance
from vtk_cli.similarity.sat import Floats

SMALL = BoostedTrees(trees=60, depth=4, learning_rate=0.1)
NAMES = ("large", "small", "none", "never")


def additive(networks: int = 16, noise: float = 0.0) -> tuple[Floats, Floats]:
    """SAT = 4 - 1.0 [large differs] - 0.3 [small differs]; `none` varies without effect and `never` does not vary."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, 2, (networks, 4))
    kinds[:, 3] = 0
    differs = (kinds[:, None] != kinds[None]).astype(np.float64)
    jitter = np.triu(random.normal(size=(networks, networks)), k=1) * noise
    return 4.0 - differs @ np.array([1.0, 0.3, 0.0, 0.0]) + jitter + jitter.T, differs


@pytest.fixture(scope="module")
def importance() -> Importance:
    score, differs = additive()
    return feature_importance(score, differs, NAMES, settings=SMALL)


def test_components_are_ranked_by_their_effect(importance: Importance) -> None:
    assert importance.features[:2] == ("large", "small")
    assert importance.mean[0] > 5 * importance.mean[1] > 0.0


def test_components_without_effect_do_not_matter(importance: Importance) -> None:
    mean = dict(zip(importance.features, importance.mean, strict=True))
    assert mean["never"] == 0.0
    assert abs(mean["none"]) < 1e-3


def test_shuffling_the_one_cause_costs_twice_its_share_of_the_variance() -> None:
    """A shuffled column is independent of the target: its expected squared error is twice the column's variance."""
    score, differs = additive(24)
    importance = feature_importance(score, differs, NAMES, settings=BoostedTrees(200, 4, 4, 0.1), shuffles=60)
    first, second = np.triu_indices(24, k=1)
    share = np.var(differs[first, second, 0]) / np.var(score[first, second])
    assert importance.mean[0] == pytest.approx(2 * share, rel=0.05)


def test_a_noiseless_rule_carries_over_to_new_pairs_and_new_networks(importance: Importance) -> None:
    assert importance.r2_train > 0.99
    assert importance.r2_new_pairs > 0.99
    assert importance.r2_new_networks > 0.99


def test_pure_noise_is_memorised_but_does_not_carry_over() -> None:
    random = np.random.default_rng(1)
    kinds = random.integers(0, 5, (20, 13))
    score = np.triu(random.normal(size=(20, 20)), k=1)
    importance = feature_importance(
        score + score.T, kinds[:, None] != kinds[None], [f"f{i}" for i in range(13)], settings=SMALL
    )
    assert importance.r2_train > 0.3
    assert importance.r2_new_pairs < 0.1
    assert importance.r2_new_networks < 0.1


def test_the_same_seed_gives_the_same_numbers(importance: Importance) -> None:
    score, differs = additive()
    again = feature_importance(score, differs, NAMES, settings=SMALL)
    assert np.array_equal(again.mean, importance.mean)
    assert again.r2_new_networks == importance.r2_new_networks


def test_the_diagonal_is_not_used(importance: Importance) -> None:
    score, differs = additive()
    np.fill_diagonal(score, -50.0)
    assert np.array_equal(feature_importance(score, differs, NAMES, settings=SMALL).mean, importance.mean)


def test_the_default_settings_are_the_published_ones() -> None:
    assert astuple(PUBLISHED) == (500, 12, 4, 0.02)


def test_four_networks_are_too_few() -> None:
    with pytest.raises(UserError, match="over 4 networks; give at least 5"):
        feature_importance(np.eye(4), np.zeros((4, 4, 4)), NAMES, settings=SMALL)


def test_equal_scores_leave_nothing_to_explain() -> None:
    with pytest.raises(UserError, match="nothing to explain"):
        feature_importance(np.full((6, 6), 2.0), np.zeros((6, 6, 4)), NAMES, settings=SMALL)


def test_a_table_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"differs must be \(6, 6, 4\)"):
        feature_importance(np.eye(6), np.zeros((6, 6, 3)), NAMES, settings=SMALL)
