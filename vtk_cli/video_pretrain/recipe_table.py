"""`vtk video-pretrain recipes`: the published trainings, and what one of them sets."""

from __future__ import annotations

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode, UserError, nearest
from vtk_cli.options import flag_name
from vtk_cli.video_pretrain.recipes import RECIPE_COLUMNS, RECIPES, recipe_rows, recipe_source


def show_recipes(name: str | None, console: Console) -> ExitCode:
    """All recipes, a row each; or every value of the recipe `name`.

    Raises:
        UserError: there is no such recipe.
    """
    if name is None:
        console.table("Recipes", RECIPE_COLUMNS, recipe_rows())
        console.emit({"recipes": {known: dict(values) for known, values in RECIPES.items()}})
        return ExitCode.DONE
    if name not in RECIPES:
        fix = nearest(name, RECIPES) or f"there are {', '.join(RECIPES)}"
        raise UserError(f"no recipe {name!r}", "NAME", fix)
    rows = [(f"--{flag_name(field)}", value) for field, value in RECIPES[name].items()]
    console.table(f"{name} ({recipe_source(name)})", ("option", "value"), rows)
    console.emit({"recipe": name, "source": recipe_source(name), "options": dict(RECIPES[name])})
    return ExitCode.DONE
