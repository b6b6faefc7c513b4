"""The masking operators in Triton.

All are one read and one write of what is kept. Where a kernel must know which kept token lies at a place it reads a
small map `places` (B, N) int32, the position in `keep` or -1, made first; so everything is gathered and nothing is
scattered or added atomically, and results repeat bit for bit. A token out of range cannot be refused without waiting
for the GPU: it reads as NaN (0 in uint8), and its gradient is dropped.

Patches are tiled as (rows of pixels, patches, pixels of a patch), so that the compiler sees that all pixels of a patch
share one decision, and joins their loads.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.random import philox_impl

from vtk_kernels.masking.reference import accumulator

MOST_TOKENS = 16384
"""`random_keep` holds the keys of a sample in registers; beyond this many it does not run."""
_TILE = 2048
_PART = 16
"""A sum is cut into parts of this many terms, so that there is work for the whole GPU; the parts are added in order."""


def random_keep(batch: int, tokens: int, keep: int, seed: int, step: int, device: torch.device) -> Tensor:
    """See `reference.random_keep`."""
    if tokens > MOST_TOKENS:
        raise ValueError(f"tokens: the Triton kernel takes at most {MOST_TOKENS}, got {tokens}")
    kept = torch.empty(batch, keep, dtype=torch.int64, device=device)
    if kept.numel():
        block = triton.next_power_of_2(tokens)
        words = (_signed(seed), _signed(seed >> 32), _signed(step), _signed(step >> 32))
        _random_keep[(batch,)](kept, tokens, keep, *words, BLOCK=block, num_warps=max(1, min(8, block // 256)))
    return kept


def keep_tokens(x: Tensor, keep: Tensor, pos: Tensor | None, prefix: Tensor | None, out: torch.dtype) -> Tensor:
    """See `reference.keep_tokens`."""
    batch, tokens, channels = x.shape
    before = 0 if prefix is None else prefix.shape[1]
    rows = x.new_empty(batch, before + keep.shape[1], channels, dtype=out)
    if rows.numel():
        tile_rows, tile = _row_tile(channels)
        count = rows.shape[0] * rows.shape[1]
        _keep_tokens[(triton.cdiv(count, tile_rows), triton.cdiv(channels, tile))](
            x.contiguous(),
            keep.contiguous(),
            x if pos is None else pos.contiguous(),
            x if prefix is None else prefix.contiguous(),
            rows,
            count,
            tokens,
            keep.shape[1],
            before,
            channels,
            0 if prefix is None or len(prefix) == 1 else before * channels,
            HAS_POS=pos is not None,
            HAS_PREFIX=before > 0,
            WIDE=out == torch.float64,
            ROWS=tile_rows,
            TILE=tile,
        )
    return rows


def keep_tokens_backward(
    grad: Tensor, keep: Tensor, tokens: int, dtype: torch.dtype, need_x: bool, need_pos: bool
) -> tuple[Tensor, Tensor]:
    """See `reference.keep_tokens_backward`."""
    batch, rows, channels = grad.shape
    grad = grad.contiguous()
    grad_x = grad.new_empty((batch, tokens, channels) if need_x else 0, dtype=dtype)
    part = _PART if need_pos else 1
    parts = triton.cdiv(batch, part)
    sums = grad.new_empty((parts, tokens, channels) if need_pos else 0, dtype=accumulator(grad.dtype))
    if batch * tokens * channels:
        tile_rows, tile = _row_tile(channels)
        _keep_tokens_backward[(triton.cdiv(tokens, tile_rows), triton.cdiv(channels, tile), parts)](
            grad,
            _places(keep, tokens),
            grad_x,
            sums,
            batch,
            tokens,
            keep.shape[1],
            rows - keep.shape[1],
            channels,
            PART=part,
            NEED_X=need_x,
            NEED_POS=need_pos,
            WIDE=grad.dtype == torch.float64,
            ROWS=tile_rows,
            TILE=tile,
        )
    return grad_x, sums.sum(dim=0) if need_pos else sums


def keep_patches(image: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    """See `reference.keep_patches`."""
    batch, channels, whole_height, whole_width = image.shape
    patches = image.new_empty(batch, keep.shape[1], channels * height * width)
    if patches.numel():
        lines, wide = _patch_tile(width)
        _keep_patches[(batch * keep.shape[1], triton.cdiv(channels * height, lines), triton.cdiv(width, wide))](
            image.contiguous(),
            keep.contiguous(),
            patches,
            keep.shape[1],
            channels * height,
            whole_height,
            whole_width,
            HEIGHT=height,
            WIDTH=width,
            FLOATING=image.is_floating_point(),
            LINES=lines,
            WIDE=wide,
        )
    return patches


def place_patches(
    patches: Tensor, keep: Tensor, channels: int, rows: int, columns: int, height: int, width: int
) -> Tensor:
    """See `reference.place_patches`."""
    image = patches.new_empty(len(patches), channels, rows * height, columns * width)
    _compose(image, patches.contiguous(), patches, keep, height, width, from_patches=True)
    return image


def mask_patches(image: Tensor, keep: Tensor, fill: Tensor) -> Tensor:
    """See `reference.mask_patches`."""
    _, height, width = fill.shape
    masked = torch.empty_like(image, memory_format=torch.contiguous_format)
    _compose(masked, image.contiguous(), fill.contiguous(), keep, height, width, from_patches=False)
    return masked


def fill_gradient(grad: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    """See `reference.fill_gradient`."""
    batch, channels, whole_height, whole_width = grad.shape
    columns = whole_width // width
    tokens = whole_height // height * columns
    parts = triton.cdiv(tokens, _PART)
    sums = grad.new_zeros(batch * parts, channels, height, width, dtype=accumulator(grad.dtype))
    if grad.numel():
        count = channels * height * width
        _fill_gradient[(batch, triton.cdiv(count, 256), parts)](
            grad.contiguous(),
            _places(keep, tokens),
            sums,
            tokens,
            columns,
            count,
            whole_height,
            whole_width,
            HEIGHT=height,
            WIDTH=width,
            PART=_PART,
            BLOCK=256,
        )
    return sums.sum(dim=0)


def _compose(
    image: Tensor, kept: Tensor, other: Tensor, keep: Tensor, height: int, width: int, *, from_patches: bool
) -> None:
    """Write `image`: kept patches from `kept` (an image, or patches), the rest from `other` (a fill), or zero."""
    batch, channels, whole_height, whole_width = image.shape
    if not image.numel():
        return
    columns = whole_width // width
    lines, wide = 8, triton.next_power_of_2(width)
    some = max(1, min(triton.next_power_of_2(columns), _TILE // (lines * wide)))
    count = batch * channels * whole_height
    _compose_patches[(triton.cdiv(count, lines), triton.cdiv(columns, some))](
        kept,
        other,
        _places(keep, whole_height // height * columns),
        image,
        count,
        channels,
        whole_height,
        columns,
        keep.shape[1],
        HEIGHT=height,
        WIDTH=width,
        FROM_PATCHES=from_patches,
        LINES=lines,
        SOME=some,
        WIDE=wide,
    )


def _places(keep: Tensor, tokens: int) -> Tensor:
    """(B, N) int32: where in `keep` each token stands; -1 for those not kept."""
    places = torch.full((len(keep), tokens), -1, dtype=torch.int32, device=keep.device)
    if keep.numel():
        _write_places[(triton.cdiv(keep.numel(), 256),)](
            keep.contiguous(), places, keep.numel(), keep.shape[1], tokens, BLOCK=256
        )
    return places


def _row_tile(channels: int) -> tuple[int, int]:
    """(rows, channels) of a tile: no wider than a row, at most 1,024, and wasteful only for narrow odd rows."""
    tile = min(1024, triton.next_power_of_2(channels))
    while tile > 128 and channels % tile:
        tile //= 2
    return max(1, _TILE // tile), tile


def _patch_tile(width: int) -> tuple[int, int]:
    wide = min(256, triton.next_power_of_2(width))
    return max(1, 1024 // wide), wide


def _signed(word: int) -> int:
    """The low 32 bits as a signed number: always an i32 argument, whatever its value."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >> 31 else word


@triton.jit(do_not_specialize=["seed_low", "seed_high", "step_low", "step_high"])
def _random_keep(kept, tokens, keep, seed_low, seed_high, step_low, step_high, BLOCK: tl.constexpr):
    sample = tl.program_id(0)
    token = tl.arange(0, BLOCK)
    zero = tl.zeros([BLOCK], dtype=tl.uint32)
    key, _, _, _ = philox_impl(
        token.to(tl.uint32),
        zero + sample.to(tl.uint32),
        zero + step_low.to(tl.uint32, bitcast=True),
        zero + step_high.to(tl.uint32, bitcast=True),
        zero + seed_low.to(tl.uint32, bitcast=True),
        zero + seed_high.to(tl.uint32, bitcast=True),
        10,
    )
    real = token < tokens
    # The K-th smallest key is the largest number that fewer than K keys are below: found bit by bit from the top.
    threshold = tl.full([], 0, dtype=tl.uint32)
    for bit in tl.static_range(32):
        candidate = threshold | (1 << (31 - bit))
        below = tl.sum((real & (key < candidate)).to(tl.int32), axis=0)
        threshold = tl.where(below < keep, candidate, threshold)
    below = real & (key < threshold)
    equal = real & (key == threshold)
    missing = keep - tl.sum(below.to(tl.int32), axis=0)
    chosen = below | (equal & (tl.cumsum(equal.to(tl.int32), axis=0) <= missing))
    position = tl.cumsum(chosen.to(tl.int32), axis=0) - 1
    tl.store(kept + sample.to(tl.int64) * keep + position, token.to(tl.int64), mask=chosen)


@triton.jit
def _write_places(keep, places, count, kept, tokens, BLOCK: tl.constexpr):
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    token = tl.load(keep + entry, mask=entry < count, other=-1)
    valid = (token >= 0) & (token < tokens)
    tl.store(places + entry // kept * tokens + token, (entry % kept).to(tl.int32), mask=valid)


@triton.jit
def _keep_tokens(
    x,
    keep,
    pos,
    prefix,
    out,
    count,
    tokens,
    kept,
    before,
    channels,
    prefix_stride,
    HAS_POS: tl.constexpr,
    HAS_PREFIX: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    sum_type: tl.constexpr = tl.float64 if WIDE else tl.float32
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * TILE + tl.arange(0, TILE)
    sample = row // (before + kept)
    position = row % (before + kept) - before
    token = tl.load(keep + sample * kept + position, mask=(row < count) & (position >= 0), other=-1)
    there = ((token >= 0) & (token < tokens))[:, None] & (channel < channels)[None, :]
    value = tl.load(
        x + (sample * tokens + token)[:, None] * channels + channel[None, :], mask=there, other=float("nan")
    )
    value = value.to(sum_type)
    if HAS_POS:
        value += tl.load(pos + token[:, None] * channels + channel[None, :], mask=there, other=0).to(sum_type)
    written = (row < count)[:, None] & (channel < channels)[None, :]
    if HAS_PREFIX:
        first = (position < 0)[:, None]
        start = sample * prefix_stride + (position + before) * channels
        head = tl.load(prefix + start[:, None] + channel[None, :], mask=written & first, other=0)
        value = tl.where(first, head.to(sum_type), value)
    tl.store(out + row[:, None] * channels + channel[None, :], value.to(out.dtype.element_ty), mask=written)


@triton.jit
def _keep_tokens_backward(
    grad,
    places,
    grad_x,
    sums,
    batch,
    tokens,
    kept,
    before,
    channels,
    PART: tl.constexpr,
    NEED_X: tl.constexpr,
    NEED_POS: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    sum_type: tl.constexpr = tl.float64 if WIDE else tl.float32
    token = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * TILE + tl.arange(0, TILE)
    part = tl.program_id(2).to(tl.int64)
    inside = (token < tokens)[:, None] & (channel < channels)[None, :]
    total = tl.zeros([ROWS, TILE], dtype=sum_type)
    for step in range(PART):
        sample = part * PART + step
        end = tl.where(sample < batch, tokens, 0)
        place = tl.load(places + sample * tokens + token, mask=token < end, other=-1)
        row = sample * (before + kept) + before + place
        value = tl.load(grad + row[:, None] * channels + channel[None, :], mask=inside & (place >= 0)[:, None], other=0)
        if NEED_X:
            tl.store(
                grad_x + (sample * tokens + token)[:, None] * channels + channel[None, :],
                value.to(grad_x.dtype.element_ty),
                mask=(token < end)[:, None] & (channel < channels)[None, :],
            )
        if NEED_POS:
            total += value.to(sum_type)
    if NEED_POS:
        tl.store(sums + (part * tokens + token)[:, None] * channels + channel[None, :], total, mask=inside)


@triton.jit
def _keep_patches(
    image,
    keep,
    patches,
    kept,
    lines,
    whole_height,
    whole_width,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    FLOATING: tl.constexpr,
    LINES: tl.constexpr,
    WIDE: tl.constexpr,
):
    patch = tl.program_id(0).to(tl.int64)
    line = tl.program_id(1) * LINES + tl.arange(0, LINES)  # channel * HEIGHT + row
    column = tl.program_id(2) * WIDE + tl.arange(0, WIDE)
    columns = whole_width // WIDTH
    token = tl.load(keep + patch)
    there = (token >= 0) & (token < whole_height // HEIGHT * columns)
    channels = lines // HEIGHT
    y = (patch // kept * channels + line // HEIGHT) * whole_height + token // columns * HEIGHT + line % HEIGHT
    inside = (line < lines)[:, None] & (column < WIDTH)[None, :]
    read = (line < tl.where(there, lines, 0))[:, None] & (column < WIDTH)[None, :]
    source = image + y[:, None] * whole_width + token % columns * WIDTH + column[None, :]
    value = tl.load(source, mask=read, other=float("nan") if FLOATING else 0)
    tl.store(patches + (patch * lines + line)[:, None] * WIDTH + column[None, :], value, mask=inside)


@triton.jit
def _compose_patches(
    kept_from,
    other,
    places,
    image,
    count,
    channels,
    whole_height,
    columns,
    kept,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    FROM_PATCHES: tl.constexpr,
    LINES: tl.constexpr,
    SOME: tl.constexpr,
    WIDE: tl.constexpr,
):
    line = tl.program_id(0).to(tl.int64) * LINES + tl.arange(0, LINES)  # (sample * channels + channel) * height + y
    across = tl.program_id(1) * SOME + tl.arange(0, SOME)
    column = tl.arange(0, WIDE)
    y = line % whole_height
    channel = line // whole_height % channels
    sample = line // whole_height // channels
    tokens = whole_height // HEIGHT * columns
    real = (line < count)[:, None] & (across < columns)[None, :]
    entry = (sample * tokens + y // HEIGHT * columns)[:, None] + across[None, :]
    place = tl.load(places + entry, mask=real, other=-1)
    is_kept = tl.broadcast_to((place >= 0)[:, :, None], LINES, SOME, WIDE)
    inside = tl.broadcast_to(real[:, :, None], LINES, SOME, WIDE) & (column < WIDTH)[None, None, :]
    pixel = (line * columns)[:, None] * WIDTH + across[None, :] * WIDTH
    in_patch = channel * HEIGHT + y % HEIGHT
    if FROM_PATCHES:
        start = ((sample * kept)[:, None] + place) * (channels * HEIGHT) + in_patch[:, None]
        value = tl.load(kept_from + start[:, :, None] * WIDTH + column[None, None, :], mask=inside & is_kept, other=0)
    else:
        value = tl.load(kept_from + pixel[:, :, None] + column[None, None, :], mask=inside & is_kept, other=0)
        start = in_patch[:, None] * WIDTH + tl.zeros([LINES, SOME], dtype=tl.int64)
        filled = tl.load(other + start[:, :, None] + column[None, None, :], mask=inside & (is_kept == 0), other=0)
        value = tl.where(is_kept, value, filled)
    tl.store(image + pixel[:, :, None] + column[None, None, :], value, mask=inside)


@triton.jit
def _fill_gradient(
    grad,
    places,
    sums,
    tokens,
    columns,
    count,
    whole_height,
    whole_width,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    PART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    entry = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # (channel * HEIGHT + row) * WIDTH + column
    channel, row, column = entry // (HEIGHT * WIDTH), entry // WIDTH % HEIGHT, entry % WIDTH
    channels = count // (HEIGHT * WIDTH)
    start = (sample * channels + channel) * whole_height * whole_width + row * whole_width + column
    total = tl.zeros([BLOCK], dtype=sums.dtype.element_ty)
    for step in range(PART):
        token = tl.program_id(2) * PART + step
        place = tl.load(places + sample * tokens + token, mask=token < tokens, other=0)
        corner = token // columns * HEIGHT * whole_width + token % columns * WIDTH
        value = tl.load(grad + start + corner, mask=entry < tl.where(place < 0, count, 0), other=0)
        total += value.to(sums.dtype.element_ty)
    written = sums + (sample * tl.num_programs(2) + tl.program_id(2)) * count + entry
    tl.store(written, total, mask=entry < count)
