"""The options of `vtk train`, in groups by what they govern. Recipes (`recipes.py`) set the same fields."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from vtk_cli.data.options import DIGITS
from vtk_cli.errors import UserError
from vtk_cli.models.names import ALIASES
from vtk_cli.options import RunOptions, option
from vtk_cli.train.recipes import RECIPES

DEFAULT_MODEL = "vit_small_patch16_224"
DIGITS_MODEL = "vit_tiny_patch16_224"
DIGITS_MODEL_ARGS = ("img_size=32", "patch_size=8", "embed_dim=64", "depth=3", "num_heads=4", "mlp_ratio=2")
"""The small vision transformer that trains on digits where no model is named: 16 tokens of 8 x 8 pixels."""

VERBS = ("eval", "predict", "export", "recipes")
_MOST_WORKERS = 8
NO_POLICY = "none"
_GIVE_BYPRODUCTS = "give --byproducts FILE, or leave it out"


def _complete_model(incomplete: str) -> list[str]:
    return [alias for alias in ALIASES if alias.startswith(incomplete)]


def _complete_recipe(incomplete: str) -> list[str]:
    return [name for name in RECIPES if name.startswith(incomplete)]


def _complete_data(incomplete: str) -> list[str]:
    return [word for word in (DIGITS, *VERBS) if word.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class DataOptions(RunOptions):
    """Which images."""

    data: str = option(
        DIGITS,
        "A folder with train/ and val/ (one folder a class), COCO files, a timm dataset (torch/cifar10), or digits.",
        positional=True,
        metavar="DATA",
        complete=_complete_data,
    )
    val: str | None = option(
        None, "Images to evaluate on, where DATA has no val/ of its own.", panel="Data", metavar="DATA"
    )
    images_per_class: int | None = option(
        None, "Train on so many images of each class, drawn by the seed.", panel="Data", metavar="N", minimum=1
    )
    batch_size: int = option(64, "Images at a time, over all processes.", panel="Data", minimum=1)
    workers: int | None = option(
        None, "Processes that read images [default: one a core, at most 8].", panel="Data", metavar="N", minimum=0
    )
    eval_set: tuple[str, ...] = option(
        (),
        "Another set to evaluate on at the end, NAME=PATH (ImageNet-V2, -A, -R, -Sketch, ReaL ...); may be repeated.",
        panel="Data",
        metavar="NAME=PATH",
    )

    @property
    def on_digits(self) -> bool:
        """Whether the images are the embedded digits."""
        return self.data == DIGITS

    @property
    def data_name(self) -> str:
        """The data without the folders it is in, for titles."""
        return Path(self.data).resolve().name or self.data

    @property
    def eval_sets(self) -> dict[str, Path]:
        """Name -> folder of `eval_set`; see `parse_eval_sets`."""
        return parse_eval_sets(self.eval_set)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(RunOptions):
    """Which network, and what it starts from."""

    recipe: str | None = option(
        None,
        "Defaults of a published training; see `vtk train recipes` [default: digits, or small with your own data].",
        panel="Network",
        metavar="NAME",
        complete=_complete_recipe,
    )
    model: str | None = option(
        None,
        f"A timm network [default: {DEFAULT_MODEL}; on digits a ViT of 3 blocks].",
        panel="Network",
        metavar="NAME",
        complete=_complete_model,
    )
    model_arg: tuple[str, ...] = option(
        (),
        "An argument of the network's constructor, KEY=VALUE; may be repeated.",
        panel="Network",
        metavar="KEY=VALUE",
    )
    weights: str = option(
        "scratch",
        "Start from scratch, from the pretrained (published) weights, or from a weight file.",
        panel="Network",
        metavar="scratch|pretrained|FILE",
    )
    img_size: int | None = option(
        None, "Side of the input in pixels [default: the network's own].", panel="Network", metavar="N", minimum=8
    )
    drop: float = option(0.0, "Dropout before the classifier.", panel="Network", minimum=0, maximum=1)
    drop_path: float | None = option(
        None, "Stochastic depth [default: the network's own].", panel="Network", metavar="P", minimum=0, maximum=1
    )
    drop_path_schedule: Literal["linear", "constant"] = option(
        "linear", "Stochastic depth grows with the depth, or is the same in every block.", panel="Network"
    )
    layer_scale: float | None = option(
        None, "Initial value of LayerScale [default: the network's own].", panel="Network", metavar="X", above=0
    )
    head_init_std: float | None = option(
        None,
        "Spread of a new classifier's weights [default: the network's own].",
        panel="Network",
        metavar="X",
        above=0,
    )


@dataclass(frozen=True, kw_only=True)
class SubOptions(RunOptions):
    """The sub-branch (arXiv 2306.11339): a second, thinned forward pass taught by the first."""

    sub: Literal["mask", "dropout", "droppath", "none"] = option(
        "mask", "How the sub-branch is thinned: AugMask, AugDrop, AugPath; none: plain training.", panel="Sub-branch"
    )
    sub_ratio: str = option(
        "0.5", "The share that is masked or dropped; 0.25:0.75 grows.", panel="Sub-branch", metavar="R"
    )
    sub_mask_kind: Literal["auto", "token", "mask-token", "pixel"] = option(
        "auto",
        "Leave tokens out (ViT), put a learned mask token in their place (Swin), or blank pixels (convnets).",
        panel="Sub-branch",
    )
    sub_block: int | None = option(
        None,
        "Side of a masked block in pixels [default: 32, or an eighth of a small image].",
        panel="Sub-branch",
        metavar="N",
        minimum=1,
    )
    sub_target: Literal["relaxed", "label", "mix"] = option(
        "relaxed",
        "What teaches the sub-branch: the main branch's answer, the label, or half of each.",
        panel="Sub-branch",
    )
    sub_bn: Literal["shared", "main"] = option(
        "shared",
        "Batch normalisation's running statistics come from both branches, or from the main one.",
        panel="Sub-branch",
    )
    sub_fused: bool = option(False, "One backward pass for both branches: more memory.", panel="Sub-branch")


@dataclass(frozen=True, kw_only=True)
class ByproductOptions(RunOptions):
    """Annotation byproducts (LUAB, arXiv 2303.17595): where annotators clicked, as a second target."""

    byproducts: Path | None = option(
        None,
        "Clicks: ImageNet-AB, COCO-AB, the annotation tool's JSON, or a CSV with file,x,y.",
        panel="Byproducts",
        metavar="PATH",
    )
    ab_format: Literal["auto", "imagenet-ab", "coco-ab", "tool-json", "csv", "json"] = option(
        "auto", "How to read them.", panel="Byproducts"
    )
    ab_from: Literal["clicks", "boxes"] = option(
        "clicks", "Points are clicks, or the centres of boxes.", panel="Byproducts"
    )
    ab_point: Literal["last", "first", "mean", "trace-end", "final", "add"] = option(
        "last", "Which click counts where there are several; final and add: COCO-AB's placements.", panel="Byproducts"
    )
    ab_units: Literal["fraction", "px"] = option("fraction", "Units of a CSV's or JSON's points.", panel="Byproducts")
    ab_weight: float = option(10.0, "Weight of the point loss.", panel="Byproducts", minimum=0)
    ab_beta: float = option(1.0, "Where the smooth L1 loss turns linear.", panel="Byproducts", above=0)
    ab_scale: str = option(
        "auto",
        "A factor on the weight; auto: 1/classes with BCE, whose gradients are as much smaller.",
        panel="Byproducts",
        metavar="auto|X",
    )
    ab_sub: Literal["none", "label", "relaxed"] = option(
        "none", "The sub-branch's point target: none, the click, or the main branch's point.", panel="Byproducts"
    )
    ab_drop_outside: bool = option(
        False, "A class whose click the crop leaves out is no class of the crop.", panel="Byproducts"
    )
    ab_check: bool = option(
        False,
        "Look at the byproducts (coverage, a sheet of augmented images with their points) and stop.",
        panel="Byproducts",
        recorded=False,
    )


@dataclass(frozen=True, kw_only=True)
class LossOptions(RunOptions):
    """The classification loss."""

    loss: Literal["ce", "bce"] = option("ce", "Cross entropy, or binary cross entropy of every class.", panel="Loss")
    smoothing: float = option(0.0, "Label smoothing.", panel="Loss", minimum=0, maximum=0.999)
    binarize: bool = option(False, "Mixed targets above 0 count as 1 (DeiT-III's BCE).", panel="Loss")


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions(RunOptions):
    """What is done to training images."""

    crop: Literal["random-resized", "shift", "simple"] = option(
        "random-resized", "Random resized crop, small shifts, or resize and random crop.", panel="Augmentation"
    )
    crop_scale_min: float = option(
        0.08, "Smallest area of a random resized crop.", panel="Augmentation", above=0, maximum=1
    )
    crop_scale_max: float = option(
        1.0, "Largest area of a random resized crop.", panel="Augmentation", above=0, maximum=1
    )
    shift: int = option(0, "Largest shift in pixels, for --crop shift.", panel="Augmentation", minimum=0)
    hflip: float = option(0.5, "Chance of a horizontal flip.", panel="Augmentation", minimum=0, maximum=1)
    vflip: float = option(0.0, "Chance of a vertical flip.", panel="Augmentation", minimum=0, maximum=1)
    auto_augment: str = option(
        NO_POLICY,
        "timm's policies: 3a, rand-m9-mstd0.5-inc1, augmix-m3, original ...",
        panel="Augmentation",
        metavar="NAME",
    )
    color_jitter: float = option(0.0, "Strength of colour jitter.", panel="Augmentation", minimum=0)
    interpolation: Literal["bicubic", "bilinear", "random"] = option(
        "bicubic", "Interpolation of the crop.", panel="Augmentation"
    )
    erasing: float = option(0.0, "Chance of random erasing.", panel="Augmentation", minimum=0, maximum=1)
    mixup: float = option(0.0, "Alpha of mixup.", panel="Augmentation", minimum=0)
    cutmix: float = option(0.0, "Alpha of cutmix.", panel="Augmentation", minimum=0)
    mix_prob: float = option(1.0, "Chance that a batch is mixed.", panel="Augmentation", minimum=0, maximum=1)
    mix_switch: float = option(0.5, "Chance of cutmix where both are on.", panel="Augmentation", minimum=0, maximum=1)
    mix_mode: Literal["batch", "pair", "elem"] = option(
        "batch", "One mixing a batch, a pair, or an image.", panel="Augmentation"
    )
    repeats: int = option(1, "Repeated augmentation: each image so often in a row.", panel="Augmentation", minimum=1)
    crop_pct: float | None = option(
        None,
        "Share of the resized image that evaluation sees [default: the network's own].",
        panel="Augmentation",
        metavar="P",
        above=0,
        maximum=1,
    )
    eval_size: int | None = option(
        None, "Side of the input in evaluation [default: as in training].", panel="Augmentation", metavar="N", minimum=8
    )


@dataclass(frozen=True, kw_only=True)
class OptimizationOptions(RunOptions):
    """The optimiser and its schedule."""

    epochs: int = option(100, "Passes over the training images.", panel="Optimisation", minimum=1)
    optimizer: str = option("adamw", "Any of timm's optimisers.", panel="Optimisation", metavar="NAME")
    lr: float = option(2e-3, "Learning rate.", panel="Optimisation", above=0)
    lr_base_size: int | None = option(
        None,
        "The learning rate is meant for so many images an update, and scaled to yours.",
        panel="Optimisation",
        metavar="N",
        minimum=1,
    )
    weight_decay: float = option(0.05, "Weight decay, on matrices.", panel="Optimisation", minimum=0)
    layer_decay: float | None = option(
        None,
        "Learning rate factor from a layer to the one before.",
        panel="Optimisation",
        metavar="X",
        above=0,
        maximum=1,
    )
    momentum: float = option(
        0.9, "Momentum, for optimisers that have one.", panel="Optimisation", minimum=0, maximum=0.9999
    )
    opt_eps: float | None = option(
        None, "Epsilon, for optimisers that have one.", panel="Optimisation", metavar="X", above=0
    )
    betas: tuple[float, ...] = option(
        (), "Betas, for optimisers that have them; give it twice.", panel="Optimisation", metavar="X"
    )
    schedule: str = option("cosine", "Any of timm's schedules.", panel="Optimisation", metavar="NAME")
    schedule_on: Literal["updates", "epochs"] = option(
        "updates", "The learning rate changes with every update, or every epoch.", panel="Optimisation"
    )
    warmup: str = option(
        "0", "Linear warm-up: epochs, or a share of the training as in 10%.", panel="Optimisation", metavar="N|P%"
    )
    warmup_lr: float = option(0.0, "Learning rate at the start of the warm-up.", panel="Optimisation", minimum=0)
    min_lr: float = option(0.0, "Learning rate at the end.", panel="Optimisation", minimum=0)
    cooldown_epochs: int = option(
        0, "Epochs at the end with the lowest learning rate.", panel="Optimisation", minimum=0
    )
    clip_norm: float | None = option(
        None, "Largest 2-norm of the gradient.", panel="Optimisation", metavar="X", above=0
    )
    accumulate: int = option(1, "Batches that make one update.", panel="Optimisation", minimum=1)
    ema_decay: float | None = option(
        None,
        "Also keep averaged weights, with this decay.",
        panel="Optimisation",
        metavar="X",
        minimum=0,
        maximum=0.9999999,
    )
    evaluate_epochs: int = option(1, "Evaluate after every so many epochs.", panel="Optimisation", minimum=1)

    @property
    def warmup_epochs(self) -> float:
        """How long `warmup` lasts.

        Raises:
            UserError: it is neither a number of epochs nor a share.
        """
        number, percent, rest = self.warmup.strip().partition("%")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if rest or not 0 <= value < (100 if percent else float("inf")):
            raise UserError(f"{self.warmup!r} is no length", "--warmup", "give epochs, as in 5, or a share, as in 10%")
        return value / 100 * self.epochs if percent else value


@dataclass(frozen=True, kw_only=True)
class SpeedOptions(RunOptions):
    """Arithmetic and memory."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Arithmetic; auto: bf16 on a GPU.", panel="Speed"
    )
    compile: bool = option(False, "Compile the network with torch.compile.", panel="Speed")
    channels_last: bool = option(False, "Channels-last memory format.", panel="Speed")
    grad_checkpointing: bool = option(False, "Compute activations again in the backward pass.", panel="Speed")
    checkpoint_seconds: float = option(
        120.0, "Save the state of the training so often.", panel="Speed", metavar="S", minimum=0
    )


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

    @property
    def point_factor(self) -> float | None:
        """The number of `--ab-scale`; None for auto.

        Raises:
            UserError: it is neither.
        """
        if self.ab_scale == "auto":
            return None
        try:
            factor = float(self.ab_scale)
        except ValueError:
            factor = -1.0
        if not 0 <= factor < float("inf"):
            raise UserError(f"{self.ab_scale!r} is no factor", "--ab-scale", "give auto or a number of 0 or more")
        return factor

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


def parse_eval_sets(entries: Sequence[str]) -> dict[str, Path]:
    """Name -> folder of `NAME=PATH` entries.

    Raises:
        UserError: one is no NAME=PATH, or two have one name.
    """
    sets: dict[str, Path] = {}
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not (name and equals and path) or name in sets:
            what = "names a set twice" if name in sets else "is no NAME=PATH"
            raise UserError(f"{entry!r} {what}", "--eval-set", "write e.g. --eval-set v2=imagenet-v2/")
        sets[name] = Path(path)
    return sets


def worker_count(asked: int | None) -> int:
    """How many processes read images: as many as asked for, else one a core and at most 8."""
    return min(_MOST_WORKERS, os.cpu_count() or 1) if asked is None else asked


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
