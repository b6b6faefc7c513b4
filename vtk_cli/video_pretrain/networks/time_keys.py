"""The names in TIME's checkpoints (github.com/alinlab/temporal-selfsupervision), and ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vtk_cli.errors import UserError

_TIME_HEADS = ("temp_head.", "flow_head.", "mlp_q.", "mlp_k.", "mlp_v.", "mlp_proj.", "mlp_norm.")
_CLASSIFIERS = {"timesformer": "head.", "motionformer": "head.", "xvit": "consensus.head."}
_HEAD_WIDTH = 64


def family_of(state: Mapping[str, Tensor]) -> str:
    """`timesformer`, `motionformer` or `xvit`; empty for weights that look like none of these."""
    if "time_embed" in state and "blocks.0.temporal_fc.weight" in state:
        return "timesformer"
    if "temp_embed" in state and "blocks.0.attn.proj_kv.weight" in state:
        return "motionformer"
    return "xvit" if "base_model.temp_embed" in state and "consensus.cls_token" in state else ""


def sort_keys(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """The arguments of `ForeignWeights` for a checkpoint.

    Raises:
        UserError: its shapes are of no ViT.
    """
    family = family_of(state)
    classifier = _CLASSIFIERS[family]
    prefix = "base_model." if family == "xvit" else ""
    try:
        shape, frames, side = _sizes({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"its tensors fit no {family} ({error})", where, "fetch the file anew") from error
    return {
        "network": family,
        "state": {name: one for name, one in state.items() if not name.startswith((classifier, *_TIME_HEADS))},
        "model_args": shape,
        "frames": frames,
        "side": side,
        "class_head": {
            name.removeprefix(classifier): one for name, one in state.items() if name.startswith(classifier)
        },
        "heads": {name: one for name, one in state.items() if name.startswith(_TIME_HEADS)},
    }


def _sizes(state: Mapping[str, Tensor]) -> tuple[dict[str, int], int, int]:
    """What the shapes of an image part tell: the ViT's shape, T, and the side in pixels."""
    width = state["cls_token"].shape[-1]
    patch = state["patch_embed.proj.weight"].shape[-1]
    grid = math.isqrt(state["pos_embed"].shape[1] - 1)
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    times = state["time_embed"] if "time_embed" in state else state["temp_embed"]
    shape = {
        "width": width,
        "depth": depth,
        "heads": max(width // _HEAD_WIDTH, 1),
        "patch": patch,
        "mlp": state["blocks.0.mlp.fc1.weight"].shape[0],
    }
    return shape, times.shape[1], grid * patch
