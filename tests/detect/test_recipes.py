"""The recipes against what is published, value by value, and which of them is in force."""

from __future__ import annotations

import dataclasses

import pytest

from vtk_cli.detect.options import TrainOptions
from vtk_cli.detect.recipes import RECIPES
from vtk_cli.errors import UserError

PAPER = {
    "lr": 1e-4,
    "min_lr": 1e-7,
    "weight_decay": 1e-4,
    "decay_of": "paper",
    "schedule_on": "epochs",
    "warmup_steps": 0,
    "epochs": 50,
    "batch_size": 16,
    "clip_norm": 0.1,
    "seed": 42,
    "augment": "paper",
    "resize": "short",
    "size": 800,
    "iou_target_grad": True,
    "precision": "fp32",
    "accumulate": 1,
    "mosaic": 0.0,
    "mixup": 0.0,
}


def test_paper_is_what_is_published():
    assert dict(RECIPES["paper"]) == PAPER
    assert dict(RECIPES["paper150"]) == {**PAPER, "epochs": 150}


def test_the_defaults_of_the_options_are_those_of_the_paper_but_for_the_seed():
    options = TrainOptions()
    assert {name: getattr(options, name) for name in PAPER} == {**PAPER, "seed": 0}
    assert options.ema_decay is None


def test_finetune_goes_on_from_a_detector_with_a_new_head():
    recipe = RECIPES["finetune"]
    assert recipe["reset_head"]
    assert recipe["lr"] == 1e-4
    assert 12 <= recipe["epochs"] <= 36
    assert not recipe["iou_target_grad"]


def test_modern_has_averaged_weights_bf16_one_square_size_and_stronger_augmentation():
    recipe = RECIPES["modern"]
    assert (recipe["ema_decay"], recipe["precision"]) == (0.9999, "bf16")
    assert (recipe["resize"], recipe["size"], recipe["augment"]) == ("stretch", 640, "modern")
    assert recipe["mosaic"] > 0
    assert recipe["mixup"] > 0
    assert 0.05 <= recipe["plain_epochs"] <= 0.1


def test_digits_is_the_small_setting():
    recipe = RECIPES["digits"]
    small = {"lr": 1e-3, "min_lr": 1e-5, "warmup_steps": 50, "batch_size": 16, "clip_norm": 1.0, "weight_decay": 1e-4}
    assert {name: recipe[name] for name in small} == small
    assert (recipe["augment"], recipe["size"], recipe["decay_of"]) == ("none", 128, "matrices")
    assert not recipe["iou_target_grad"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_options_that_there_are_and_that_go_together(name):
    fields = {field.name for field in dataclasses.fields(TrainOptions)}
    assert RECIPES[name].keys() <= fields
    values = {**RECIPES[name], **({"weights": "a.pth"} if RECIPES[name].get("reset_head") else {})}
    assert TrainOptions(**values).lr == RECIPES[name]["lr"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "digits"),
        ({"data": "digits-coco"}, "digits"),
        ({"data": "coco/"}, "paper"),
        ({"data": "coco/", "weights": "imagenet"}, "paper"),
        ({"data": "coco/", "weights": "none"}, "paper"),
        ({"data": "coco/", "weights": "vidt_nano_50.pth"}, "finetune"),
    ],
)
def test_which_recipe_is_in_force_where_none_is_named(given, name):
    assert TrainOptions.default_recipe(given) == name


def test_a_square_and_the_papers_sizes_exclude_one_another():
    with pytest.raises(UserError, match="sizes vary"):
        TrainOptions(resize="stretch")
    with pytest.raises(UserError, match="one square size"):
        TrainOptions(augment="modern")
