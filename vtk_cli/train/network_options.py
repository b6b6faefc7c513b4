"""The options of `vtk train` that say which network is trained, and how its sub-model is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vtk_cli.models.names import ALIASES
from vtk_cli.options import RunOptions, option
from vtk_cli.train.recipes import RECIPES

DEFAULT_MODEL = "vit_small_patch16_224"


def _complete_model(incomplete: str) -> list[str]:
    return [alias for alias in ALIASES if alias.startswith(incomplete)]


def _complete_recipe(incomplete: str) -> list[str]:
    return [name for name in RECIPES if name.startswith(incomplete)]


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
