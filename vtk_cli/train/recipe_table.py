"""`vtk train recipes`: the published trainings, and what one of them sets."""

from __future__ import annotations

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode, UserError, nearest
from vtk_cli.options import flag_name
from vtk_cli.train.recipes import RECIPE_COLUMNS, RECIPES, recipe_rows, recipe_source

_SHOWN = ("recipe", "network", "pixels", "epochs", "batch")
_AT = [RECIPE_COLUMNS.index(column) for column in _SHOWN]
"""What fits on a terminal; the rest is in the values of each."""


def show_recipes(name: str | None, console: Console) -> ExitCode:
    """All recipes, a row each; or every value of the recipe `name`.

    Raises:
        UserError: there is no such recipe.
    """
    if name is None:
        console.table("Recipes", _SHOWN, [tuple(row[at] for at in _AT) for row in recipe_rows()])
        console.text("Every value of one: vtk train recipes NAME. Use it with --recipe NAME; flags win over it.")
        console.emit({"recipes": {key: _plain(key) for key in RECIPES}})
        return ExitCode.DONE
    if name not in RECIPES:
        raise UserError("no such recipe", name, nearest(name, RECIPES) or "see vtk train recipes")
    values = _plain(name)
    console.table(f"{name} ({recipe_source(name)})", ("option", "value"), [*values.items()])
    console.emit({"recipe": name, "after": recipe_source(name), "options": values})
    return ExitCode.DONE


def _plain(name: str) -> dict[str, object]:
    """The values of a recipe by flag name, as JSON holds them."""
    return {
        flag_name(field): list(value) if isinstance(value, tuple) else value for field, value in RECIPES[name].items()
    }
