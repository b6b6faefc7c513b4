from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from tests.engine.two_processes import run_world
from tests.models.spaces.small_spaces import WITHOUT_POOLS
from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.update import Clock
from vtk_cli.errors import JobError, UserError
from vtk_cli.models.names import file_metadata
from vtk_cli.models.spaces.catalog import SPACES, space_named
from vtk_cli.models.spaces.space import SUPERNET
from vtk_cli.models.weights import load_exactly, read_state_dict
from vtk_cli.search import retrain_preparation
from vtk_cli.search.images import open_search_images
from vtk_cli.search.retrain_options import RetrainOptions
from vtk_cli.search.retrain_preparation import RetrainObjective, idle_parameters, prepare_retraining
from vtk_cli.search.retrain_recipes import RETRAIN_RECIPES, retrain_recipe_of
from vtk_cli.search.retrain_schedule import LinearTail
from vtk_cli.search.retraining import retrain

CPU = torch.device("cpu")
ALONE = World(0, 1, 0, CPU)
QUIET = Console(quiet=True)
MINI = (3, 2, 3)


def options_for(recipe="digits", **given):
    return RetrainOptions(**({**RETRAIN_RECIPES[recipe], "device": "cpu"} | given))


def run_of(folder, options):
    """The folder of a re-training."""
    return RunFolder.open(
        "search retrain", "x", config=options.as_config(), out=folder, console=QUIET, seed=0, device="cpu"
    )


def trained(folder, space_name="digits-mini", genes=MINI, **given):
    space, options = space_named(space_name), options_for(**given)
    with run_of(folder, options) as run:
        return retrain(options, space, genes, space.shape(space.alone, 10), world=ALONE, console=QUIET, run=run)


def prepared(space_name="digits-mini", genes=MINI, form=None, sizes=None, **given):
    space = space_named(space_name)
    shape = space.shape(form or space.alone, 10, **(sizes or {}))
    return prepare_retraining(options_for(**given), space, genes, shape, world=ALONE, console=QUIET)


def optimiser(lr=0.5):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


# Schedules


def test_the_rate_of_genas_falls_in_a_line_and_slower_in_the_last_five_epochs():
    sgd = optimiser(0.5)
    schedule, rates = LinearTail(sgd, epochs=250, warmup=5), []
    for epoch in range(250):
        rates.append(sgd.param_groups[0]["lr"])
        schedule.step(epoch + 1)
    for epoch, rate in enumerate(rates):
        falling = 0.5 * (245 - epoch) / 245 if epoch < 245 else 0.5 * (250 - epoch) / (5 * 245)
        assert rate == pytest.approx(falling * min(1, (epoch + 1) / 5), rel=1e-12)
    assert rates[0] == pytest.approx(0.1)
    assert rates[249] == pytest.approx(0.5 / 1225)


@pytest.mark.parametrize("epochs", [1, 2, 5, 6])
def test_the_rate_of_genas_is_positive_in_short_trainings_too(epochs):
    schedule = LinearTail(optimiser(), epochs=epochs, warmup=0)
    rates = [schedule.factor(epoch) for epoch in range(epochs)]
    assert rates[0] == 1
    assert all(0 < later <= sooner for sooner, later in pairwise(rates))


def test_the_linear_schedule_falls_to_zero_by_the_last_update():
    made = prepared(schedule="linear", schedule_on="updates", lr=0.5, epochs=3)
    total = 3 * made.batches.steps_per_epoch
    rates = []
    for update in range(total):
        rates.append(made.optimizer.param_groups[0]["lr"])
        made.scheduler.step_update(update + 1)
    assert rates == pytest.approx([0.5 * (1 - update / total) for update in range(total)], rel=1e-9)
    assert made.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_the_cosine_of_the_benchmark_changes_by_epochs():
    made = prepared("nasbench201", (3,) * 6, None, {"width": 4, "cells": 1}, recipe="nasbench201", epochs=10)
    rates = []
    for epoch in range(10):
        rates.append(made.optimizer.param_groups[0]["lr"])
        made.scheduler.step_update((epoch + 1) * made.batches.steps_per_epoch)
        made.scheduler.step(epoch + 1)
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * epoch / 10)) for epoch in range(10)])
    assert made.optimizer.param_groups[0]["nesterov"]


# Recipes


def test_every_network_of_every_space_has_a_recipe_that_makes_options():
    for space in SPACES.values():
        for form in space.forms:
            if form != SUPERNET:
                recipe = retrain_recipe_of(space.name, form)
                assert options_for(recipe).epochs == RETRAIN_RECIPES[recipe]["epochs"]
    assert retrain_recipe_of("darts", "imagenet") == "darts-imagenet"
    assert retrain_recipe_of("chain-b", "stand-alone") == "digits"


def test_the_recipe_of_genas_is_that_of_its_code():
    options = options_for("darts-imagenet")
    assert (options.epochs, options.batch_size, options.lr, options.momentum) == (250, 1024, 0.5, 0.9)
    assert (options.weight_decay, options.decay_on, options.nesterov) == (3e-5, "all", False)
    assert (options.smoothing, options.auxiliary, options.clip_norm, options.drop_path) == (0.1, 0.4, 5, 0)
    assert (options.schedule, options.warmup_epochs, options.augmentation) == ("linear-tail", 5, "imagenet-square")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"schedule": "linear-tail", "schedule_on": "updates"}, "falls by epochs, to 0"),
        ({"warmup_epochs": 20}, "20 epochs of warm-up leave nothing of 20"),
        ({"nesterov": True, "momentum": 0.0}, "needs a momentum"),
    ],
)
def test_options_that_contradict_one_another_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        options_for(**given)


# Objective


def test_the_loss_is_smoothed_and_the_second_classifier_counts_with_its_weight():
    torch.manual_seed(0)
    first, second, targets = torch.randn(4, 10), torch.randn(4, 10), torch.tensor([1, 2, 3, 9])

    class Both(torch.nn.Module):
        def forward(self, _images):
            return first, second

    def slow(logits):
        wanted = torch.full((4, 10), 0.1 / 10)
        wanted[range(4), targets] += 0.9
        return -(wanted * logits.log_softmax(1)).sum(1).mean()

    objective = RetrainObjective(options_for(smoothing=0.1, auxiliary=0.4))
    loss = objective(Both(), (torch.arange(4), torch.zeros(4, 3, 8, 8), targets), Clock(0, 0, 0))
    torch.testing.assert_close(loss, slow(first) + 0.4 * slow(second))


def test_the_chance_to_drop_an_edge_rises_with_the_epochs():
    space = space_named("darts")
    shape = space.shape("cifar", 10, width=4, cells=3, resolution=16)
    network = space.network(WITHOUT_POOLS, shape, drop_path=0.2)
    objective = RetrainObjective(options_for("darts-cifar"))
    batch = (torch.arange(2), torch.randn(2, 3, 16, 16), torch.tensor([0, 1]))
    for epoch, chance in ((0, 0.0), (300, 0.1), (599, 0.2 * 599 / 600)):
        objective(network, batch, Clock(epoch, 0, 0))
        assert {cell.drop_path.drop_prob for cell in network.cells} == {chance}


def test_decay_of_weights_alone_spares_normalisation_and_biases():
    groups = prepared(decay_on="weights", weight_decay=4e-5).optimizer.param_groups
    dims = {group["weight_decay"]: {parameter.ndim for parameter in group["params"]} for group in groups}
    assert dims == {4e-5: {2, 4}, 0.0: {1}}
    assert {group["weight_decay"] for group in prepared(decay_on="all").optimizer.param_groups} == {3e-4}


def test_idle_parameters_are_those_of_edges_that_lead_nowhere():
    space = space_named("nasbench201")
    network = space.network((3, 0, 0, 2, 0, 0), space.shape("stand-alone", 10, width=4, cells=1, resolution=8))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    idle = {id(parameter) for parameter in idle_parameters(network, 3, 8)}
    named = {name for name, parameter in network.named_parameters() if id(parameter) in idle}
    assert named == {name for name, _ in network.named_parameters() if ".edges.1<-0." in name} != set()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    whole = space.network((3,) * 6, space.shape("stand-alone", 10, width=4, cells=1, resolution=8))
    assert idle_parameters(whole, 3, 8) == ()


# Training


def test_a_trained_architecture_knows_digits_and_its_file_says_what_it_is(tmp_path):
    found = trained(tmp_path / "run", epochs=6, ema_decay=0.9)
    assert found.evaluation.n == 360
    assert found.evaluation.top1 > 0.9
    assert found.averaged.top1 > 0.9
    said = file_metadata(found.weights)
    genes = ".".join(map(str, MINI))
    assert said["architecture"] == f"searched:digits-mini/{genes}/form=stand-alone/width=12/resolution=32"
    assert json.loads(said["model_args"]) == {}
    assert json.loads(said["class_names"]) == list("0123456789")
    assert json.loads(said["pixels"])["mean"] == pytest.approx([0.3] * 3)
    space = space_named("digits-mini")
    network = space.network(MINI, space.shape("stand-alone", 10))
    load_exactly(network, read_state_dict(found.weights), "")
    again = prepared(epochs=6).evaluated(network)
    assert again.top1 == found.evaluation.top1
    best = file_metadata(tmp_path / "run" / "best.safetensors")
    assert found.best == {"epoch": int(best["epoch"]), "top1": float(best["top1"])}
    assert (tmp_path / "run" / "ema.safetensors").is_file()
    summary = found.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["macs"], summary["params"]) == (found.cost.macs, sum(p.numel() for p in network.parameters()))


def test_an_interrupted_training_ends_with_the_weights_of_one_that_was_not(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole", epochs=2, ema_decay=0.9, checkpoint_seconds=0)
    objective = RetrainObjective.__call__

    def breaks(self, model, batch, clock):
        if clock.step == 40:
            raise JobError("the disk is full")
        return objective(self, model, batch, clock)

    with monkeypatch.context() as patch:
        patch.setattr(retrain_preparation.RetrainObjective, "__call__", breaks)
        with pytest.raises(JobError, match="the disk is full"):
            trained(tmp_path / "cut", epochs=2, ema_decay=0.9, checkpoint_seconds=0)
    assert any((tmp_path / "cut" / "checkpoints").iterdir())
    resumed = trained(tmp_path / "cut", epochs=2, ema_decay=0.9, checkpoint_seconds=0)
    assert resumed.result.steps == whole.result.steps == 58
    for name in ("model", "ema", "best"):
        one, other = (read_state_dict(tmp_path / run / f"{name}.safetensors") for run in ("whole", "cut"))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (tmp_path / "cut" / "metrics.jsonl").read_text()


def test_a_network_of_grey_images_is_measured_on_grey_images(tmp_path):
    found = trained(tmp_path / "run", "chain-a", epochs=2)
    images = open_search_images(options_for(), size=16, channels=1, console=QUIET)
    val = images.splits.val
    pixels = torch.stack([torch.from_numpy(val.read.images[index]) for index in range(len(val))])
    with torch.no_grad():
        losses = F.cross_entropy(found.network(images.pixels.normalised(pixels)), val.targets)
    assert found.evaluation.nll == pytest.approx(losses.item(), rel=1e-4)


def test_the_second_classifier_is_there_in_training_and_left_out_of_the_file(tmp_path):
    space, sizes = space_named("darts"), {"width": 4, "cells": 3}
    made = prepared("darts", WITHOUT_POOLS, "cifar", sizes, recipe="darts-cifar", drop_path=0.1)
    assert isinstance(made.network.train()(torch.zeros(2, 3, 32, 32)), tuple)
    made.save(tmp_path / "a.safetensors", made.network, {})
    alone = space.network(WITHOUT_POOLS, made.shape)
    load_exactly(alone, read_state_dict(tmp_path / "a.safetensors"), "")
    assert space.cost(WITHOUT_POOLS, made.shape).params == sum(p.numel() for p in alone.parameters())


def test_a_folder_without_validation_images_is_trained_on_with_the_recipe_of_genas(tmp_path):
    for label, name in enumerate("ab"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            values = np.random.default_rng([label, number]).integers(0, 256, (80, 96, 3), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / "data" / name / f"{number}.png")
    small = {"epochs": 2, "batch_size": 4, "auxiliary": 0.0, "workers": 0, "accumulate": 2}
    options = options_for("darts-imagenet", data=str(tmp_path / "data"), **small)
    space = space_named("darts")
    shape = space.shape("imagenet", 2, width=4, cells=3, resolution=64)
    with run_of(tmp_path / "run", options) as run:
        found = retrain(options, space, WITHOUT_POOLS, shape, world=ALONE, console=QUIET, run=run)
    assert (found.images, found.result.steps) == (8, 2)
    assert found.evaluation is found.best is found.averaged is None
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert "top1" not in found.summary()
    pixels = json.loads(file_metadata(found.weights)["pixels"])
    assert (pixels["mean"], pixels["std"], pixels["interpolation"], pixels["crop_pct"]) == (
        [0.0] * 3,
        [1.0] * 3,
        "bilinear",
        0.875,
    )


def test_a_size_of_the_users_is_what_is_trained_and_written(tmp_path):
    found = trained(tmp_path / "run", epochs=1, size=16)
    said = file_metadata(found.weights)
    assert said["architecture"].endswith("/resolution=16")
    assert json.loads(said["pixels"])["input_size"] == 16
    assert (
        found.cost.macs
        < space_named("digits-mini").cost(MINI, space_named("digits-mini").shape("stand-alone", 10)).macs
    )


def test_the_same_seed_starts_from_the_same_weights_and_another_from_others():
    first, same, other = (prepared(seed=seed).network.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["stem.1.weight"], other["stem.1.weight"])


@pytest.mark.slow
def test_two_processes_share_a_training_and_end_with_the_same_weights(tmp_path):
    assert run_world(Path(__file__).with_name("retrain_ranks.py"), tmp_path) == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["images"] == second["images"] == 360
    assert first["sums"] == second["sums"]
    assert first["summary"]["updates"] == 58
    assert first["summary"]["top1"] == second["summary"]["top1"] > 0.2
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]


# Refusals


def test_a_network_of_other_classes_than_the_images_is_refused():
    space = space_named("digits-mini")
    with pytest.raises(UserError, match="the network has 7 classes, digits has 10"):
        prepare_retraining(options_for(), space, MINI, space.shape("stand-alone", 7), world=ALONE, console=QUIET)


@pytest.mark.parametrize(
    ("given", "said"), [({"auxiliary": 0.4}, "second classifier"), ({"drop_path": 0.2}, "drop-path")]
)
def test_what_only_darts_has_is_refused_elsewhere(given, said):
    with pytest.raises(UserError, match=f"networks of digits-mini have no {said}"):
        prepared(**given)


def test_a_batch_that_leaves_a_process_one_image_is_refused():
    space = space_named("digits-mini")
    two = replace(ALONE, size=2)
    with pytest.raises(UserError, match="leaves a process of 2 a single image"):
        prepare_retraining(
            options_for(batch_size=3), space, MINI, space.shape("stand-alone", 10), world=two, console=QUIET
        )


def test_genes_of_another_space_are_refused():
    with pytest.raises(UserError, match=r"digits-mini needs 3 genes in 0\.\.3"):
        prepared(genes=(0, 1, 2, 3))
