"""`vtk COMMAND recipes`: the named sets of options of a command, what each is, and every value of one.

add_recipes(app, "train", RecipeTable("vtk train", "--recipe", RECIPES, recipe_source))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import typer

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode, UserError, nearest
from vtk_cli.options import SpeechOptions, add_command, flag_name, option


@dataclass(frozen=True)
class RecipeTable:
    """The recipes that one option of a command names.

    Args:
        command: as it is typed, `vtk train`.
        flag: the option, `--recipe`.
        recipes: name -> {field: value}.
        about: what a recipe is: its paper, or the data it is for.
        shown: field -> heading, of values worth a column.
    """

    command: str
    flag: str
    recipes: Mapping[str, Mapping[str, Any]]
    about: Callable[[str], str]
    shown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RecipesOptions(SpeechOptions):
    """Which recipe."""

    name: str | None = option(None, "Show every value of this one.", positional=True, metavar="NAME")


def add_recipes(app: typer.Typer, command: str, *tables: RecipeTable) -> None:
    """Add to `app` the verb that shows the recipes of `vtk COMMAND`.

    Args:
        app: the application of the subcommand.
        command: its name, `train`.
        tables: one for each option that names recipes; a name may be in several.
    """
    names = list(dict.fromkeys(name for table in tables for name in table.recipes))

    def show(options: RecipesOptions, console: Console) -> ExitCode:
        if options.name is None:
            _show_all(tables, console)
            console.text(f"Every value of one: vtk {command} recipes NAME. Flags win over a recipe.")
            console.emit({"recipes": [_as_json(table, name) for table in tables for name in table.recipes]})
            return ExitCode.DONE
        holders = [table for table in tables if options.name in table.recipes]
        if not holders:
            fix = nearest(options.name, names) or f"there are {', '.join(names)}"
            raise UserError(f"vtk {command} has no recipe {options.name!r}", fix=fix)
        for table in holders:
            _show_values(table, options.name, console)
        console.emit({"recipes": [_as_json(table, options.name) for table in holders]})
        return ExitCode.DONE

    flags = " and ".join(dict.fromkeys(table.flag for table in tables))
    add_command(
        app,
        _options_completing(names),
        show,
        name="recipes",
        help=f"List what {flags} can name: published settings and those for the embedded data; or all values of one.",
        epilog=f"Examples:  vtk {command} recipes   ·   vtk {command} recipes {names[0]}",
    )


def _options_completing(names: Sequence[str]) -> type[RecipesOptions]:
    @dataclass(frozen=True, kw_only=True)
    class CompletedOptions(RecipesOptions):
        name: str | None = option(
            None,
            "Show every value of this one.",
            positional=True,
            metavar="NAME",
            complete=lambda incomplete: [name for name in names if name.startswith(incomplete)],
        )

    return CompletedOptions


def _show_all(tables: Iterable[RecipeTable], console: Console) -> None:
    for table in tables:
        rows = [
            (name, *(_word(recipe.get(each)) for each in table.shown), table.about(name))
            for name, recipe in table.recipes.items()
        ]
        console.table(f"{table.command} {table.flag} NAME", ("name", *table.shown.values(), "what it is"), rows)


def _show_values(table: RecipeTable, name: str, console: Console) -> None:
    values = _by_flag(table.recipes[name])
    console.text(f"{table.command} {table.flag} {name}: {table.about(name)}", style="bold")
    if values:
        console.table("", ("option", "value"), [(f"--{flag}", _word(value)) for flag, value in values.items()])
    else:
        console.text("It sets no other option.")


def _as_json(table: RecipeTable, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "command": table.command,
        "flag": table.flag,
        "about": table.about(name),
        "options": _by_flag(table.recipes[name]),
    }


def _by_flag(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe by flag, as JSON holds them."""
    return {flag_name(field): list(value) if isinstance(value, tuple) else value for field, value in recipe.items()}


def _word(value: object) -> str:
    """A value as it is typed behind its flag."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
