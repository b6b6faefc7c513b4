"""Checkpoints of edge-popup on classifiers (arXiv 1911.13299): which weights their networks run with.

A checkpoint holds a weight and scores for every masked layer, not how much is kept: that has to be said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.models.weights import read_state_dict
from vtk_cli.prune.selection import top_k_mask

_SCORES = ".scores"


@dataclass(frozen=True)
class HiddenNetwork:
    """A classifier with masks.

    Args:
        state: the state dict of the plain network: masked weights, without scores.
        masks: bool, by layer name.
    """

    state: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]


def read_hidden_network(path: Path, keep: Fraction) -> HiddenNetwork:
    """A network of the published edge-popup code, its pruned weights 0.

    As that code does, int((1 - keep) n) of a layer's n weights are pruned, in floating-point arithmetic: other than
    `kept_of` at some edges (of ten weights at 0.9 all are kept). Scores that are 0 and 1 only are masks already.

    Args:
        path: the checkpoint.
        keep: the fraction kept in each layer, `--prune-rate` of that code.

    Raises:
        UserError: the file cannot be read, or holds no scores beside the weights.
    """
    state = read_state_dict(path)
    names = [key.removesuffix(_SCORES) for key in state if key.endswith(_SCORES)]
    if not names:
        raise UserError("holds no scores", str(path), "name a checkpoint of edge-popup")
    folded, masks = dict(state), {}
    for name in names:
        scores, weight = folded.pop(f"{name}{_SCORES}"), folded.get(f"{name}.weight")
        if weight is None or weight.shape != scores.shape:
            raise UserError(f"the scores of {name} are not of its weight's shape", str(path), "fetch the file anew")
        if bool(scores.isnan().any()):
            raise UserError(f"the scores of {name} are not all numbers", str(path), "take an earlier checkpoint")
        masks[name] = _mask(scores, keep)
        folded[f"{name}.weight"] = weight.masked_fill(~masks[name], 0.0)
    return HiddenNetwork(folded, masks)


def _mask(scores: Tensor, keep: Fraction) -> Tensor:
    if bool(((scores == 0) | (scores == 1)).all()):
        return scores == torch.ones(())
    n = scores.numel()
    return top_k_mask(scores.abs(), n - int((1 - float(keep)) * n))
