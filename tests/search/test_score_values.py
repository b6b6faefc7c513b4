"""Scores from measured numbers: the formula of flatness, sums and ranks, settings and their keys."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from vtk_cli.errors import UserError
from vtk_cli.search.scores.combination import Combination, combination
from vtk_cli.search.scores.settings import ScoreSettings
from vtk_cli.search.scores.values import flatness, metrics_of, notes_of, slopes

SIGMAS = (0.001, 0.003, 0.006)
LOSSES = (2.0, 2.1, 2.4)
OFFICIAL = ScoreSettings()


def measured(losses, at_rest=1.95):
    return {
        "clean": {"loss": at_rest, "accuracy": 0.5, "images": 4},
        "noise": {"loss": at_rest, "losses": losses, "images": 4},
        "angle": {"radians": 1.0, "entries": 9},
    }


def test_flatness_of_a_known_curve() -> None:
    assert slopes(LOSSES, SIGMAS) == pytest.approx([2000, 50, 100])
    assert flatness(LOSSES, SIGMAS) == pytest.approx(4.651163e-4, rel=1e-6)
    assert slopes(LOSSES, SIGMAS, at_rest=1.95) == pytest.approx([50, 50, 100])
    assert flatness(LOSSES, SIGMAS, at_rest=1.95) == pytest.approx(4.99999975e-3, rel=1e-8)
    assert flatness((2.0, 2.0, 2.0), SIGMAS) == pytest.approx(4.99999998e-4, rel=1e-8)


def test_flatness_of_one_level_is_its_depth_alone() -> None:
    assert flatness((2.0,), (0.5,)) == pytest.approx(1 / (4 + 1e-5))
    assert flatness((0.0, 0.0), (1.0, 2.0)) == pytest.approx(1e5)


def test_sigmas_times_c_divide_the_slopes_by_c_and_leave_beta_w() -> None:
    for c in (0.1, 3.0, 10.0):
        scaled = tuple(c * sigma for sigma in SIGMAS)
        assert sum(slopes(LOSSES, scaled)) == pytest.approx(sum(slopes(LOSSES, SIGMAS)) / c)
        ours, theirs = (flatness(LOSSES, levels) / levels[0] for levels in (scaled, SIGMAS))
        assert ours == pytest.approx(theirs, rel=1e-6)


def test_flatness_falls_with_every_slope_and_with_the_depth() -> None:
    at = flatness(LOSSES, SIGMAS)
    for steeper in ((2.0, 2.1, 2.5), (2.0, 1.8, 2.1), (2.01, 2.11, 2.41), (2.0, 2.1, 1.7)):
        assert flatness(steeper, SIGMAS) < at


def test_a_loss_that_is_not_finite_makes_a_flatness_of_0_and_a_note() -> None:
    for broken in (math.inf, math.nan):
        assert flatness((2.0, broken, 2.0), SIGMAS) == 0
    found = measured([list(LOSSES), [2.0, None, 2.4]])
    assert metrics_of(found, OFFICIAL)["flatness"] == pytest.approx(flatness(LOSSES, SIGMAS) / 2)
    assert notes_of(found) == ["the loss is not finite in 1 of 6 passes under noise: their flatness is 0"]
    assert notes_of(measured([list(LOSSES)])) == []
    assert notes_of({"clean": {"loss": None, "accuracy": 0.0}}) == ["the loss is not finite"]


def test_metrics_are_computed_from_stored_losses_with_any_baseline() -> None:
    found = json.loads(json.dumps(measured([list(LOSSES), [2.0, 2.0, 2.0]])))
    metrics = metrics_of(found, OFFICIAL)
    mean = (flatness(LOSSES, SIGMAS) + flatness((2.0, 2.0, 2.0), SIGMAS)) / 2
    assert metrics == {"flatness": pytest.approx(mean), "loss": 1.95, "accuracy": 0.5, "angle": 1.0}
    relative = metrics_of(measured([list(LOSSES)]), replace(OFFICIAL, subtract_l0=True))
    assert relative["flatness"] == pytest.approx(4.99999975e-3, rel=1e-8)


def test_sums_are_those_of_the_released_code() -> None:
    one = {"flatness": 4e-4, "accuracy": 0.6, "angle": math.pi / 4, "loss": 2.0}
    for score, gamma, expected in (
        ("angle+flatness", None, 0.25 + 16 * 0.4),
        ("flatness+angle", 2.0, 0.25 + 2 * 0.4),
        ("accuracy+flatness", None, 0.6 + 0.4),
        ("angle+accuracy", 3.0, 0.25 + 3 * 0.6),
        ("flatness", None, 4e-4),
        ("loss", None, -2.0),
        ("angle", None, math.pi / 4),
        ("accuracy", None, 0.6),
    ):
        assert combination(score, OFFICIAL, gamma=gamma).scores([one]) == pytest.approx([expected])


def test_scores_need_only_what_they_are_made_of() -> None:
    needs = {score: set(combination(score, OFFICIAL).needs) for score in ("flatness", "loss", "angle+accuracy")}
    assert needs == {"flatness": {"noise"}, "loss": {"clean"}, "angle+accuracy": {"angle", "clean"}}


def test_rank_sum_is_free_of_scale_and_shares_ranks_of_equals() -> None:
    score = combination("angle+flatness", OFFICIAL, combine="rank")
    population = [{"angle": a, "flatness": f} for a, f in ((1.0, 5.0), (2.0, 5.0), (3.0, 1.0), (0.0, 9.0))]
    expected = [(2 + 2.5) / 4, (3 + 2.5) / 4, (4 + 1) / 4, (1 + 4) / 4]
    assert score.scores(population) == pytest.approx(expected)
    scaled = [{"angle": one["angle"] ** 3, "flatness": math.exp(one["flatness"])} for one in population]
    assert score.scores(scaled) == pytest.approx(expected)
    losses = Combination(("loss",), (-1.0,), "rank")
    assert losses.scores([{"loss": 1.0}, {"loss": 3.0}, {"loss": 2.0}]) == pytest.approx([1, 1 / 3, 2 / 3])


def test_a_metric_that_is_not_finite_comes_last_in_sums_and_in_ranks() -> None:
    for combine in ("sum", "rank"):
        score = Combination(("accuracy", "loss"), (1.0, -1.0), combine)
        scores = score.scores([{"accuracy": 0.9, "loss": math.inf}, {"accuracy": 0.1, "loss": 2.0}])
        assert scores[0] == -math.inf < scores[1]


@pytest.mark.parametrize("score", ["flatnes", "angle+angle", "angle+loss+accuracy", ""])
def test_a_score_that_does_not_exist_is_refused(score) -> None:
    with pytest.raises(UserError, match="--score"):
        combination(score, OFFICIAL)


@pytest.mark.parametrize("sigmas", [(), (0.0, 1.0), (-1.0, 1.0), (0.1, 0.1), (0.2, 0.1), (math.nan,)])
def test_noise_levels_must_be_positive_and_ascending(sigmas) -> None:
    with pytest.raises(UserError, match="sigmas must be positive and strictly increasing, got"):
        ScoreSettings(sigmas=sigmas)


@pytest.mark.parametrize(
    "wrong", [{"draws": 0}, {"batch_size": 0}, {"calibration_images": 1}, {"accuracy_calibration_images": 1}]
)
def test_settings_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(UserError, match="must be at least"):
        ScoreSettings(**wrong)


def test_keys_change_with_what_shapes_a_measurement_and_with_nothing_else() -> None:
    def changed(**fields):
        other = replace(OFFICIAL, **fields)
        return {kind for kind in ("clean", "noise", "angle") if other.key(kind) != OFFICIAL.key(kind)}

    assert changed(subtract_l0=True) == set()
    assert changed(draws=1) == changed(seed=1) == changed(sigmas=(0.1,)) == changed(common_noise=False) == {"noise"}
    assert changed(bn="ema14") == changed(batch_size=64) == changed(calibration_images=100) == {"clean", "noise"}
    assert changed(official_angle=True) == {"angle"}
    assert len({OFFICIAL.key(kind) for kind in ("clean", "noise", "angle")}) == 3
    drawn = {replace(OFFICIAL, fixed_calibration=False, seed=seed).key("clean") for seed in (0, 1)}
    assert len(drawn) == 2
