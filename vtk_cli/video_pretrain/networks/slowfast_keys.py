"""The names in PySlowFast's checkpoints of the slow pathway (github.com/facebookresearch/SlowFast), and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vtk_cli.errors import UserError

_PREFIX = "backbone."
_STEM = "s1.pathway0_stem.conv.weight"
_UNUSED = ("backbone_hist.", "knn_mem.", "memory.", "queue_x", "queue_swav", "ptr", "iter", "ptr_", "swav_prototypes")
"""The momentum network, the queue and its pointer, the memory of the kNN classifier, SwAV's prototypes."""
_CLASSIFIER = ("head.projection.weight", "head.projection.bias")


def is_slowfast(state: Mapping[str, Tensor]) -> bool:
    """Whether these look like weights of PySlowFast."""
    return _STEM in state or _PREFIX + _STEM in state


def sort_keys(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """The arguments of `ForeignWeights` for a checkpoint.

    Raises:
        UserError: it is of another network of PySlowFast.
    """
    pretrained = _PREFIX + _STEM in state
    network: dict[str, Tensor] = {}
    heads: dict[str, Tensor] = {}
    left_out = []
    for name, tensor in state.items():
        if name.startswith(_UNUSED):
            left_out.append(name)
            continue
        ours = name.removeprefix(_PREFIX) if pretrained else name
        (heads if ours.startswith("head.") else network)[ours] = tensor
    classifier = {}
    if not pretrained and all(name in heads for name in _CLASSIFIER):
        classifier = {name.rpartition(".")[2]: heads.pop(name) for name in _CLASSIFIER}
    return {
        "network": _network_name(network, where),
        "state": network,
        "class_head": classifier,
        "heads": heads,
        "left_out": tuple(left_out),
    }


def _network_name(state: Mapping[str, Tensor], where: str) -> str:
    if any("pathway1" in name for name in state):
        raise UserError("holds a SlowFast network of two pathways", where, "take one of the slow pathway alone")
    if "s2.pathway0_res0.branch2.c.weight" not in state:
        return "slow_r18"
    blocks = {int(found.group(1)) for name in state if (found := re.match(r"s4\.pathway0_res(\d+)\.", name))}
    if len(blocks) != 6:
        raise UserError(
            f"holds a ResNet of {len(blocks)} blocks in its third stage", where, "only R50 and R18 are known"
        )
    return "slow_r50"
