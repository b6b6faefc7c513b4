"""All options of `vtk train`. Recipes (`recipes.py`) set the same fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vtk_cli.data.options import DIGITS
from vtk_cli.engine.processes.parallel_options import ParallelOptions
from vtk_cli.errors import UserError
from vtk_cli.train.image_options import AugmentationOptions, DataOptions
from vtk_cli.train.network_options import DEFAULT_MODEL, NetworkOptions, SubOptions
from vtk_cli.train.recipes import RECIPES
from vtk_cli.train.target_options import ByproductOptions, LossOptions
from vtk_cli.train.update_options import OptimizationOptions, SpeedOptions

DIGITS_MODEL = "vit_tiny_patch16_224"
DIGITS_MODEL_ARGS = ("img_size=32", "patch_size=8", "embed_dim=64", "depth=3", "num_heads=4", "mlp_ratio=2")
"""The small vision transformer that trains on digits where no model is named: 16 tokens of 8 x 8 pixels."""
_GIVE_BYPRODUCTS = "give --byproducts FILE, or leave it out"


@dataclass(frozen=True, kw_only=True)
class TrainOptions(
    DataOptions,
    NetworkOptions,
    SubOptions,
    ByproductOptions,
    LossOptions,
    AugmentationOptions,
    OptimizationOptions,
    SpeedOptions,
    ParallelOptions,
):
    """All options of `vtk train`."""

    recipe_option: ClassVar[str] = "recipe"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES

    @classmethod
    def default_recipe(cls, given: Mapping[str, Any]) -> str:
        """`digits` on digits, else `small`."""
        return "digits" if given.get("data") in {None, DIGITS} else "small"

    @property
    def network(self) -> str:
        """The network's name, with the default in place of none."""
        return self.model or (DIGITS_MODEL if self.on_digits else DEFAULT_MODEL)

    @property
    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments for the network's constructor, as numbers, booleans, null or text.

        Raises:
            UserError: one is no KEY=VALUE.
        """
        small = DIGITS_MODEL_ARGS if self.on_digits and self.model is None else ()
        arguments: dict[str, Any] = {}
        for entry in (*small, *self.model_arg):
            key, equals, text = entry.partition("=")
            if not (key.isidentifier() and equals and text):
                raise UserError(f"{entry!r} is no KEY=VALUE", "--model-arg", "write e.g. --model-arg patch_size=8")
            arguments[key] = _literal(text)
        for key, value in (
            ("drop_rate", self.drop or None),
            ("drop_path_rate", self.drop_path),
            ("init_values", self.layer_scale),
        ):
            if value is not None:
                arguments.setdefault(key, value)
        return arguments

    @property
    def input_size(self) -> int | None:
        """The input's side that was asked for; None for the network's own."""
        return self.img_size or (32 if self.on_digits else None)

    def check(self) -> None:
        """Options that contradict one another."""
        _ = self.eval_sets, self.constructor_arguments, self.point_factor, self.warmup_epochs
        if self.binarize and self.smoothing:
            what = "binarised targets with label smoothing turn every class on"
            raise UserError(what, "--binarize --smoothing", "leave one of them out")
        if self.binarize and self.loss != "bce":
            raise UserError("only the BCE loss takes binarised targets", "--binarize", "give --loss bce")
        if self.crop_scale_min > self.crop_scale_max:
            raise UserError("the smallest crop is larger than the largest", "--crop-scale-min", "give a smaller one")
        if len(self.betas) not in {0, 2}:
            raise UserError(f"{len(self.betas)} beta(s)", "--betas", "give two: --betas 0.9 --betas 0.95")
        if self.byproducts is None:
            flags = {
                "--ab-check": self.ab_check,
                "--ab-sub": self.ab_sub != "none",
                "--ab-drop-outside": self.ab_drop_outside,
            }
            if flag := next((flag for flag, given in flags.items() if given), None):
                raise UserError("there are no byproducts", flag, _GIVE_BYPRODUCTS)
        if self.ab_check and self.dry_run:
            raise UserError(
                "a look at the byproducts is their pictures", "--ab-check --dry-run", "leave one of them out"
            )
        if self.sub == "none" and self.ab_sub != "none":
            raise UserError("there is no sub-branch", "--ab-sub", "give --sub mask, or leave it out")


def _literal(text: str) -> Any:
    """`true`, `none`, a number, or the text itself."""
    words: dict[str, Any] = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
