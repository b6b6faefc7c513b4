"""The published weights' names (github.com/naver-ai/vidt, branches `main` and `vidt-plus`) and ours, both ways.

The published files also hold what nothing uses, copies of one module under several names, and index tables. What is
dropped here is listed here; whatever else does not fit is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vtk_cli.detect.configurations import BACKBONES, BackboneConfig, DetectorConfig
from vtk_cli.detect.network import build_detector
from vtk_cli.detect.positions import relative_index
from vtk_cli.errors import UserError
from vtk_cli.models.weights import mismatch

WINDOW = 7
LEVELS = 4
_PREFIXES = (
    ("neck.levels.{n}.", "input_proj.{n}."),
    ("neck.reduce.{n}.0.", "fusion.multi_scaler.layer_{n}_rn."),
    ("neck.reduce.{n}.1.", "fusion.multi_scaler.p_norm_{n}."),
    ("neck.smooth.{n}.", "fusion.multi_scaler.refinenet_{n}.smoothing."),
    ("neck.lateral.{n}.", "fusion.multi_scaler.refinenet_{n}.resConfUnit1."),
    ("neck.refine.{n}.", "fusion.multi_scaler.refinenet_{n}.resConfUnit2."),
    ("reference_points.", "transformer.reference_points."),
    ("decoder.{n}.", "transformer.decoder.layers.{n}."),
    ("heads.class_embed.{n}.", "class_embed.{n}."),
    ("heads.bbox_embed.{n}.", "bbox_embed.{n}."),
    ("heads.iou_embed.{n}.", "iou_embed.{n}."),
    ("heads.vector_embed.", "vector_embed.0."),
    ("token_head.project.", "transformer.enc_output."),
    ("token_head.norm.", "transformer.enc_output_norm."),
    ("token_head.classify.", "transformer.token_embed."),
)
"""Ours and theirs, of a detector with a neck; other names, and all names of one without, are the same."""
_COPY = "transformer.decoder.bbox_embed."
"""The box heads a second time, where boxes are refined."""


@dataclass(frozen=True)
class Converted:
    """Published weights in our form.

    Args:
        config: what they are for, as far as shapes tell; the rest is as published.
        state: the state dict for `build_detector(config)`.
        dropped: the published names that nothing uses.
    """

    config: DetectorConfig
    state: dict[str, Tensor]
    dropped: tuple[str, ...]


def is_official(state: Mapping[str, Tensor]) -> bool:
    """Whether these look like published weights of ViDT, rather than ours or another network's."""
    named = "transformer.reference_points.weight" in state or "input_proj.0.weight" in state
    return named and "backbone.det_token" in state and "heads.class_embed.0.weight" not in state


def from_official(state: Mapping[str, Tensor], where: str) -> Converted:
    """Published weights in our form.

    Args:
        state: by the published names.
        where: the file, for errors.

    Raises:
        UserError: they are no ViDT weights; their windows are not 7 wide; copies differ; or a tensor is missing, left
            over or of another shape.
    """
    if not is_official(state):
        raise UserError("holds no weights of ViDT", where, "name a vidt_*.pth file or one written by vtk detect")
    try:
        config = _config_of(state)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"its tensors fit no ViDT ({error})", where, "fetch the file anew") from error
    window = _swin(config).window
    if window != WINDOW:
        raise UserError(f"has windows of {window}, not {WINDOW}", where, "its window is fixed")
    unused = _unused(config)
    copies = dict(_copies(config))
    ours, dropped = {}, []
    for name, tensor in state.items():
        if name in copies:
            original = state.get(copies[name])
            if original is None or not torch.equal(original, tensor):
                raise UserError(f"{name} differs from {copies[name]}, whose copy it is", where, "fetch the file anew")
        elif name in unused:
            dropped.append(name)
        else:
            ours[_renamed(name, config, to_official=False)] = tensor
    with torch.device("meta"):
        network = build_detector(config)
    differs = mismatch(network, ours)
    if differs:
        raise UserError(differs, where, "fetch the file anew")
    return Converted(config, ours, tuple(dropped))


def to_official(state: Mapping[str, Tensor], config: DetectorConfig) -> dict[str, Tensor]:
    """Our weights by the published names, with everything that the published modules expect.

    What nothing uses is there as it is at first: norms of 1, other weights of 0.

    Args:
        state: of `build_detector(config)`.
        config: what it is for.

    Raises:
        UserError: its backbone is no Swin.
    """
    theirs = {_renamed(name, config, to_official=True): tensor for name, tensor in state.items()}
    theirs |= {name: make() for name, make in _unused(config).items()}
    return theirs | {name: theirs[original] for name, original in _copies(config)}


def _renamed(name: str, config: DetectorConfig, *, to_official: bool) -> str:
    if config.neck == "none":
        return name
    for ours, theirs in _PREFIXES:
        source, goal = (ours, theirs) if to_official else (theirs, ours)
        pattern = re.escape(source).replace(r"\{n\}", r"(\d+)")
        found = re.match(pattern, name)
        if found:
            return goal.replace("{n}", found.group(1) if found.groups() else "") + name[found.end() :]
    return name


def _copies(config: DetectorConfig) -> Iterator[tuple[str, str]]:
    """(name of a copy, name of what it copies), by the published names."""
    if config.neck == "none":
        return
    box = [f"layers.{layer}.{kind}" for layer in range(3) for kind in ("weight", "bias")]
    embeds = {"class_embed": ["weight", "bias"], "bbox_embed": box}
    if config.iou_aware:
        embeds["iou_embed"] = box
    for level in range(config.levels):
        if config.refine:
            yield from ((f"{_COPY}{level}.{end}", f"bbox_embed.{level}.{end}") for end in box)
        if config.mask_coefficients and level:
            yield from ((f"vector_embed.{level}.{end}", f"vector_embed.0.{end}") for end in box)
        if not config.refine and level:
            for embed, ends in embeds.items():
                yield from ((f"{embed}.{level}.{end}", f"{embed}.0.{end}") for end in ends)


def _unused(config: DetectorConfig) -> dict[str, Any]:
    """The published names that nothing uses -> what makes their tensors."""
    made: dict[str, Any] = {}
    swin = _swin(config)
    widths = swin.widths

    def weights(name: str, *shape: int, bias: bool = True) -> None:
        made[f"{name}.weight"] = lambda: torch.zeros(shape)
        if bias:
            made[f"{name}.bias"] = lambda: torch.zeros(shape[0])

    def norm(name: str, width: int) -> None:
        made[f"{name}.weight"] = lambda: torch.ones(width)
        made[f"{name}.bias"] = lambda: torch.zeros(width)

    window = swin.window
    for stage, (width, depth) in enumerate(zip(widths, swin.depths, strict=True)):
        for block in range(depth):
            name = f"backbone.layers.{stage}.blocks.{block}.attn.relative_position_index"
            made[name] = lambda: relative_index((window, window), window)
        last = stage == len(widths) - 1
        if not (last and config.neck == "none"):
            weights(
                f"backbone.layers.{stage}.downsample.expansion", config.dim if last else 2 * width, width, bias=False
            )
            norm(f"backbone.layers.{stage}.downsample.norm2", width)
        if stage:
            norm(f"backbone.norm{stage}", width)
    if config.neck != "none":
        made["transformer.level_embed"] = lambda: torch.zeros(LEVELS, config.dim)
    if config.neck == "epff":
        inner, top = config.dim // 4, f"fusion.multi_scaler.refinenet_{LEVELS - 1}"
        weights(f"{top}.smoothing", config.dim, config.dim, 1, 1)
        weights(f"{top}.resConfUnit1.conv1", inner, config.dim, 1, 1)
        weights(f"{top}.resConfUnit1.conv2", inner, inner, 3, 3)
        weights(f"{top}.resConfUnit1.conv3", config.dim, inner, 1, 1)
    return made


def _config_of(state: Mapping[str, Tensor]) -> DetectorConfig:
    """What the shapes tell of a detector."""
    _, queries, dim = state["backbone.det_pos_embed"].shape
    backbone = _backbone_of(state)
    if "transformer.reference_points.weight" not in state:
        classes = len(state["class_embed.layers.2.bias"]) - 1
        return DetectorConfig(backbone, classes, queries=queries, dim=dim, neck="none")
    classes = len(state["class_embed.0.bias"])
    first = "transformer.decoder.layers.0."
    default = DetectorConfig(backbone, classes)
    attended = len(state.get(f"{first}cross_attn.attention_weights.bias", ())) or default.decoder_heads * LEVELS * 4
    token = state.get("transformer.token_embed.bias")
    return DetectorConfig(
        backbone,
        classes,
        queries=queries,
        dim=dim,
        neck="epff" if any(name.startswith("fusion.") for name in state) else "projection",
        decoder_layers=_count(state, r"transformer\.decoder\.layers\.(\d+)\."),
        points=attended // (default.decoder_heads * LEVELS),
        ffn=len(state.get(f"{first}linear1.bias", ())) or default.ffn,
        refine=any(name.startswith(_COPY) for name in state),
        iou_aware="iou_embed.0.layers.0.weight" in state,
        token_labels=token is not None,
        token_offset=default.token_offset if token is None else len(token) - classes,
        mask_coefficients=len(state.get("vector_embed.0.layers.2.bias", ())),
    )


def _swin(config: DetectorConfig) -> BackboneConfig:
    if not isinstance(config.backbone, BackboneConfig):
        what = f"the published form holds a Swin with DET tokens, and no {config.backbone.name}"
        raise UserError(what, fix="keep the form of vtk detect")
    return config.backbone


def _backbone_of(state: Mapping[str, Tensor]) -> BackboneConfig:
    width = len(state["backbone.patch_embed.proj.bias"])
    stages = _count(state, r"backbone\.layers\.(\d+)\.")
    depths = tuple(_count(state, rf"backbone\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages))
    table = "backbone.layers.{}.blocks.0.attn.relative_position_bias_table"
    heads = tuple(state[table.format(stage)].shape[1] for stage in range(stages))
    window = (math.isqrt(len(state[table.format(0)])) + 1) // 2
    for known in BACKBONES.values():
        if (known.width, known.depths, known.heads, known.window) == (width, depths, heads, window):
            return known
    return BackboneConfig(f"swin_{width}", width, depths, heads, window)


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    found = (re.match(pattern, name) for name in state)
    return max((int(match.group(1)) + 1 for match in found if match), default=0)
