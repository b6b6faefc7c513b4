"""`vtk prune recipes`: the searches by name, and what one of them sets."""

from __future__ import annotations

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode, UserError, nearest
from vtk_cli.options import flag_name
from vtk_cli.prune.recipes import RECIPES, recipe_source

_SHOWN = {"gen": "generator", "image_size": "pixels", "keep": "kept", "scope": "scope", "steps": "steps", "lr": "lr"}


def show_recipes(name: str | None, console: Console) -> ExitCode:
    """All recipes, a row each; or every value of the recipe `name`.

    Raises:
        UserError: there is no such recipe.
    """
    if name is None:
        rows = [(key, *(str(recipe[field]) for field in _SHOWN)) for key, recipe in RECIPES.items()]
        console.table("Recipes", ("recipe", *_SHOWN.values()), rows)
        console.text("Every value of one: vtk prune recipes NAME. Use it with --recipe NAME; flags win over it.")
        console.emit({"recipes": {key: _by_flag(key) for key in RECIPES}})
        return ExitCode.DONE
    if name not in RECIPES:
        raise UserError("no such recipe", name, nearest(name, RECIPES) or "see vtk prune recipes")
    values = _by_flag(name)
    console.table(f"{name} ({recipe_source(name)})", ("option", "value"), [*values.items()])
    console.emit({"recipe": name, "after": recipe_source(name), "options": values})
    return ExitCode.DONE


def _by_flag(name: str) -> dict[str, object]:
    return {flag_name(field): value for field, value in RECIPES[name].items()}
