"""The masking kernels in Triton.

All are one read and one write of what is kept. Where a kernel must know which kept token lies at a place it reads a
small map `places` (B, N) int32, the position in `keep` or -1, made first; so everything is gathered and nothing is
scattered or added atomically, and results repeat bit for bit.

Patches are tiled as (rows of pixels, patches, pixels of a patch), so that the compiler sees that all pixels of a patch
share one decision, and joins their loads.
"""

import triton
import triton.language as tl
from triton.language.random import philox_impl


@triton.jit(do_not_specialize=["seed_low", "seed_high", "step_low", "step_high"])
def random_keep_kernel(kept, tokens, keep, seed_low, seed_high, step_low, step_high, BLOCK: tl.constexpr):
    """One sample: its K tokens with the smallest (key, token), ascending, into `kept` (B, K)."""
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
def write_places_kernel(keep, places, count, kept, tokens, BLOCK: tl.constexpr):
    """Where in `keep` each token stands, into `places` (B, N); what is not kept stays as it was."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    token = tl.load(keep + entry, mask=entry < count, other=-1)
    valid = (token >= 0) & (token < tokens)
    tl.store(places + entry // kept * tokens + token, (entry % kept).to(tl.int32), mask=valid)


@triton.jit
def keep_tokens_kernel(
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
    """A tile of the rows of the result (B, P + K, C): the prefix, then the kept rows with their positions."""
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
def keep_tokens_backward_kernel(
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
    """A tile of tokens in one part of the samples: their gradients, and the part's sum for the positions."""
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
def keep_patches_kernel(
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
    """Lines of one kept patch, from the image (B, C, H, W) into `patches` (B, K, C * height * width)."""
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
def compose_patches_kernel(
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
    """Lines of an image: its kept patches from `kept_from` (an image, or patches), the others from `other`."""
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
def fill_gradient_kernel(
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
    """The sum, over one part of a sample's patches, of the gradient where they are not kept."""
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
