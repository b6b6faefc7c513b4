"""What is read off the DET tokens: classes, boxes, IoU, mask codes; and off the cells of the maps: their classes.

IoU-aware and token-label heads, and mask codes: arXiv 2204.07962, Sections 4.2 and 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.detect.configurations import DetectorConfig
from vtk_cli.detect.decoder import Memory
from vtk_cli.detect.predictions import LevelOutput

PRIOR_LOGIT = -math.log(99)
"""The logit of 0.01: what a class is given at first."""
FIRST_SIZE = -2.0
"""The logit of a box's first width and height."""
_EDGE = 0.01


def wide(tensor: Tensor) -> Tensor:
    """In float32 at least: boxes and losses are not computed in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def inverse_sigmoid(probability: Tensor) -> Tensor:
    """The logit of numbers in [0, 1], within ln(1e5) of 0: log(max(p, 1e-5) / max(1 - p, 1e-5))."""
    p = probability.clamp(0, 1)
    return (p.clamp(min=1e-5) / (1 - p).clamp(min=1e-5)).log()


class BoxMlp(nn.Module):
    """Three layers with ReLU between them."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, out)))

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) to (..., out)."""
        first, second, third = self.layers
        out: Tensor = third(F.relu(second(F.relu(first(tokens)))))
        return out


class Heads(nn.Module):
    """The heads of all levels: one set a level with refinement, else one set for all.

    The head of the mask codes is shared by all levels. Only heads that are trained require gradients: without
    auxiliary levels those of the last.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        sets = config.levels if config.refine else 1
        self.class_embed = _alike(sets, lambda: _classifier(config.dim, config.classes))
        self.bbox_embed = _alike(sets, lambda: _zero_last(BoxMlp(config.dim, 4)))
        nn.init.constant_(self.bbox_embed.get_parameter("0.layers.2.bias")[2:], FIRST_SIZE)
        self.iou_embed = _alike(sets, lambda: BoxMlp(config.dim, 1)) if config.iou_aware else None
        codes = config.mask_coefficients
        self.vector_embed = _zero_last(BoxMlp(config.dim, codes)) if codes else None
        if not config.aux:
            for embed in (self.class_embed, self.bbox_embed, self.iou_embed):
                for unused in embed[:-1] if embed is not None else ():
                    unused.requires_grad_(requires_grad=False)

    def boxes(self, level: int, tokens: Tensor, references: Tensor) -> Tensor:
        """(B, Q, 4) cxcywh: references, points (B, Q, 2) or boxes (B, Q, 4), moved by what tokens (B, Q, D) say."""
        offsets = wide(_at(self.bbox_embed, level)(tokens))
        moved = F.pad(inverse_sigmoid(references), (0, 4 - references.shape[-1]))
        return (offsets + moved).sigmoid()

    def level(self, level: int, tokens: Tensor, boxes: Tensor) -> LevelOutput:
        """Everything that level says of its tokens (B, Q, D) with their boxes (B, Q, 4)."""
        return LevelOutput(
            logits=wide(_at(self.class_embed, level)(tokens)),
            boxes=boxes,
            iou_logits=wide(_at(self.iou_embed, level)(tokens))[..., 0] if self.iou_embed is not None else None,
            vectors=wide(self.vector_embed(tokens)) if self.vector_embed is not None else None,
        )


class TokenHead(nn.Module):
    """The class of every cell of the maps: dense supervision of the patches in training.

    Args:
        dim: D.
        channels: C.
    """

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.classify = _classifier(dim, channels)
        for module in (self.project, self.classify):
            nn.init.xavier_uniform_(module.weight)

    def forward(self, memory: Memory) -> tuple[Tensor, ...]:
        """Logits (B, C, H_l, W_l) of each level. Cells that are padding or at the very edge are read as 0."""
        logits = wide(self.classify(self.norm(self.project(memory.cells.masked_fill(_unlabelled(memory), 0)))))
        return tuple(
            cells.transpose(1, 2).reshape(cells.shape[0], -1, *shape)
            for cells, shape in zip(memory.levels(logits), memory.shapes, strict=True)
        )


def _unlabelled(memory: Memory) -> Tensor:
    """(B, S, 1) bool: padded cells and cells whose centre is within 0.01 of the unpadded image's edge."""
    hidden = []
    for index, ((H, W), padding) in enumerate(zip(memory.shapes, memory.levels(memory.padding), strict=True)):
        count = memory.valid_ratios[:, index] * memory.valid_ratios.new_tensor((W, H))  # (B, 2)
        centres = [
            (torch.arange(length, device=count.device) + 0.5) / count[:, axis, None]
            for axis, length in enumerate((W, H))
        ]
        x, y = ((centre > _EDGE) & (centre < 1 - _EDGE) for centre in centres)
        hidden.append(padding | ~(y[:, :, None] & x[:, None]).flatten(1))
    return torch.cat(hidden, 1)[..., None]


def _classifier(dim: int, classes: int) -> nn.Linear:
    layer = nn.Linear(dim, classes)
    nn.init.constant_(layer.bias, PRIOR_LOGIT)
    return layer


def _zero_last(mlp: BoxMlp) -> BoxMlp:
    last: nn.Linear = mlp.layers[-1]  # type: ignore[assignment]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return mlp


def _alike(count: int, make: Callable[[], nn.Module]) -> nn.ModuleList:
    """`count` modules with the weights of the first."""
    modules = [make() for _ in range(count)]
    for module in modules[1:]:
        module.load_state_dict(modules[0].state_dict())
    return nn.ModuleList(modules)


def _at(embed: nn.ModuleList, level: int) -> nn.Module:
    return embed[min(level, len(embed) - 1)]
