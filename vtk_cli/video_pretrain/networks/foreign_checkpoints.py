"""Checkpoints of others as networks of ours: PySlowFast's (github.com/facebookresearch/SlowFast) of SlowOnly, and those
of TIME (github.com/alinlab/temporal-selfsupervision) of the three transformers.

Both are `.pyth` files of a dictionary whose `model_state` holds the tensors. Nothing in them is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.models.weights import mismatch, read_state_dict
from vtk_cli.video_pretrain.networks import slowfast_keys, time_keys
from vtk_cli.video_pretrain.networks.backbone import VideoBackbone, VideoTransformer
from vtk_cli.video_pretrain.networks.building import create_backbone
from vtk_cli.video_pretrain.networks.vit_shape import nearest_times


@dataclass(frozen=True)
class ForeignWeights:
    """What a checkpoint of others holds, in our terms.

    Args:
        network: its name for `create_backbone`.
        state: of the network, by our names.
        model_args: for `create_backbone`, as far as shapes tell.
        frames: T of its temporal positions; None where it has none.
        side: of the frames its positions are for, in pixels; None where it has none.
        class_head: `weight` (K, D) and `bias` (K) of the classifier; empty where there is none.
        heads: other heads, by the names they have there: projections, `temp_head`, `flow_head`, `mlp_q`, ...
        left_out: names that nothing uses: momentum networks, queues, memories.
    """

    network: str
    state: dict[str, Tensor]
    model_args: dict[str, Any] = field(default_factory=dict)
    frames: int | None = None
    side: int | None = None
    class_head: dict[str, Tensor] = field(default_factory=dict)
    heads: dict[str, Tensor] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def read_foreign(path: Path) -> ForeignWeights:
    """Read a checkpoint of PySlowFast or TIME.

    Heads of attention cannot be told from shapes: they are as wide as in every published ViT, 64 channels.

    Args:
        path: a `.pyth` file.

    Raises:
        UserError: it cannot be read, holds code, is of neither kind, or its tensors are missing, left over or of
            another shape (with counts).
    """
    state = read_state_dict(path)
    if slowfast_keys.is_slowfast(state):
        parts = slowfast_keys.sort_keys(state, str(path))
    elif time_keys.family_of(state):
        parts = time_keys.sort_keys(state, str(path))
    else:
        fix = "known are SlowOnly of PySlowFast, and TimeSformer, Motionformer and X-ViT of TIME"
        raise UserError("is no checkpoint of a video network known here", str(path), fix)
    weights = ForeignWeights(**parts)
    with torch.device("meta"):
        frames, side = weights.frames or 8, weights.side or 224
        network = create_backbone(weights.network, frames=frames, side=side, **weights.model_args)
    if differs := mismatch(network, weights.state):
        raise UserError(differs, str(path), "its network was changed; only the published form is known")
    return weights


def load_foreign(backbone: VideoBackbone, weights: ForeignWeights, where: str) -> str:
    """Load a checkpoint's network, its positions resized to `backbone`'s frames and patches.

    Args:
        backbone: a network of the same kind, for clips of any size.
        weights: of `read_foreign`.
        where: the file, for errors.

    Returns:
        What to tell the user of positions that were resized; empty where none were.

    Raises:
        UserError: it is another network.
    """
    state, notes = dict(weights.state), list[str]()
    if isinstance(backbone, VideoTransformer):
        state, notes = _resized(state, backbone)
    if differs := mismatch(backbone, state):
        raise UserError(differs, where, f"it holds a {weights.network}: name that network")
    backbone.load_state_dict(state)
    return "; ".join(notes)


def _resized(state: Mapping[str, Tensor], backbone: VideoTransformer) -> tuple[dict[str, Tensor], list[str]]:
    """Positions for the frames and patches of `backbone`, and what was done."""
    resized, notes = dict(state), []
    for name, own in backbone.state_dict().items():
        last, tensor = name.rpartition(".")[2], state.get(name)
        if tensor is None or tensor.shape == own.shape or tensor.shape[-1] != own.shape[-1]:
            continue
        if last == "pos_embed":
            grid = backbone.side // backbone.patch_size
            resized[name] = resample_abs_pos_embed(tensor, [grid, grid], num_prefix_tokens=1)
            notes.append(f"positions of {tensor.shape[1] - 1} patches resized to {own.shape[1] - 1}")
        elif last in {"time_embed", "temp_embed"}:
            times = nearest_times(tensor.reshape(1, -1, tensor.shape[-1]), backbone.frames)
            resized[name] = times.reshape(own.shape)
            notes.append(f"positions of {tensor.shape[1]} frames resized to {own.shape[1]}")
    return resized, notes
