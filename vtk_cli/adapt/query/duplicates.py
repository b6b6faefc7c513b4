"""Near-duplicates in a pool, of which one label is enough."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.adapt.query.outputs import PoolOutputs
from vtk_cli.errors import UserError

BLOCK = 256
"""Images that are compared at once with all that are kept."""


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
    known = unit[:0] if labelled is None else F.normalize(labelled.double(), dim=1)
    kept: list[int] = []
    for start in range(0, len(unit), BLOCK):
        block = unit[start : start + BLOCK]
        before = torch.cat([known, unit[kept]])
        free = (block @ before.T < most).all(1).tolist()
        alike = (block @ block.T >= most).tolist()
        here: list[int] = []
        for index, is_free in enumerate(free):
            if is_free and not any(alike[index][other] for other in here):
                here.append(index)
        kept += [start + index for index in here]
    return ordered.rows(kept)
