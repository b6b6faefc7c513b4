"""Searches from their first step to their numbers: what is frozen stays, what is kept is kept, seeds stay apart."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from vtk_cli.console import Console
from vtk_cli.engine.signals import StopRequest
from vtk_cli.prune import trials
from vtk_cli.prune.keeping import AlgorithmName, kept_of
from vtk_cli.prune.metrics.quality import quality
from vtk_cli.prune.options import TrialOptions
from vtk_cli.prune.preparation import Arm, Lab, open_lab, prepare, report_noise
from vtk_cli.prune.recipes import RECIPES
from vtk_cli.prune.samples import generated
from vtk_cli.prune.search import MaskedSearch
from vtk_cli.prune.trials import Trials, as_png, from_png, measured, run_search, settle, theta_sha256

QUIET, CPU = Console(quiet=True), torch.device("cpu")
SMALL = {"steps": 6, "every": 3, "batch": 8, "ngf": 8, "nz": 8, "samples": 24}
TENTH = Fraction(1, 10)


@pytest.fixture
def lab(prune_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("VTK_CACHE", str(prune_cache))
    return open_lab(options(), CPU, QUIET)


def options(**changes: object) -> TrialOptions:
    return TrialOptions(**{**RECIPES["digits"], **SMALL, **changes})


@pytest.mark.parametrize("algorithm", ["edge-popup", "gem-miner", "random"])
def test_no_weight_changes_not_even_with_weight_decay(lab: Lab, algorithm: AlgorithmName) -> None:
    decaying = replace(lab, options=replace(lab.options, weight_decay=0.5, lr=0.1))
    prepared = prepare(decaying, Arm(algorithm, TENTH, "global", 0))
    before = theta_sha256(prepared)
    run_search(prepared, decaying, QUIET)
    settled = settle(prepared, decaying, before)
    assert settled.theta == (before, before)
    assert settled.counts.kept == kept_of(settled.counts.n, TENTH)
    assert isinstance(prepared.search, MaskedSearch)
    assert all(layer.weight.grad is None for layer in prepared.search.twin.layers.values())


def test_the_generator_from_the_ticket_makes_the_very_images_of_the_search(lab: Lab) -> None:
    prepared = prepare(lab, Arm("edge-popup", TENTH, "global", 1))
    before = theta_sha256(prepared)
    run_search(prepared, lab, QUIET)
    settled = settle(prepared, lab, before)
    noise = report_noise(1, 8, 12)
    ours, rebuilt = (
        torch.cat(list(generated(network, noise, device=CPU))) for network in (prepared.search, settled.generator)
    )
    assert torch.equal(ours, rebuilt)


def test_the_seed_of_the_noise_changes_neither_weights_nor_first_scores(lab: Lab) -> None:
    arm = Arm("edge-popup", TENTH, "global", 2)
    one, other = prepare(lab, arm), prepare(replace(lab, options=options(noise_seed=9)), arm)
    assert theta_sha256(one) == theta_sha256(other)
    for first, second in zip(one.search.trained(), other.search.trained(), strict=True):
        assert torch.equal(first, second)
    (_, noise), (_, others) = next(one.batches.epoch(0, 0)), next(other.batches.epoch(0, 0))
    assert not torch.equal(noise, others)


def test_the_same_seed_gives_the_same_masks(lab: Lab) -> None:
    found = []
    for _ in range(2):
        prepared = prepare(lab, Arm("edge-popup", TENTH, "layer", 3))
        run_search(prepared, lab, QUIET)
        settled = settle(prepared, lab, theta_sha256(prepared))
        assert settled.ticket is not None
        found.append(settled.ticket.weights_sha256)
    assert found[0] == found[1]


def test_a_finished_trial_is_read_and_not_made_again(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = [Arm("edge-popup", TENTH, "global", 0), Arm("random", Fraction(1), "global", 0)]
    made = Trials.of(lab, tmp_path / "store", QUIET).results(arms, StopRequest())
    monkeypatch.setattr(trials, "run_search", None)
    again = Trials.of(lab, tmp_path / "store", QUIET).results(arms, StopRequest())
    assert made == again
    assert [one["name"] for one in made] == ["ticket, global, 0.1", "untrained dense"]
    assert made[1]["kept"] == made[1]["weights"]
    assert not list((tmp_path / "store" / "unfinished").glob("*"))


@pytest.mark.parametrize("change", [{"steps": 3}, {"lr": 0.5}, {"moment_avg": "none"}, {"samples": 30}, {"nz": 9}])
def test_what_shapes_a_result_is_in_its_key(lab: Lab, change: dict[str, object]) -> None:
    arm = Arm("edge-popup", TENTH, "global", 0)
    before = Trials.of(lab, None, QUIET).key(arm)
    assert Trials.of(replace(lab, options=options(**change)), None, QUIET).key(arm) != before
    assert Trials.of(replace(lab, options=options(seed=7, keep="0.5")), None, QUIET).key(arm) == before
    assert Trials.of(lab, None, QUIET).key(replace(arm, seed=1)) != before


def test_batch_normalisation_is_measured_anew_for_a_random_mask(lab: Lab) -> None:
    arm = Arm("random", TENTH, "global", 0)
    prepared = prepare(lab, arm)
    before = theta_sha256(prepared)
    raw = {name: value.clone() for name, value in prepared.search.network.named_buffers() if "running" in name}
    settled = settle(prepared, lab, before)
    fresh = dict(settled.generator.named_buffers())
    assert all(not torch.equal(value, fresh[name]) for name, value in raw.items())


def test_the_floor_of_the_train_images_is_below_any_search(lab: Lab) -> None:
    prepared = prepare(lab, Arm("random", TENTH, "global", 0))
    settled = settle(prepared, lab, theta_sha256(prepared))
    floor = quality(lab.summary(lab.report, QUIET), lab.summary(lab.floor_pictures(), QUIET), lab.embedder, QUIET)
    assert floor.frechet < measured(settled.generator, lab, 0, QUIET).frechet


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_travel_as_a_png(channels: int) -> None:
    images = torch.randint(0, 256, (5, channels, 16, 16), dtype=torch.uint8)
    assert torch.equal(from_png(as_png(images)), images)
