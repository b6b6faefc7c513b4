"""`vtk COMMAND recipes` is the same verb for every subcommand that has recipes."""

from __future__ import annotations

import importlib
import json

import pytest
import typer

from tests.command_line import Said
from vtk_cli.app import SUBCOMMANDS, main
from vtk_cli.options import option_fields

METHODS = ("train", "detect", "segment", "video-pretrain", "prune", "search", "adapt", "similarity")
FIRST = {
    "train": "small",
    "detect": "digits",
    "segment": "digits",
    "video-pretrain": "digits-ssl",
    "prune": "digits",
    "search": "digits-mini",
    "adapt": "digits",
    "similarity": "paper",
}


@pytest.fixture
def vtk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str) -> Said:
        code = main(arguments)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


def options_of(command: str):
    """The options of `vtk search run`, as the program itself holds them."""
    _, name, *verb = command.split()
    found = typer.main.get_command(importlib.import_module(SUBCOMMANDS[name][0]).app)
    return found.commands[verb[0] if verb else name].options


@pytest.mark.parametrize("name", METHODS)
def test_all_recipes_of_a_subcommand_are_listed_on_80_columns(vtk, name):
    said = vtk(name, "recipes")
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 80
    for each in vtk(name, "recipes", "--json").object["recipes"]:
        assert each["name"] in said.out
        assert each["about"]


@pytest.mark.parametrize("name", METHODS)
def test_a_listed_recipe_is_one_that_its_flag_takes_with_the_values_it_sets(vtk, name):
    for each in vtk(name, "recipes", "--json").object["recipes"]:
        options = options_of(each["command"])
        field = each["flag"].removeprefix("--")
        assert field in option_fields(options)
        if options.recipe_option == field:
            values = options.recipes[each["name"]].items()
            plain = {key.replace("_", "-"): list(v) if isinstance(v, tuple) else v for key, v in values}
            assert each["options"] == plain


@pytest.mark.parametrize("name", METHODS)
def test_no_recipe_is_left_out(vtk, name):
    listed = {(each["command"], each["name"]) for each in vtk(name, "recipes", "--json").object["recipes"]}
    group = typer.main.get_command(importlib.import_module(SUBCOMMANDS[name][0]).app)
    with_recipes = [command.options for command in group.commands.values() if getattr(command, "options", None)]
    named = {known for options in with_recipes for known in options.recipes}
    assert named <= {known for _, known in listed}


@pytest.mark.parametrize("name", METHODS)
def test_one_recipe_is_shown_with_every_value(vtk, name):
    recipe = FIRST[name]
    said = vtk(name, "recipes", recipe)
    (found,) = vtk(name, "recipes", recipe, "--json").object["recipes"]
    assert found["options"]
    assert max(map(len, said.out.splitlines())) <= 80
    for flag in found["options"]:
        assert f"--{flag}" in said.out


def test_a_name_of_two_commands_is_shown_for_both(vtk):
    found = vtk("search", "recipes", "shufflenetv2", "--json").object["recipes"]
    assert [each["command"] for each in found] == ["vtk search run", "vtk search retrain"]
    assert found[0]["options"]["epochs"] == 120
    assert found[1]["options"]["epochs"] == 240


@pytest.mark.parametrize("name", METHODS)
def test_a_wrong_name_gets_the_nearest(vtk, name):
    recipe = FIRST[name]
    assert f"did you mean {recipe}" in vtk(name, "recipes", recipe + "x").complaint
    assert "there are " in vtk(name, "recipes", "@@@").complaint


def test_a_way_to_train_that_sets_nothing_else_says_so(vtk):
    assert "It sets no other option" in vtk("adapt", "recipes", "joint").out


def test_the_output_is_one_json_object(vtk):
    assert set(json.loads(vtk("detect", "recipes", "digits", "--json").out)) == {"recipes"}
