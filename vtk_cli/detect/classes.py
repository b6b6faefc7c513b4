"""The classes of a detector: COCO's, those of other data, and which rows of a classifier belong to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from vtk_cli.detect.configurations import Classes, DetectorConfig

UNUSED = "N/A"
"""What an id is called that COCO leaves free."""
_CLASS_ROWS = "heads.class_embed."
_TOKEN_ROWS = "token_head.classify."  # noqa: S105 - a prefix of names


def coco_classes() -> Classes:
    """COCO's 91 category ids as the published detectors use them: label = id, 0 and ten others stand for nothing."""
    categories: Sequence[str] = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    names = tuple(UNUSED if name.startswith("__") else name for name in categories)
    return Classes(names, tuple(range(len(names))))


def labels_of(wanted: Classes, have: Classes) -> tuple[int, ...] | None:
    """The labels of `have` with the names of `wanted`, in its order; None if one is missing or stands there twice."""
    count = Counter(have.names)
    if any(name == UNUSED or count[name] != 1 for name in wanted.names):
        return None
    return tuple(have.names.index(name) for name in wanted.names)


def select_labels(
    state: Mapping[str, Tensor], config: DetectorConfig, labels: Sequence[int]
) -> tuple[dict[str, Tensor], DetectorConfig]:
    """The detector of some of the classes alone; it is exact, for each class has a sigmoid of its own.

    Args:
        state: of a detector with a neck.
        config: its configuration.
        labels: those to keep, in their new order.

    Returns:
        The new state dict and its configuration, whose tokens' channel 0 is "any object" as before.
    """
    rows = torch.tensor(labels, dtype=torch.int64)
    channels = torch.cat((torch.zeros(1, dtype=torch.int64), rows + config.token_offset))
    chosen = {}
    for name, tensor in state.items():
        kept = rows if name.startswith(_CLASS_ROWS) else channels if name.startswith(_TOKEN_ROWS) else None
        chosen[name] = tensor if kept is None else tensor[kept.to(tensor.device)]
    return chosen, replace(config, classes=len(labels), token_offset=1)


def is_of_classes(name: str) -> bool:
    """Whether a parameter of a detector belongs to its classes, and has to be learned anew for others."""
    return name.startswith((_CLASS_ROWS, _TOKEN_ROWS, "class_embed.layers.2."))
