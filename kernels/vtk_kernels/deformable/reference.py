"""Multi-scale deformable attention in plain torch: the definition that the other backends are measured against.

Deformable DETR, arXiv 2010.04159, eq. 3. Level l of `value` is a map of H_l x W_l cells; the location (x, y) in [0, 1]
of it has the pixel coordinates u = x * W_l - 0.5, v = y * H_l - 0.5, so that cell (i, j) is centred at u = j, v = i. A
sample counts where -1 < u < W_l and -1 < v < H_l; elsewhere, and where its location is NaN or infinite, it is skipped:
it adds 0 and its gradients are 0. Corners of a counted sample that lie outside the map are 0.

Every tensor here is float64, or float32 with `value` and `grad` of any floating type; sums are in the wider type.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = list[tuple[int, int]]
OUTSIDE = -2.0
"""A location far enough outside every map."""


def sample_levels(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """`grid_sample` of every level, summed with weights.

    Args:
        value: (B, S, M, D).
        shapes: L pairs (H, W), sum of H * W = S.
        locations: (B, Q, M, L, P, 2) as (x, y).
        weights: (B, Q, M, L, P).

    Returns:
        (B, Q, M*D) in the type of `value`.
    """
    B, _, M, D = value.shape
    Q, P = locations.shape[1], locations.shape[4]
    counted = inside(locations, shapes)
    grids = torch.where(counted[..., None], locations, OUTSIDE) * 2 - 1
    weights = torch.where(counted, weights, 0)
    out = locations.new_zeros(B * M, D, Q)
    for level, (cells, (H, W)) in enumerate(zip(_levels(value.to(locations.dtype), shapes), shapes, strict=True)):
        maps = cells.permute(0, 2, 3, 1).reshape(B * M, D, H, W)
        grid = grids[:, :, :, level].transpose(1, 2).reshape(B * M, Q, P, 2)
        sampled = F.grid_sample(
            maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )  # (B*M, D, Q, P)
        out = out + (sampled * weights[:, :, :, level].transpose(1, 2).reshape(B * M, 1, Q, P)).sum(-1)
    return out.reshape(B, M * D, Q).transpose(1, 2).contiguous().to(value.dtype)


def sample_levels_backward(
    grad: Tensor, value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor, deterministic: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `sample_levels`: to value (type of `locations`), locations and weights.

    With G the gradient of the output, w the weight, a and c the fractions of u and v, V_rc the corner in row r, column
    c, and s_rc its share: dw = <G, sum s_rc V_rc>, dV_rc += w s_rc G, dx = W w <G, (1-c)(V01-V00) + c(V11-V10)>, dy
    likewise. `deterministic` asks torch for an order of the sums that does not change from run to run.
    """
    B, S, M, D = value.shape
    G = grad.to(locations.dtype).reshape(B, locations.shape[1], M, 1, D)  # one row for all P samples
    rows = value.to(locations.dtype).transpose(1, 2).reshape(B * M * S, D)
    grad_rows = torch.zeros_like(rows)
    grad_locations, grad_weights = torch.zeros_like(locations), torch.zeros_like(weights)
    first_row = torch.arange(B * M, device=value.device).reshape(B, 1, M, 1) * S
    counted = inside(locations, shapes)
    start = 0
    for level, (H, W) in enumerate(shapes):
        size = locations.new_tensor((W, H))
        pixel = torch.where(counted[:, :, :, level, :, None], locations[:, :, :, level] * size - 0.5, OUTSIDE)
        corner = pixel.floor()
        (a, c), (u0, v0) = (pixel - corner).unbind(-1), corner.long().unbind(-1)
        weight = torch.where(counted[:, :, :, level], weights[:, :, :, level], 0)
        dw, da, dc = torch.zeros_like(a), torch.zeros_like(a), torch.zeros_like(a)
        for row, col in ((0, 0), (0, 1), (1, 0), (1, 1)):
            along_u, along_v = (a if col else 1 - a), (c if row else 1 - c)
            i, j = v0 + row, u0 + col
            there = (i >= 0) & (i < H) & (j >= 0) & (j < W)
            index = first_row + start + (i * W + j).where(there, 0)  # a corner outside reads cell 0 and is set to 0
            dot = (G * torch.where(there[..., None], rows[index], 0)).sum(-1)
            dw += along_u * along_v * dot
            da += (1 if col else -1) * along_v * dot
            dc += (1 if row else -1) * along_u * dot
            share = (weight * along_u * along_v).where(there, 0)[..., None] * G
            with _fixed_order(deterministic):
                grad_rows.index_add_(0, index.flatten(), share.reshape(-1, D))
        grad_weights[:, :, :, level] = dw.where(counted[:, :, :, level], 0)
        change = torch.stack((weight * da, weight * dc), -1) * size
        grad_locations[:, :, :, level] = change.where(counted[:, :, :, level, :, None], 0)
        start += H * W
    return grad_rows.reshape(B, M, S, D).transpose(1, 2).contiguous(), grad_locations, grad_weights


def deformable_attention(value: Tensor, shapes: Shapes, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    """`sample_levels` at `locations(reference, offsets)` with the softmax of `logits` over all L * P samples.

    Args:
        value: (B, S, M, D).
        shapes: L pairs (H, W).
        reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes.
        offsets: (B, Q, M, L, P, 2).
        logits: (B, Q, M, L*P).
    """
    counted = inside(locations(reference.detach(), shapes, offsets.detach()), shapes)[..., None]
    # A skipped sample must not carry a NaN or an infinity into the gradients of the others (0 * inf): it is replaced.
    spread = reference[:, :, None, :, None].expand(*offsets.shape[:-1], reference.shape[-1])
    where = _locate(torch.where(counted, spread, 0), shapes, torch.where(counted, offsets, 0))
    weights = logits.softmax(-1).reshape(offsets.shape[:-1])
    return sample_levels(value, shapes, torch.where(counted, where, OUTSIDE), weights)


def deformable_attention_backward(
    grad: Tensor,
    value: Tensor,
    shapes: Shapes,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `deformable_attention`: to value, reference, offsets and logits."""
    weights = logits.softmax(-1).reshape(offsets.shape[:-1])
    where = locations(reference, shapes, offsets)
    grad_value, at, grad_weights = sample_levels_backward(grad, value, shapes, where, weights, deterministic)
    total = (weights * grad_weights).sum((-2, -1), keepdim=True)
    grad_logits = (weights * (grad_weights - total)).reshape(logits.shape)
    counted = inside(where, shapes)[..., None]
    if reference.shape[-1] == 2:
        grad_offsets = at / _sizes(shapes, at)
        grad_reference = at
    else:
        half = 0.5 / offsets.shape[4]
        grad_offsets = at * reference[:, :, None, :, None, 2:] * half
        grad_reference = torch.cat((at, (at * offsets * half)), -1)
    grad_offsets, grad_reference = grad_offsets.where(counted, 0), grad_reference.where(counted, 0)
    return grad_value, grad_reference.sum((2, 4)), grad_offsets, grad_logits


def locations(reference: Tensor, shapes: Shapes, offsets: Tensor) -> Tensor:
    """Where the samples are, (B, Q, M, L, P, 2) in [0, 1] of each level.

    A point p moves by an offset in cells, p + offset / (W, H); a box by an offset in P-ths of its half size,
    centre + offset / P * size / 2.
    """
    return _locate(reference[:, :, None, :, None], shapes, offsets)


def inside(locations: Tensor, shapes: Shapes) -> Tensor:
    """Which samples are counted, (B, Q, M, L, P) bool; NaN and infinity are not."""
    sizes = _sizes(shapes, locations)
    pixel = locations * sizes - 0.5
    return ((pixel > -1) & (pixel < sizes)).all(-1)


def _locate(reference: Tensor, shapes: Shapes, offsets: Tensor) -> Tensor:
    if reference.shape[-1] == 2:
        return reference + offsets / _sizes(shapes, offsets)
    return reference[..., :2] + offsets / offsets.shape[4] * reference[..., 2:] * 0.5


def _sizes(shapes: Shapes, like: Tensor) -> Tensor:
    """(L, 1, 2) as (W, H)."""
    return like.new_tensor([(W, H) for H, W in shapes])[:, None]


@contextmanager
def _fixed_order(wanted: bool) -> Iterator[None]:
    before, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(before or wanted, warn_only=warn_only)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


def _levels(value: Tensor, shapes: Shapes) -> list[Tensor]:
    return list(torch.split_with_sizes(value, [H * W for H, W in shapes], dim=1))
