"""`vtk video-pretrain models`: the networks by name."""

from __future__ import annotations

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode
from vtk_cli.video_pretrain.networks.catalog import BACKBONES


def show_models(console: Console) -> ExitCode:
    """The networks by name; a transformer's `FAMILY:VIT` takes the size of any timm ViT."""
    entries = BACKBONES.values()
    rows = [(one.name, one.what, f"{one.frames} x {one.side}", "yes" if one.has_tokens else "-") for one in entries]
    console.table("Networks", ("name", "what", "clips", "temporal losses"), rows)
    console.text("Transformers of other sizes: timesformer:vit_small_patch16_224, and so on for motionformer and xvit.")
    console.emit({"models": [vars(one) | {"has_tokens": one.has_tokens} for one in entries]})
    return ExitCode.DONE
