"""Near-duplicates in a pool, of which one label is enough."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.adapt.query.outputs import PoolOutputs
from vtk_cli.errors import UserError


def without_near_duplicates(outputs: PoolOutputs, labelled: Tensor | None, most: float) -> PoolOutputs:
    """Those images, in order of their ids, that are not too similar to one that is labelled or kept before them.

    Args:
        outputs: of the candidates.
        labelled: embeddings (n, D) of what is labelled, or None.
        most: the cosine of the embeddings from which on two images count as the same, in (0, 1].

    Raises:
        UserError: `most` is out of range.
    """
    if not 0 < most <= 1:
        raise UserError(f"a similarity of {most} is out of range", "--dedup", "give more than 0 and at most 1")
    ordered = outputs.in_order()
    unit = F.normalize(ordered.embeddings.double(), dim=1)
    kept_units = torch.empty(len(ordered), unit.shape[1], dtype=unit.dtype)
    known = None if labelled is None or not len(labelled) else F.normalize(labelled.double(), dim=1)
    kept: list[int] = []
    for index, one in enumerate(unit):
        if known is not None and float((known @ one).max()) >= most:
            continue
        if kept and float((kept_units[: len(kept)] @ one).max()) >= most:
            continue
        kept_units[len(kept)] = one
        kept.append(index)
    return ordered.rows(kept)
