"""The angle by which training has turned the weights of an architecture (arXiv 2101.11834)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vtk_cli.models.spaces.supernet import Supernet


def angle_between(first: Tensor, second: Tensor) -> float:
    """The angle of two vectors (N,) in radians, 0 to pi; 0 if one of them has no length or is not finite.

    Computed from the sum and the difference of the unit vectors, which is exact for small angles as well, where the
    arc cosine is not.
    """
    if first.device.type != "mps":  # it has no double precision
        first, second = first.double(), second.double()
    lengths = torch.stack([torch.linalg.vector_norm(first), torch.linalg.vector_norm(second)])
    first, second = first / lengths[0], second / lengths[1]
    apart, together = torch.linalg.vector_norm(first - second), torch.linalg.vector_norm(first + second)
    angle = float(2 * torch.atan2(apart, together))
    return angle if math.isfinite(angle) else 0.0


@torch.no_grad()
def measure_angle(
    supernet: Supernet,
    genes: Sequence[int],
    initial: Mapping[str, Tensor],
    final: Mapping[str, Tensor],
    *,
    official: bool = False,
) -> dict[str, Any]:
    """The angle between the vectors of an architecture's weights before and after the supernet's training.

    Args:
        supernet: which says what the vectors are; `Supernet.vectors`.
        genes: of the architecture.
        initial: the supernet's state before training.
        final: its state after training, on the same device.
        official: take the beta of DARTS' dilated convolutions from their gamma, as the released code does.

    Returns:
        `radians`, 0 to pi, and the number of `entries` of the vectors: 0 where no path carries anything, whose angle
        is 0.
    """
    first, second = (supernet.vectors(genes, state, official_quirks=official) for state in (initial, final))
    return {"radians": angle_between(first, second) if first.numel() else 0.0, "entries": first.numel()}
