"""`vtk video-pretrain recipes` and `models`: the published trainings with what they set, and the networks."""

from __future__ import annotations

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode, UserError, nearest
from vtk_cli.options import flag_name
from vtk_cli.video_pretrain.networks.catalog import BACKBONES
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


def show_models(console: Console) -> ExitCode:
    """The networks by name; a transformer's `FAMILY:VIT` takes the size of any timm ViT."""
    entries = BACKBONES.values()
    rows = [(one.name, one.what, f"{one.frames} x {one.side}", "yes" if one.has_tokens else "-") for one in entries]
    console.table("Networks", ("name", "what", "clips", "temporal losses"), rows)
    console.text("Transformers of other sizes: timesformer:vit_small_patch16_224, and so on for motionformer and xvit.")
    console.emit({"models": [vars(one) | {"has_tokens": one.has_tokens} for one in entries]})
    return ExitCode.DONE
