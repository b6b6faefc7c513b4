"""Random masking of patch tokens (MAE, arXiv 2111.06377), fused: draw the kept set, gather it, add positions.

Shapes: B samples, N tokens (or patches of the grid, row by row), K of them kept, C channels, P prefix tokens. `keep` is
always (B, K) int64, distinct tokens of [0, N) in each sample. On the CPU another set is a ValueError; on a GPU, which
cannot be asked without waiting for it, a token out of range reads as NaN, and a token named twice gets one gradient.

Everything here repeats bit for bit, also the gradients: no sum depends on the number of threads or on an atomic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vtk_kernels.masking import library


def random_keep(
    batch: int, tokens: int, keep: int, *, seed: int, step: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw which `keep` of `tokens` each sample keeps: every subset equally likely, samples independent.

    Nothing is remembered between calls. Token i of sample b has as key the first word of Philox4x32-10 (Salmon et al.,
    SC 2011) at counter (i, b, step mod 2**32, step >> 32) under the 64-bit `seed`; the `keep` smallest (key, i) stay.
    So the same (seed, step) gives the same subsets on every backend and device, and resuming at a step needs no state.

    Args:
        batch: B, from 0 to 2**31 - 1.
        tokens: N, from 1 to 2**31 - 1 (on a GPU more than 16,384 are drawn by the torch reference).
        keep: K, from 1 to N.
        seed: from 0 to 2**64 - 1.
        step: from 0 to 2**64 - 1; the training step, for instance.
        device: where the result is wanted.

    Returns:
        (B, K) int64, ascending in each sample.

    Raises:
        ValueError: a number is out of its range.
    """
    _expect(0 <= batch < 1 << 31, "batch", "0 to 2**31 - 1", batch)
    _expect(0 < tokens < 1 << 31, "tokens", "1 to 2**31 - 1", tokens)
    _expect(0 < keep <= tokens, "keep", f"1 to tokens = {tokens}", keep)
    _expect(0 <= seed < 1 << 64, "seed", "0 to 2**64 - 1", seed)
    _expect(0 <= step < 1 << 64, "step", "0 to 2**64 - 1", step)
    words = (library.as_int64(seed), library.as_int64(step))
    kept: Tensor = library.random_keep(batch, tokens, keep, *words, torch.device(device))
    return kept


def keep_tokens(x: Tensor, keep: Tensor, pos: Tensor | None = None, prefix: Tensor | None = None) -> Tensor:
    """The kept tokens with their position embedding, behind the prefix: `cat(prefix, x[keep] + pos[keep])`.

    Differentiable in x (zero where not kept), pos (summed over samples in float32, float64 for float64) and prefix.

    Args:
        x: (B, N, C), floating.
        keep: (B, K) int64, distinct tokens in each sample; K may be 0.
        pos: (N, C) or (1, N, C), floating; None adds nothing.
        prefix: (P, C) or (B, P, C), floating, e.g. class and register tokens; it gets no position.

    Returns:
        (B, P + K, C), of the type that torch promotes x, pos and prefix to; the sum is rounded once, to that type.

    Raises:
        ValueError: a shape, type or device is wrong, or (on the CPU) `keep` names a token out of range or twice.
    """
    _expect(x.ndim == 3 and x.is_floating_point(), "x", "floating (B, N, C)", x)
    batch, tokens, channels = x.shape
    _check_keep(keep, batch, tokens, x.device)
    if pos is not None:
        shaped = pos.shape[-2:] == (tokens, channels) and (pos.ndim == 2 or (pos.ndim == 3 and pos.shape[0] == 1))
        expected = f"floating ({tokens}, {channels}) or (1, {tokens}, {channels}) on {x.device}"
        _expect(shaped and pos.is_floating_point() and pos.device == x.device, "pos", expected, pos)
        pos = pos.reshape(tokens, channels)
    if prefix is not None:
        shaped = prefix.ndim in {2, 3} and prefix.shape[-1] == channels
        shaped = shaped and (prefix.ndim == 2 or prefix.shape[0] == batch)
        expected = f"floating (P, {channels}) or ({batch}, P, {channels}) on {x.device}"
        _expect(shaped and prefix.is_floating_point() and prefix.device == x.device, "prefix", expected, prefix)
        prefix = prefix[None] if prefix.ndim == 2 else prefix
    rows: Tensor = library.keep_tokens(x, keep, pos, prefix)
    return rows


def keep_patches(image: Tensor, keep: Tensor, patch: int | tuple[int, int]) -> Tensor:
    """The kept patches straight from the pixels, so that the patch embedding is a matrix product of K rows, not N.

    `keep_patches(image, keep, p) @ conv.weight.flatten(1).T + conv.bias` is the patch embedding of the kept patches.

    Args:
        image: (B, C, H, W), floating or uint8; H and W are multiples of the patch.
        keep: (B, K) int64, distinct patches in each sample; patch n is row n // (W / width), column n % (W / width).
        patch: side in pixels, or (height, width).

    Returns:
        (B, K, C * height * width), each patch in the order (channel, row, column). Differentiable in `image`.

    Raises:
        ValueError: a shape, type or device is wrong, or (on the CPU) `keep` names a patch out of range or twice.
    """
    height, width = _check_patches(image, keep, patch)
    patches: Tensor = library.keep_patches(image, keep, height, width)
    return patches


def mask_patches(
    image: Tensor, keep: Tensor, patch: int | tuple[int, int], fill: float | Sequence[float] | Tensor = 0.0
) -> Tensor:
    """The image with everything outside the kept patches replaced by `fill`, in one pass: for convolutional networks.

    Args:
        image: (B, C, H, W), floating or uint8; H and W are multiples of the patch.
        keep: (B, K) int64, distinct patches in each sample, numbered as in `keep_patches`.
        patch: side in pixels, or (height, width).
        fill: a number, one a channel (C,), or a patch (C, height, width); a tensor may be learned.

    Returns:
        (B, C, H, W) of the image's type. Differentiable in `image` (zero outside) and in a `fill` that is a tensor.

    Raises:
        ValueError: a shape, type or device is wrong, or (on the CPU) `keep` names a patch out of range or twice.
    """
    height, width = _check_patches(image, keep, patch)
    channels = image.shape[1]
    if isinstance(fill, Tensor):
        shapes = ((), (channels,), (channels, height, width))
        expected = f"(), ({channels},) or ({channels}, {height}, {width}) on {image.device}"
        _expect(tuple(fill.shape) in shapes and fill.device == image.device, "fill", expected, fill)
        filled = fill
    elif isinstance(fill, Sequence):
        _expect(len(fill) == channels, "fill", f"{channels} numbers, one a channel", tuple(fill))
        filled = torch.tensor(fill, dtype=image.dtype, device=image.device)
    else:
        filled = torch.full((), fill, dtype=image.dtype, device=image.device)
    filled = filled[:, None, None] if filled.ndim == 1 else filled
    masked: Tensor = library.mask_patches(image, keep, filled.expand(channels, height, width))
    return masked


def _check_keep(keep: Tensor, batch: int, tokens: int, device: torch.device) -> None:
    shaped = keep.ndim == 2 and keep.shape[0] == batch and keep.shape[1] <= tokens
    right = shaped and keep.dtype == torch.int64 and keep.device == device
    _expect(right, "keep", f"int64 ({batch}, K) with K <= {tokens} on {device}", keep)


def _check_patches(image: Tensor, keep: Tensor, patch: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a patch, once everything fits."""
    height, width = patch if isinstance(patch, tuple) else (patch, patch)
    _expect(height > 0 and width > 0, "patch", "a positive side, or (height, width)", patch)
    known = image.is_floating_point() or image.dtype == torch.uint8
    _expect(image.ndim == 4 and known, "image", "floating or uint8 (B, C, H, W)", image)
    fits = image.shape[2] % height == 0 and image.shape[3] % width == 0
    _expect(fits, "image", f"height and width that are multiples of the patch {height} x {width}", image)
    _check_keep(keep, image.shape[0], image.shape[2] // height * (image.shape[3] // width), image.device)
    return height, width


def _expect(holds: bool, argument: str, expected: str, got: object) -> None:
    if not holds:
        shown = f"{got.dtype} {tuple(got.shape)} on {got.device}" if isinstance(got, Tensor) else got
        raise ValueError(f"{argument}: expected {expected}, got {shown}")
