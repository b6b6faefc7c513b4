"""The options of `vtk train`: defaults, what follows from them, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vtk_cli.engine.run_config import RunConfig
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import UserError
from vtk_cli.options import RUN_CONFIG, option_fields, read_config
from vtk_cli.train.options import DIGITS_MODEL_ARGS, TrainOptions
from vtk_cli.train.recipes import RECIPES


def options(**values: Any) -> TrainOptions:
    return TrainOptions(**values)


def test_digits_are_learnt_by_a_small_vit_and_own_images_by_the_networks_of_their_size() -> None:
    assert options().network == "vit_tiny_patch16_224"
    assert options().constructor_arguments["embed_dim"] == 64
    assert options().input_size == 32
    own = options(data="photos")
    assert (own.network, own.constructor_arguments, own.input_size) == ("vit_small_patch16_224", {}, None)


def test_an_argument_changes_the_small_vit_and_leaves_the_rest_of_it() -> None:
    arguments = options(model_arg=("depth=5",)).constructor_arguments
    assert len(arguments) == len(DIGITS_MODEL_ARGS)
    assert (arguments["depth"], arguments["embed_dim"], arguments["patch_size"]) == (5, 64, 8)
    assert options(model="resnet18", model_arg=("depth=5",)).constructor_arguments == {"depth": 5}


def test_arguments_are_numbers_switches_nothing_or_words() -> None:
    given = ("a=3", "b=0.5", "c=true", "d=None", "e=avg", "f=1e-3")
    assert options(model="x", model_arg=given).constructor_arguments == {
        "a": 3,
        "b": 0.5,
        "c": True,
        "d": None,
        "e": "avg",
        "f": 0.001,
    }


def test_an_argument_given_by_name_wins_over_the_flag_for_it() -> None:
    arguments = options(model="x", model_arg=("drop_path_rate=0.3",), drop_path=0.1, drop=0.2).constructor_arguments
    assert arguments == {"drop_path_rate": 0.3, "drop_rate": 0.2}


@pytest.mark.parametrize(
    ("warmup", "epochs", "expected"), [("0", 40, 0), ("5", 40, 5), ("2.5", 40, 2.5), ("10%", 40, 4), ("10 %", 5, 0.5)]
)
def test_a_warm_up_is_a_number_of_epochs_or_a_share_of_them(warmup: str, epochs: int, expected: float) -> None:
    assert options(warmup=warmup, epochs=epochs).warmup_epochs == pytest.approx(expected)


@pytest.mark.parametrize("warmup", ["", "x", "-1", "100%", "10%%", "inf", "nan"])
def test_other_warm_ups_are_refused(warmup: str) -> None:
    with pytest.raises(UserError, match=r"--warmup: .* is no length; give epochs, as in 5, or a share, as in 10%"):
        options(warmup=warmup)


def test_the_recipe_is_that_of_digits_on_digits_and_the_small_one_elsewhere() -> None:
    assert TrainOptions.default_recipe({}) == TrainOptions.default_recipe({"data": "digits"}) == "digits"
    assert TrainOptions.default_recipe({"data": "digits-m"}) == "small"


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_recipe_sets_is_read_back_from_the_file_that_records_it(name: str, tmp_path: Path) -> None:
    """Nothing that is written down may be refused or changed when a run goes on."""
    values: dict[str, Any] = {"data": "photos", "recipe": name, **RECIPES[name]}
    if name.endswith("-ab"):
        values["byproducts"] = Path("clicks.csv")
    written = options(**values)
    file = tmp_path / RUN_CONFIG
    file.write_text(RunConfig.of("train", written.as_config()).text())
    found = read_config(file, TrainOptions, "train")
    for field, value in found.items():
        before = getattr(written, field)
        assert value == (
            str(before) if isinstance(before, Path) else list(before) if isinstance(before, tuple) else before
        )
    empty = [field for field, value in found.items() if value in ("", [""])]
    assert not empty, "an empty word is refused where it is read"
    assert {*found} == {
        field
        for field, info in option_fields(TrainOptions).items()
        if info.recorded and getattr(written, field) is not None
    }


def test_eval_sets_have_names_of_their_own() -> None:
    assert options(eval_set=("a=x", "b=y=z")).eval_sets == {"a": Path("x"), "b": Path("y=z")}
    for entries in (("a",), ("=x",), ("a=",), ("a=x", "a=y")):
        with pytest.raises(UserError, match="--eval-set"):
            options(eval_set=entries)


def test_the_factor_of_the_point_loss_is_automatic_or_a_number() -> None:
    assert options().point_factor is None
    assert options(ab_scale="0.25").point_factor == 0.25
    for wrong in ("-1", "nan", "inf", "x"):
        with pytest.raises(UserError, match="--ab-scale"):
            options(ab_scale=wrong)


def test_at_most_eight_workers_start_unless_more_are_asked_for() -> None:
    assert 1 <= worker_count(None) <= 8
    assert (worker_count(0), worker_count(20)) == (0, 20)
