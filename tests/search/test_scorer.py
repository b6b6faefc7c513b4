"""Measuring: closed forms, nothing left changed, and no dependence on order or company."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.models.spaces.small_spaces import WITH_POOLS, randomise, small_shape
from tests.search.analytic_supernet import CHAIN, Bowl, bowl_scorer, scored_images, small_scorer
from vtk_cli.engine.seeds import rng_state
from vtk_cli.errors import UserError
from vtk_cli.search.recalibration import calibration_batches, recalibrate
from vtk_cli.search.scores.angle import angle_between
from vtk_cli.search.scores.noise import Noise, filter_norms, perturbed, restored
from vtk_cli.search.scores.scorer import Images, Scorer
from vtk_cli.search.scores.settings import ScoreSettings
from vtk_cli.search.scores.values import metrics_of

SIGMAS = (0.001, 0.003, 0.006)
GENES = (1, 2, 3)
ALL = {"clean", "noise", "angle"}


def expected_variances(noise):
    return [1e-6, 9e-6, 36e-6] if noise == "direct" else [1e-6, 5e-6, 14e-6]


@pytest.mark.parametrize("noise", ["direct", "cumulative"])
def test_flatness_on_a_quadratic_loss_is_its_closed_form(noise) -> None:
    """d = 10,015 weights at the bottom of 0.5 |w|^2: L_t is 0.5 d v_t within a few of its deviations, 1.4 % each."""
    scorer = bowl_scorer(Bowl(), noise=noise, draws=1)
    measured = scorer.measure(GENES, {"noise"})
    losses = [0.5 * 10_015 * variance for variance in expected_variances(noise)]
    assert measured["noise"]["losses"][0] == pytest.approx(losses, rel=0.05)
    assert measured["noise"]["loss"] == 0
    terms = [losses[0] / 1e-3, (losses[1] - losses[0]) / 2e-3, (losses[2] - losses[1]) / 3e-3]
    assert metrics_of(measured, scorer.settings)["flatness"] == pytest.approx(1 / (sum(terms) + 1e-5), rel=0.05)


@pytest.mark.parametrize("noise", ["direct", "cumulative"])
@pytest.mark.parametrize("common", [True, False])
def test_losses_on_a_quadratic_are_exactly_those_of_the_noise_that_is_drawn(noise, common) -> None:
    bowl = Bowl(50, centre=0.1)
    scorer = bowl_scorer(bowl, noise=noise, common_noise=common, sigmas=(0.1, 0.5, 1.0), draws=2)
    measured = scorer.measure(GENES, {"noise"})["noise"]
    active = bowl.active_parameters(GENES)
    for draw in range(2):
        levels = Noise(scorer.settings).levels(active, draw, GENES)
        e = [torch.cat([one[t] for one in levels]).double() for t in range(3)]
        moved = (
            [0.1 * e[0], 0.5 * e[1], e[2]]
            if noise == "direct"
            else [0.1 * e[0], 0.1 * e[0] + 0.4 * e[1], 0.1 * e[0] + 0.4 * e[1] + 0.5 * e[2]]
        )
        expected = [0.5 * float((w - 0.1).square().sum()) for w in moved]
        assert measured["losses"][draw] == pytest.approx(expected, rel=1e-5)
    assert measured["loss"] == pytest.approx(0.5 * 65 * 0.01, rel=1e-5)


@pytest.mark.parametrize("noise", ["direct", "cumulative"])
def test_deviations_reached_are_those_of_the_levels(noise) -> None:
    weight = torch.nn.Parameter(torch.zeros(100_000))
    settings = ScoreSettings(noise=noise)
    drawn, found = Noise(settings).levels({"w": weight}, 0, GENES), []
    with restored([weight]) as trained:
        found = [float(weight.detach().var()) for _ in perturbed([weight], drawn, trained, settings)]
    assert found == pytest.approx(expected_variances(noise), rel=0.03)
    assert not weight.any()


def test_filter_scaled_noise_is_that_of_a_filter_times_its_norm() -> None:
    weight, bias = torch.nn.Parameter(torch.randn(3, 2, 3, 3)), torch.nn.Parameter(torch.tensor([2.0, -3.0, 0.0]))
    assert torch.allclose(filter_norms(weight.detach())[1], weight[1].detach().norm())
    settings = ScoreSettings(sigmas=(0.5,), scale="filter")
    drawn = Noise(settings).levels({"w": weight, "b": bias}, 0, GENES)
    before = weight.detach().clone()
    with restored([weight, bias]) as trained:
        for _ in perturbed([weight, bias], drawn, trained, settings):
            for number in range(3):
                expected = before[number] + 0.5 * before[number].norm() * drawn[0][0][number]
                torch.testing.assert_close(weight.detach()[number], expected)
            torch.testing.assert_close(
                bias.detach(), torch.tensor([2.0, -3.0, 0.0]) + drawn[1][0] * torch.tensor([1.0, 1.5, 0.0])
            )


def snapshot(supernet):
    state = {name: value.clone() for name, value in supernet.state_dict().items()}
    return (
        state,
        [one.requires_grad for one in supernet.parameters()],
        [one.training for one in supernet.modules()],
        [m.momentum for m in supernet.modules() if hasattr(m, "momentum")],
    )


@pytest.mark.parametrize("name", ["darts", "nasbench201", "shufflenetv2", "chain-b"])
def test_measuring_leaves_weights_statistics_modes_and_generators_bit_for_bit(name) -> None:
    scorer = small_scorer(name, draws=1)
    supernet = scorer.supernet.train()
    next(supernet.parameters()).requires_grad_(False)
    list(supernet.children())[-1].eval()
    before, generators = snapshot(supernet), rng_state()
    scorer.measure(supernet.space.sample(np.random.default_rng(0)), ALL)
    after = snapshot(supernet)
    assert all(torch.equal(after[0][key], value) for key, value in before[0].items())
    assert after[1:] == before[1:]
    now = rng_state()
    assert now["python"] == generators["python"]
    assert torch.equal(now["torch"], generators["torch"])
    assert torch.equal(now["numpy"]["key"], generators["numpy"]["key"])


def test_weights_are_put_back_when_a_forward_fails_under_noise() -> None:
    scorer = small_scorer()
    before = snapshot(scorer.supernet)[0]
    calls = itertools.count()

    def fail(*_):
        if next(calls) == 9:
            raise RuntimeError("stop")

    scorer.supernet.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        scorer.measure(GENES, {"noise"})
    assert all(torch.equal(scorer.supernet.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("fixed", [True, False])
def test_measurements_do_not_depend_on_order_or_on_who_makes_them(common, fixed) -> None:
    settings = {"common_noise": common, "fixed_calibration": fixed, "calibration_images": 16, "sigmas": (0.1, 0.3)}
    population = [(0, 1, 2), (3, 1, 0), (2, 2, 2), (1, 3, 1)]
    one = small_scorer(**settings)
    alone = {genes: one.measure(genes, ALL) for genes in population}
    shards = [small_scorer(**settings), small_scorer(**settings)]
    backwards = {genes: shards[at % 2].measure(genes, ALL) for at, genes in enumerate(reversed(population))}
    torch.manual_seed(99)
    assert backwards == alone
    assert one.measure(population[1], ALL) == alone[population[1]]
    assert len({json.dumps(measured, allow_nan=False) for measured in alone.values()}) == 4


def test_another_seed_is_other_noise_and_every_draw_is_another() -> None:
    losses = [small_scorer(seed=seed, sigmas=(0.3,)).measure(GENES, {"noise"})["noise"]["losses"] for seed in (0, 1)]
    assert len({loss for draws in losses for (loss,) in draws}) == 6


def test_common_noise_is_the_same_on_shared_weights_and_own_noise_is_not() -> None:
    supernet = CHAIN.supernet(small_shape(CHAIN))
    for common in (True, False):
        noise = Noise(ScoreSettings(common_noise=common))
        first, second = (
            dict(zip(active, noise.levels(active, 0, genes), strict=True))
            for genes in ((0, 1, 2), (0, 3, 2))
            for active in [supernet.active_parameters(genes)]
        )
        shared = first.keys() & second.keys()
        assert any(name.startswith("layers.0.0.") for name in shared)
        assert all(torch.equal(first[name][1], second[name][1]) == common for name in shared)


def test_noise_is_the_same_whether_it_is_kept_or_drawn_again() -> None:
    weights = {"a": torch.nn.Parameter(torch.zeros(40)), "b": torch.nn.Parameter(torch.zeros(4))}
    kept, drawn = Noise(ScoreSettings(), kept_bytes=600), Noise(ScoreSettings(), kept_bytes=0)
    for _ in range(2):
        for one, other in zip(kept.levels(weights, 1, GENES), drawn.levels(weights, 1, GENES), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert kept.levels(weights, 1, GENES)[0][0] is kept.levels(weights, 1, GENES)[0][0]
    assert drawn.levels(weights, 1, GENES)[0][0] is not drawn.levels(weights, 1, GENES)[0][0]


def test_noise_on_the_path_alone_gives_the_losses_of_noise_on_every_weight() -> None:
    scorer = small_scorer(sigmas=(0.1, 0.3), draws=1)
    found = scorer.measure(GENES, {"noise"})["noise"]["losses"][0]
    supernet, data = small_scorer().supernet, scored_images(CHAIN)
    recalibrate(supernet, GENES, calibration_batches(data.calibration, 8))
    everything = dict(supernet.named_parameters())
    drawn = Noise(scorer.settings).levels(everything, 0, GENES)
    slow = []
    with torch.no_grad():
        for level, step in enumerate((0.1, 0.3 - 0.1)):
            for weight, noise in zip(everything.values(), drawn, strict=True):
                weight.add_(noise[level], alpha=step)
            sums = [
                F.cross_entropy(supernet(images, GENES), labels, reduction="sum")
                for images, labels in zip(data.images.split(8), data.labels.split(8), strict=True)
            ]
            slow.append(float(torch.stack(sums).double().sum() / 21))
    assert found == slow


def test_loss_and_accuracy_are_those_of_the_recalibrated_path() -> None:
    for name in ("chain-a", "nasbench201"):
        scorer = small_scorer(name)
        genes = scorer.supernet.space.sample(np.random.default_rng(3))
        clean = scorer.measure(genes, {"clean"})["clean"]
        supernet, data = small_scorer(name).supernet, scored_images(scorer.supernet.space)
        recalibrate(supernet, genes, calibration_batches(data.calibration, 8))
        with torch.no_grad():
            logits = supernet(data.images, genes)
        assert clean["loss"] == pytest.approx(float(F.cross_entropy(logits, data.labels)), rel=1e-5)
        assert clean["accuracy"] == int((logits.argmax(1) == data.labels).sum()) / 21
        assert clean["images"] == 21


def test_mean_over_batches_counts_a_short_last_batch_fully() -> None:
    """21 images in batches of 8, 8 and 5."""
    by_images, by_batches = (
        small_scorer(loss_mean=mean).measure(GENES, {"clean"})["clean"]["loss"] for mean in ("images", "batches")
    )
    scorer, data = small_scorer(), scored_images(CHAIN)
    recalibrate(scorer.supernet, GENES, calibration_batches(data.calibration, 8))
    with torch.no_grad():
        losses = F.cross_entropy(scorer.supernet(data.images, GENES), data.labels, reduction="none")
    assert by_images == pytest.approx(float(losses.mean()), rel=1e-5)
    assert by_batches == pytest.approx(float(sum(part.mean() for part in losses.split(8)) / 3), rel=1e-5)


def test_a_candidate_costs_the_forwards_that_it_needs() -> None:
    """Of 24 images in batches of 8, and of 21 in batches of 8: 3 to calibrate and 3 a pass; the angle costs none."""
    for needs, passes in (({"angle"}, None), ({"clean"}, 1), ({"noise"}, 1 + 2 * 3), (ALL, 1 + 2 * 3)):
        scorer, count = small_scorer(draws=2), itertools.count()
        scorer.supernet.register_forward_hook(lambda *_, count=count: next(count) and None)
        scorer.measure(GENES, needs)
        assert next(count) == (0 if passes is None else 3 + 3 * passes)


def test_accuracy_can_have_its_own_calibration_before_the_flatness() -> None:
    own = small_scorer(accuracy_calibration_images=24, calibration_images=8).measure(GENES, {"noise"})
    many, few = (small_scorer(calibration_images=count).measure(GENES, {"noise"}) for count in (24, 8))
    assert own["clean"] == many["clean"]
    assert own["noise"] == few["noise"]
    assert many["clean"] != few["clean"]


def test_losses_that_overflow_are_none_and_the_flatness_is_0() -> None:
    scorer = small_scorer(sigmas=(0.1, 1e30), draws=1)
    measured = scorer.measure(GENES, {"noise"})
    assert measured["noise"]["losses"][0][1] is None
    assert measured["noise"]["losses"][0][0] is not None
    assert metrics_of(measured, scorer.settings)["flatness"] == 0
    json.dumps(measured, allow_nan=False)


def test_what_cannot_be_measured_is_refused() -> None:
    scorer = small_scorer(initial=False)
    with pytest.raises(UserError, match="the angle needs the weights from before the training"):
        scorer.measure(GENES, {"angle"})
    supernet, data = scorer.supernet, scored_images(CHAIN)
    for images in (None, Images(data.calibration, data.images[:0], data.labels[:0])):
        with pytest.raises(UserError, match="no image to score on"):
            Scorer(supernet, None, images, ScoreSettings()).check({"noise"})
    with pytest.raises(UserError, match="cannot be calibrated on 1 image"):
        Scorer(supernet, None, Images(data.calibration[:1], data.images, data.labels), ScoreSettings()).check({"clean"})
    other = CHAIN.supernet(CHAIN.shape("supernet", 3, width=8)).state_dict()
    with pytest.raises(UserError, match="of another supernet"):
        Scorer(supernet, other, data, ScoreSettings()).check({"angle"})
    with pytest.raises(UserError, match="chain-a needs 3 genes"):
        scorer.measure((0, 0), {"clean"})


def test_the_angle_is_0_of_equal_pi_of_opposite_and_a_quarter_turn_of_orthogonal_vectors() -> None:
    vector = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert angle_between(vector, vector) == angle_between(vector, 2 * vector) == 0
    assert angle_between(vector, -vector) == pytest.approx(math.pi)
    assert angle_between(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])) / math.pi == pytest.approx(0.5)
    assert angle_between(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1e-6])) == pytest.approx(1e-6, rel=1e-6)
    assert angle_between(torch.zeros(3), torch.ones(3)) == 0


def test_the_angle_of_an_untrained_architecture_is_0_and_of_one_without_open_paths_too() -> None:
    scorer = small_scorer("nasbench201")
    measured = scorer.measure((3, 3, 3, 0, 0, 0), {"angle"})["angle"]
    assert measured == {"radians": 0.0, "entries": 0}
    same = Scorer(scorer.supernet, scorer.supernet.state_dict(), None, ScoreSettings())
    assert same.measure((3, 2, 3, 2, 3, 2), {"angle"})["angle"]["radians"] == pytest.approx(0, abs=1e-7)


def test_the_angle_of_darts_is_that_of_its_vectors_and_the_released_code_s_differs() -> None:
    scorer = small_scorer("darts")
    genes = tuple(6 if gene == 4 else gene for gene in WITH_POOLS)
    found = scorer.measure(genes, {"angle"})["angle"]
    vectors = [
        scorer.supernet.vectors(genes, state).double()
        for state in (randomise(scorer.supernet.space.supernet(small_shape(scorer.supernet.space)), 5).state_dict(),)
    ]
    vectors.append(scorer.supernet.vectors(genes, scorer.supernet.state_dict()).double())
    cosine = float(torch.dot(*vectors) / vectors[0].norm() / vectors[1].norm())
    assert found["radians"] == pytest.approx(math.acos(cosine), rel=1e-9)
    assert found["entries"] == len(vectors[0])
    assert small_scorer("darts", official_angle=True).measure(genes, {"angle"})["angle"] != found


def test_the_released_settings_measure_one_draw_after_fourteen_running_averages() -> None:
    official = ScoreSettings.official(accuracy=True)
    assert (official.draws, official.noise, official.common_noise, official.bn) == (1, "cumulative", False, "ema14")
    assert len(calibration_batches(torch.zeros(official.calibration_images, 1), official.calibration_batch)) == 14
    assert len(calibration_batches(torch.zeros(official.accuracy_calibration_images, 1), 64)) == 235
    assert official.loss_mean == "batches"
