from __future__ import annotations

import pytest

from vtk_cli.options import option_fields
from vtk_cli.prune.generators.creation import create_generator
from vtk_cli.prune.options import TrialOptions
from vtk_cli.prune.recipes import RECIPES, recipe_source
from vtk_cli.prune.verb_options import RunVerbOptions


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_options_that_go_together(name: str) -> None:
    assert RECIPES[name].keys() <= option_fields(TrialOptions).keys()
    recipe = RECIPES[name]
    stored = {"store_weights": recipe["weight_init"] != "signed-constant"}
    options = RunVerbOptions(**recipe, **stored)
    assert options.neighbours == 5
    assert recipe_source(name)
    assert create_generator(options.gen, options.image_size, options.channels, options.nz, options.ngf).nz == options.nz


def test_the_published_settings_are_those_of_the_published_code() -> None:
    recipe = RECIPES["sngan-celeba-published"]
    expected = {
        "gen": "sngan",
        "image_size": 64,
        "nz": 128,
        "keep": "0.1",
        "scope": "layer",
        "lr": 5e-5,
        "schedule": "cosine-10",
        "moment_avg": "ama",
        "moment_rate": 1e-5,
        "batch": 64,
        "steps": 14_000_000,
        "every": 500,
        "extractor_mode": "train",
        "weight_init": "normal",
        "score_init": "uniform",
    }
    assert {name: recipe[name] for name in expected} == expected


def test_the_recipe_of_digits_is_the_default_on_digits_alone() -> None:
    assert TrialOptions.default_recipe({}) == TrialOptions.default_recipe({"data": "digits"}) == "digits"
    assert TrialOptions.default_recipe({"data": "photos"}) == "sngan-celeba"


def test_averages_and_norms_are_decided_by_length_and_extractor() -> None:
    short = TrialOptions(extractor="resnet50", steps=500)
    long = TrialOptions(extractor="vgg19-bn=file.pth", steps=60_000)
    assert (short.averaging, short.rate, short.normalisation) == ("ema", 0.97, "layer")
    assert (long.averaging, long.rate, long.normalisation) == ("ama", 1e-5, "none")


def test_scores_and_weights_have_rates_of_their_own() -> None:
    options = TrialOptions(lr=3e-2, weights_lr=1e-2)
    assert [options.lr_of(one) for one in ("edge-popup", "gem-miner", "dense", "sparse")] == [3e-2, 3e-2, 1e-2, 1e-2]
    assert TrialOptions(lr=3e-2).lr_of("dense") == 3e-2
