"""The recipes against the papers' tables, value by value; the tables are written out here once more."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath

from vtk_cli.engine.optimisation import SCHEDULES, LearningRates
from vtk_cli.errors import UserError
from vtk_cli.models.finetuning import _size_argument, set_constant_drop_path
from vtk_cli.models.names import parse_network
from vtk_cli.models.zoo import build
from vtk_cli.options import option_fields
from vtk_cli.train.options import TrainOptions
from vtk_cli.train.recipes import RECIPES, recipe_source

SUB = {"sub": "mask", "sub_ratio": "0.5", "sub_target": "relaxed"}

DEIT3_COLUMNS = ("model", "epochs", "img_size", "lr", "weight_decay", "drop_path")
DEIT3 = """
deit3-s-400   deit3_small_patch16_224   400  224  4e-3  .03  0
deit3-s-800   deit3_small_patch16_224   800  224  4e-3  .05  .05
deit3-b-400   deit3_base_patch16_224    400  192  3e-3  .03  .1
deit3-b-800   deit3_base_patch16_224    800  192  3e-3  .05  .2
deit3-l-400   deit3_large_patch16_224   400  192  3e-3  .03  .4
deit3-l-800   deit3_large_patch16_224   800  192  3e-3  .05  .45
deit3-h-400   deit3_huge_patch14_224    400  160  3e-3  .03  .5
deit3-h-800   deit3_huge_patch14_224    800  160  3e-3  .05  .6
deit3-b-400-ft  deit3_base_patch16_224   20  224  1e-5  .1  .2
deit3-b-800-ft  deit3_base_patch16_224   20  224  1e-5  .1  .2
deit3-l-400-ft  deit3_large_patch16_224  20  224  1e-5  .1  .45
deit3-l-800-ft  deit3_large_patch16_224  20  224  1e-5  .1  .45
deit3-h-400-ft  deit3_huge_patch14_224   20  224  1e-5  .1  .55
deit3-h-800-ft  deit3_huge_patch14_224   20  224  1e-5  .1  .55
"""
DEIT3_SHARED = {
    "batch_size": 2048,
    "lr_base_size": None,
    "optimizer": "lamb",
    "schedule": "cosine",
    "warmup_epochs": 5,
    "warmup_lr": 1e-6,
    "min_lr": 1e-5,
    "mixup": 0.8,
    "cutmix": 1.0,
    "mix_prob": 1.0,
    "mix_switch": 0.5,
    "mix_mode": "batch",
    "smoothing": 0.0,
    "loss": "bce",
    "binarize": True,
    "crop": "random-resized",
    "crop_scale_min": 0.08,
    "crop_scale_max": 1.0,
    "interpolation": "bicubic",
    "auto_augment": "3a",
    "color_jitter": 0.3,
    "repeats": 3,
    "erasing": 0.0,
    "drop": 0.0,
    "drop_path_schedule": "constant",
    "ema_decay": 0.99996,
    "crop_pct": 1.0,
    "layer_scale": 1e-4,
    "clip_norm": None,
    **SUB,
}
DEIT3_FINETUNE = {
    "optimizer": "adamw",
    "batch_size": 512,
    "lr_base_size": None,
    "loss": "ce",
    "binarize": False,
    "smoothing": 0.1,
    "mixup": 0.8,
    "cutmix": 1.0,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "repeats": 1,
    "weights": "pretrained",
    **SUB,
}

RSB_COLUMNS = (
    "epochs",
    "img_size",
    "lr",
    "weight_decay",
    "smoothing",
    "drop_path",
    "repeats",
    "auto_augment",
    "mixup",
)
RSB = """
rsb-a1  600  224  5e-3  .01  .1  .05  3  rand-m7-mstd0.5  .2
rsb-a2  300  224  5e-3  .02  0   .05  3  rand-m7-mstd0.5  .1
rsb-a3  100  160  8e-3  .02  0   0    1  rand-m6-mstd0.5  .1
"""
RSB_SHARED = {
    "model": "resnet50",
    "eval_size": 224,
    "batch_size": 2048,
    "lr_base_size": None,
    "optimizer": "lamb",
    "schedule": "cosine",
    "warmup_epochs": 5,
    "warmup_lr": 1e-4,
    "cooldown_epochs": 0,
    "min_lr": 1e-6,
    "loss": "bce",
    "binarize": False,
    "cutmix": 1.0,
    "color_jitter": 0.0,
    "erasing": 0.0,
    "crop_pct": 0.95,
    "hflip": 0.5,
    "clip_norm": None,
    "ema_decay": None,
    **SUB,
}

MAE_COLUMNS = ("model", "epochs", "lr", "layer_decay", "drop_path")
MAE = """
mae-b-ft  vit_base_patch16_224.mae   100  5e-4  .65  .1
mae-l-ft  vit_large_patch16_224.mae   50  1e-3  .75  .2
mae-h-ft  vit_huge_patch14_224.mae    50  1e-3  .75  .3
"""
MAE_SHARED = {
    "batch_size": 1024,
    "lr_base_size": 256,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "schedule": "cosine",
    "schedule_on": "updates",
    "warmup_epochs": 5,
    "loss": "ce",
    "smoothing": 0.1,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "mixup": 0.8,
    "cutmix": 1.0,
    "erasing": 0.25,
    "clip_norm": None,
    "head_init_std": 2e-5,
    "model_arg": ("global_pool=avg",),
    "weights": "pretrained",
    **SUB,
}

SWIN_COLUMNS = ("model", "drop_path")
SWIN = """
swin-t  swin_tiny_patch4_window7_224   .2
swin-s  swin_small_patch4_window7_224  .3
swin-b  swin_base_patch4_window7_224   .5
"""
SWIN_SHARED = {
    "epochs": 300,
    "batch_size": 1024,
    "lr": 5e-4,
    "lr_base_size": 512,
    "min_lr": 5e-6,
    "warmup_lr": 5e-7,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "schedule": "cosine",
    "schedule_on": "updates",
    "warmup_epochs": 20,
    "drop_path_schedule": "linear",
    "loss": "ce",
    "smoothing": 0.1,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "mixup": 0.8,
    "cutmix": 1.0,
    "erasing": 0.25,
    "color_jitter": 0.4,
    "clip_norm": 5.0,
    **SUB,
}


def options_of(name: str) -> TrainOptions:
    """The options of `vtk train images --recipe NAME`."""
    values = {"data": "images", **RECIPES[name]}
    if name.endswith("-ab"):
        values["byproducts"] = "clicks"
    return TrainOptions(**values)


def rows(text: str, columns: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """A table -> recipe -> column -> value; cells that are numbers as numbers."""
    table = {}
    for line in text.strip().splitlines():
        name, *cells = line.split()
        table[name] = dict(zip(columns, map(_value, cells), strict=True))
    return table


def _value(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


TABLE: dict[str, dict[str, Any]] = {
    **{
        name: {**(DEIT3_FINETUNE if name.endswith("-ft") else DEIT3_SHARED), **row}
        for name, row in rows(DEIT3, DEIT3_COLUMNS).items()
    },
    **{name: RSB_SHARED | row for name, row in rows(RSB, RSB_COLUMNS).items()},
    **{name: MAE_SHARED | row for name, row in rows(MAE, MAE_COLUMNS).items()},
    **{name: SWIN_SHARED | row for name, row in rows(SWIN, SWIN_COLUMNS).items()},
}


@pytest.mark.parametrize("name", TABLE)
def test_a_published_recipe_is_its_table_value_by_value(name: str) -> None:
    options = options_of(name)
    found = {field: getattr(options, field) for field in TABLE[name]}
    assert found == TABLE[name]


def test_every_recipe_but_those_of_our_own_is_held_by_a_table() -> None:
    assert RECIPES.keys() - TABLE.keys() == {"small", "digits", "coco-ab", "imagenet-ab"}


@pytest.mark.parametrize(
    ("name", "lr", "warmup_lr", "min_lr"),
    [
        ("mae-b-ft", 2e-3, 0.0, 1e-6),
        ("mae-l-ft", 4e-3, 0.0, 1e-6),
        ("mae-h-ft", 4e-3, 0.0, 1e-6),
        ("swin-b", 1e-3, 1e-6, 1e-5),
        ("deit3-s-400", 4e-3, 1e-6, 1e-5),
        ("rsb-a2", 5e-3, 1e-4, 1e-6),
    ],
)
def test_at_the_recipes_batch_the_rates_are_the_published_ones(
    name: str, lr: float, warmup_lr: float, min_lr: float
) -> None:
    options = options_of(name)
    rates = LearningRates(options.lr, options.warmup_lr, options.min_lr)
    rates = rates.scaled(options.batch_size * options.accumulate, options.lr_base_size)
    assert (rates.lr, rates.warmup_lr, rates.min_lr) == pytest.approx((lr, warmup_lr, min_lr))


@pytest.mark.parametrize("name", ["small", "digits"])
def test_the_recipes_for_few_images_are_those_of_the_small_proof(name: str) -> None:
    options = options_of(name)
    expected = {
        "optimizer": "adamw",
        "lr": 2e-3,
        "weight_decay": 0.05,
        "schedule": "cosine",
        "min_lr": 0.0,
        "warmup": "10%",
        "loss": "ce",
        "smoothing": 0.0,
        **SUB,
    }
    assert {field: getattr(options, field) for field in expected} == expected


def test_digits_are_shifted_and_never_mirrored() -> None:
    options = options_of("digits")
    assert (options.crop, options.shift, options.hflip, options.vflip) == ("shift", 1, 0.0, 0.0)
    assert options.auto_augment == "none"


def test_byproduct_recipes_neither_mix_images_nor_bend_them() -> None:
    for name, loss, jitter in (("imagenet-ab", "ce", 0.0), ("coco-ab", "bce", 0.4)):
        options = options_of(name)
        assert (options.mixup, options.cutmix, options.erasing, options.auto_augment) == (0.0, 0.0, 0.0, "none")
        assert (options.loss, options.color_jitter, options.hflip, options.crop_scale_min) == (loss, jitter, 0.5, 0.08)
        assert (options.ab_weight, options.ab_beta, options.ab_drop_outside) == (10.0, 1.0, name == "coco-ab")


def test_the_recipe_of_coco_ab_without_byproducts_is_refused() -> None:
    with pytest.raises(UserError, match="there are no byproducts; give --byproducts"):
        TrainOptions(**{"data": "images", **RECIPES["coco-ab"]})


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_only_options_there_are_and_names_networks_and_schedules_there_are(name: str) -> None:
    assert RECIPES[name].keys() <= option_fields(TrainOptions).keys()
    options = options_of(name)
    assert options.schedule in SCHEDULES
    assert options.model is None or timm.is_model(options.model)
    assert 0 < options.warmup_epochs < options.epochs / 2
    assert math.isfinite(options.lr)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if "model" in recipe])
def test_a_recipes_network_takes_its_arguments_and_images_of_its_size(name: str) -> None:
    """On the meta device: the networks of hundreds of millions of weights cost nothing there."""
    options = options_of(name)
    spec, side = parse_network(options.network), options.input_size
    assert side is not None
    arguments = options.constructor_arguments | _size_argument(spec, side, options.constructor_arguments, offline=True)
    with torch.device("meta"):
        network, _ = build(spec, None, 10, arguments, offline=True)
        assert network(torch.zeros(2, 3, side, side)).shape == (2, 10)
    if options.drop_path is not None and options.drop_path_schedule == "constant":
        set_constant_drop_path(network, options.drop_path)
    rates = [part.drop_prob for part in network.modules() if isinstance(part, DropPath)]
    assert (max(rates) if rates else 0.0) == pytest.approx(options.drop_path or 0.0)
    assert (name.startswith("deit3")) == (len(set(rates)) == 1)


def test_recipes_cannot_be_changed_by_who_reads_them() -> None:
    with pytest.raises(TypeError):
        RECIPES["new"] = {}  # type: ignore[index]
    with pytest.raises(TypeError):
        RECIPES["small"]["lr"] = 1.0  # type: ignore[index]


def test_every_recipe_says_what_it_is_after() -> None:
    assert all(map(recipe_source, RECIPES))
    assert recipe_source("mae-b-ft") == "MAE fine-tuning, arXiv 2111.06377"


def test_reading_the_recipes_imports_nothing_heavy() -> None:
    code = "import sys, vtk_cli.train.recipes; sys.exit(any(n in sys.modules for n in ('torch', 'timm', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
