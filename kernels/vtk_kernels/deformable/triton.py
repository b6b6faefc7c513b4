"""Deformable attention in Triton, in the notation of `reference.py`.

One program sums a block of rows (b, q, m) over all channels; the four corners of each sample are gathered straight from
`value`. The backward pass samples again, keeps the derivatives of the weights in registers until the softmax is
differentiated, and adds to the gradient of `value` with atomics: in floating point, or, for a result that does not
depend on the order, in 64-bit fixed point, whose sums are exact; its unit is 2**-61 of a bound on the largest sum.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vtk_kernels.deformable import fixed_point
from vtk_kernels.deformable.operators import operators

Shapes = list[tuple[int, int]]


def _forward(value: Tensor, shapes: Shapes, reference: Tensor | None, places: Tensor, scores: Tensor) -> Tensor:
    B, S, M, D = value.shape
    _, Q, _, L, P, _ = places.shape
    out = value.new_empty(B, Q, M * D)
    rows = B * Q * M
    if rows:
        block = _rows_a_program(D)
        forward_kernel[(triton.cdiv(rows, block),)](
            value, places, scores, places if reference is None else reference, out, _sides(shapes), rows, S, Q,
            M, D, L, P, COORDINATES=_coordinates(reference), ROWS=block,
            LANES=triton.next_power_of_2(D), POINTS=triton.next_power_of_2(L * P),
        )  # fmt: skip
    return out


def _backward(
    grad: Tensor,
    value: Tensor,
    shapes: Shapes,
    reference: Tensor | None,
    places: Tensor,
    scores: Tensor,
    bound: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`bound`: at least the largest sum in the gradient of `value`, when its sums are to be exact; else None."""
    B, S, M, D = value.shape
    _, Q, _, L, P, _ = places.shape
    scale = None if bound is None else fixed_point.scale(bound)
    grad_value = value.new_zeros(value.shape, dtype=places.dtype if scale is None else torch.int64)
    grad_places, grad_scores = torch.empty_like(places), torch.empty_like(scores)
    by_head = places.new_empty(B, Q, M, L, _coordinates(reference))
    rows = B * Q * M
    if rows:
        block = _rows_a_program(D)
        backward_kernel[(triton.cdiv(rows, block),)](
            grad, value, places, scores, places if reference is None else reference,
            grad_value, grad_places, grad_scores, by_head, grad_places if scale is None else scale,
            _sides(shapes), rows, S, Q, M, D, L, P, COORDINATES=_coordinates(reference), EXACT=scale is not None,
            ROWS=block, LANES=triton.next_power_of_2(D), POINTS=triton.next_power_of_2(L * P),
        )  # fmt: skip
    if bound is not None:
        grad_value = fixed_point.to_float(grad_value, bound, places.dtype)
    return grad_value, by_head, grad_places, grad_scores


def _coordinates(reference: Tensor | None) -> int:
    return 0 if reference is None else reference.shape[-1]


def _rows_a_program(D: int) -> int:
    """So many that four warps have four channels a thread: 16-byte loads of float32."""
    return max(1, 512 // int(triton.next_power_of_2(D)))


def _sides(shapes: Shapes) -> tuple[int, ...]:
    return tuple(side for shape in shapes for side in shape)


@triton.jit
def _axis(reference, bq, level: tl.constexpr, side, xy: tl.constexpr, mask, L, P, COORDINATES: tl.constexpr):
    """Origin and step of the pixels along x (0) or y (1): pixel = origin + place * step."""
    if COORDINATES == 0:
        origin = tl.full(bq.shape, -0.5, reference.dtype.element_ty)
        step = tl.full(bq.shape, 1.0, reference.dtype.element_ty) * side
    else:
        point = reference + (bq * L + level) * COORDINATES
        origin = tl.load(point + xy, mask, 0.0) * side - 0.5
        step = tl.full(bq.shape, 1.0, reference.dtype.element_ty)
        if COORDINATES == 4:
            step = tl.load(point + 2 + xy, mask, 0.0) * side * (0.5 / P)
    return origin, step


@triton.jit
def _corner(value, cell, row, col, H, W, counted, lane, stride, D):
    """The channels of one corner, (ROWS, LANES), 0 outside the map; and where they are, and whether they are there."""
    there = counted & (row >= 0) & (row < H) & (col >= 0) & (col < W)
    place = (cell + row * W + col).to(tl.int64)[:, None] * stride + lane[None, :]
    mask = there[:, None] & (lane < D)[None, :]
    return tl.load(value + place, mask, 0.0), place, mask


@triton.jit(do_not_specialize=["sides", "rows", "S", "Q"])
def forward_kernel(
    value, places, scores, reference, out, sides, rows, S, Q,
    M: tl.constexpr, D: tl.constexpr, L: tl.constexpr, P: tl.constexpr, COORDINATES: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """out[row] = sum of weight * bilinear over the samples of a block of rows (b, q, m)."""
    A: tl.constexpr = places.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    mask = row < rows
    bq = row // M
    lane, point = tl.arange(0, LANES), tl.arange(0, POINTS)
    most, total = tl.full((ROWS,), 0.0, A), tl.full((ROWS,), 1.0, A)
    if COORDINATES:
        tile = tl.load(
            scores + row[:, None] * (L * P) + point[None, :], mask[:, None] & (point < L * P)[None, :], -float("inf")
        )
        most = tl.where(mask, tl.max(tile, 1), 0.0)
        total = tl.where(mask, tl.sum(tl.exp(tile - most[:, None]), 1), 1.0)
    head = value + (row % M)[:, None] * D
    acc = tl.zeros((ROWS, LANES), A)
    start = bq // Q * S
    for level in tl.static_range(L):
        H, W = sides[2 * level], sides[2 * level + 1]
        origin_x, step_x = _axis(reference, bq, level, W, 0, mask, L, P, COORDINATES)
        origin_y, step_y = _axis(reference, bq, level, H, 1, mask, L, P, COORDINATES)
        for p in range(P):
            at = row * (L * P) + level * P + p
            u = origin_x + tl.load(places + 2 * at, mask, 0.0) * step_x
            v = origin_y + tl.load(places + 2 * at + 1, mask, 0.0) * step_y
            counted = mask & (u > -1) & (u < W) & (v > -1) & (v < H)
            u, v = tl.where(counted, u, 0.0), tl.where(counted, v, 0.0)
            weight = tl.load(scores + at, mask, 0.0)
            if COORDINATES:
                weight = tl.exp(weight - most) / total
            weight = tl.where(counted, weight, 0.0)
            left, top = tl.floor(u), tl.floor(v)
            a, c = u - left, v - top
            i, j = top.to(tl.int32), left.to(tl.int32)
            v00, _, _ = _corner(head, start, i, j, H, W, counted, lane, M * D, D)
            v01, _, _ = _corner(head, start, i, j + 1, H, W, counted, lane, M * D, D)
            v10, _, _ = _corner(head, start, i + 1, j, H, W, counted, lane, M * D, D)
            v11, _, _ = _corner(head, start, i + 1, j + 1, H, W, counted, lane, M * D, D)
            low, high = weight * c, weight * (1 - c)
            acc += (high * (1 - a))[:, None] * v00 + (high * a)[:, None] * v01
            acc += (low * (1 - a))[:, None] * v10 + (low * a)[:, None] * v11
        start += H * W
    tl.store(out + row[:, None] * D + lane[None, :], acc, mask[:, None] & (lane < D)[None, :])


@triton.jit
def _give(grad_value, place, mask, share, g, scale, EXACT: tl.constexpr):
    """Adds share * g to the gradient of one corner."""
    change = share[:, None] * g
    if EXACT:
        tl.atomic_add(grad_value + place, (change.to(tl.float64) * scale).to(tl.int64), mask, sem="relaxed")
    else:
        tl.atomic_add(grad_value + place, change, mask, sem="relaxed")


@triton.jit(do_not_specialize=["sides", "rows", "S", "Q"])
def backward_kernel(  # noqa: PLR0915 (one kernel is one function)
    grad, value, places, scores, reference, grad_value, grad_places, grad_scores, by_head, scale_place,
    sides, rows, S, Q,
    M: tl.constexpr, D: tl.constexpr, L: tl.constexpr, P: tl.constexpr, COORDINATES: tl.constexpr, EXACT: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """The gradients of a block of rows (b, q, m); those of `reference` for each head apart."""
    A: tl.constexpr = places.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    mask = row < rows
    bq = row // M
    lane, point = tl.arange(0, LANES), tl.arange(0, POINTS)
    inside = mask[:, None] & (point < L * P)[None, :]
    table = row[:, None] * (L * P) + point[None, :]
    tile = tl.zeros((ROWS, POINTS), A)
    if COORDINATES:
        tile = tl.load(scores + table, inside, -float("inf"))
        most = tl.where(mask, tl.max(tile, 1), 0.0)
        tile = tl.exp(tile - most[:, None])
        tile = tile / tl.where(mask, tl.sum(tile, 1), 1.0)[:, None]
    changes = tl.zeros((ROWS, POINTS), A)
    scale = tl.load(scale_place) if EXACT else 1.0
    g = tl.load(grad + row[:, None] * D + lane[None, :], mask[:, None] & (lane < D)[None, :], 0.0).to(A)
    head = (row % M)[:, None] * D
    start = bq // Q * S
    for level in tl.static_range(L):
        H, W = sides[2 * level], sides[2 * level + 1]
        origin_x, step_x = _axis(reference, bq, level, W, 0, mask, L, P, COORDINATES)
        origin_y, step_y = _axis(reference, bq, level, H, 1, mask, L, P, COORDINATES)
        sum_u, sum_v = tl.zeros((ROWS,), A), tl.zeros((ROWS,), A)
        size_u, size_v = tl.zeros((ROWS,), A), tl.zeros((ROWS,), A)
        for p in range(P):
            at = row * (L * P) + level * P + p
            place_x, place_y = tl.load(places + 2 * at, mask, 0.0), tl.load(places + 2 * at + 1, mask, 0.0)
            u, v = origin_x + place_x * step_x, origin_y + place_y * step_y
            counted = mask & (u > -1) & (u < W) & (v > -1) & (v < H)
            u, v = tl.where(counted, u, 0.0), tl.where(counted, v, 0.0)
            if COORDINATES:
                weight = tl.sum(tl.where(point[None, :] == level * P + p, tile, 0.0), 1)
            else:
                weight = tl.load(scores + at, mask, 0.0)
            weight = tl.where(counted, weight, 0.0)
            left, top = tl.floor(u), tl.floor(v)
            a, c = u - left, v - top
            i, j = top.to(tl.int32), left.to(tl.int32)
            v00, at00, in00 = _corner(value + head, start, i, j, H, W, counted, lane, M * D, D)
            v01, at01, in01 = _corner(value + head, start, i, j + 1, H, W, counted, lane, M * D, D)
            v10, at10, in10 = _corner(value + head, start, i + 1, j, H, W, counted, lane, M * D, D)
            v11, at11, in11 = _corner(value + head, start, i + 1, j + 1, H, W, counted, lane, M * D, D)
            low, high = weight * c, weight * (1 - c)
            _give(grad_value + head, at00, in00, high * (1 - a), g, scale, EXACT)
            _give(grad_value + head, at01, in01, high * a, g, scale, EXACT)
            _give(grad_value + head, at10, in10, low * (1 - a), g, scale, EXACT)
            _give(grad_value + head, at11, in11, low * a, g, scale, EXACT)
            d00, d01 = tl.sum(g * v00, 1), tl.sum(g * v01, 1)
            d10, d11 = tl.sum(g * v10, 1), tl.sum(g * v11, 1)
            dw = tl.where(counted, (1 - c) * ((1 - a) * d00 + a * d01) + c * ((1 - a) * d10 + a * d11), 0.0)
            du = tl.where(counted, weight * ((1 - c) * (d01 - d00) + c * (d11 - d10)), 0.0)
            dv = tl.where(counted, weight * ((1 - a) * (d10 - d00) + a * (d11 - d01)), 0.0)
            tl.store(grad_places + 2 * at, tl.where(counted, du * step_x, 0.0), mask)
            tl.store(grad_places + 2 * at + 1, tl.where(counted, dv * step_y, 0.0), mask)
            changes = tl.where(point[None, :] == level * P + p, dw[:, None], changes)
            sum_u, sum_v = sum_u + du, sum_v + dv
            size_u += tl.where(counted, du * place_x, 0.0)
            size_v += tl.where(counted, dv * place_y, 0.0)
        if COORDINATES:
            target = by_head + (row * L + level) * COORDINATES
            tl.store(target, sum_u * W, mask)
            tl.store(target + 1, sum_v * H, mask)
            if COORDINATES == 4:
                tl.store(target + 2, size_u * W * (0.5 / P), mask)
                tl.store(target + 3, size_v * H * (0.5 / P), mask)
        start += H * W
    if COORDINATES:
        changes = tile * (changes - tl.sum(tile * changes, 1)[:, None])
    tl.store(grad_scores + table, changes, inside)


sample_levels, sample_levels_backward, deformable_attention, deformable_attention_backward = operators(
    _forward, _backward
)
