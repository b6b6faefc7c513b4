"""The usual ways, in plain torch, that the operators are timed against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def deformable_attention(
    value: Tensor, shapes: Sequence[tuple[int, int]], reference: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """`grid_sample` level by level, stacked, weighted, summed; as (B, Q, M*D)."""
    B, _, M, D = value.shape
    Q, L, P = offsets.shape[1], offsets.shape[3], offsets.shape[4]
    sizes = offsets.new_tensor([(width, height) for height, width in shapes])
    places = reference[:, :, None, :, None] + offsets / sizes[:, None]
    weights = logits.softmax(dim=-1).view(B, Q, M, 1, L * P)
    grids = (2 * places - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # (L, B*M, Q, P, 2)
    sampled = []
    parts = torch.split(value, [height * width for height, width in shapes], dim=1)
    for (height, width), grid, part in zip(shapes, grids, parts, strict=True):
        maps = part.permute(0, 2, 3, 1).reshape(B * M, D, height, width)
        sampled.append(F.grid_sample(maps, grid.to(maps.dtype), padding_mode="zeros", align_corners=False))
    together = torch.cat(sampled, dim=-1)  # (B*M, D, Q, L*P)
    summed = (together * weights.permute(0, 2, 3, 1, 4).reshape(B * M, 1, Q, L * P)).sum(dim=-1)
    return summed.view(B, M * D, Q).transpose(1, 2)


def high_pass_in_time(clip: Tensor, cutoff: float) -> Tensor:
    """(B, C, T, H, W): `rfft` along time, the low harmonics to zero, `irfft`."""
    passes = torch.fft.rfftfreq(clip.shape[2], device=clip.device) >= cutoff
    spectrum = torch.fft.rfft(clip, dim=2) * passes[:, None, None]
    filtered: Tensor = torch.fft.irfft(spectrum, n=clip.shape[2], dim=2)
    return filtered


def high_pass_in_space(clip: Tensor, cutoff: float) -> Tensor:
    """(B, C, T, H, W): `rfft2` of every frame, the box of low harmonics to zero, `irfft2`."""
    height, width = clip.shape[-2:]
    low_rows = torch.fft.fftfreq(height, device=clip.device).abs() < cutoff
    low_columns = torch.fft.rfftfreq(width, device=clip.device) < cutoff
    passes = ~(low_rows[:, None] & low_columns)
    filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(clip) * passes, s=(height, width))
    return filtered


def mask_tokens(x: Tensor, keep: int) -> Tensor:
    """(B, N, C) -> (B, K, C): `rand`, `argsort`, `gather` (MAE, arXiv 2111.06377)."""
    chosen = torch.rand(x.shape[:2], device=x.device).argsort(dim=1)[:, :keep]
    return x.gather(1, chosen[:, :, None].expand(-1, -1, x.shape[2]))


def embed_and_mask_tokens(x: Tensor, pos: Tensor, token: Tensor, keep: int) -> Tensor:
    """(B, N, C) -> (B, 1 + K, C): positions added to all, then `mask_tokens`, then `cat` with the class token."""
    return torch.cat((token.expand(len(x), 1, -1), mask_tokens(x + pos, keep)), dim=1)


def mask_patches(image: Tensor, patch: int, keep: int) -> Tensor:
    """(B, C, H, W): a random mask of patches, interpolated to the pixels, multiplied."""
    batch, _, height, width = image.shape
    rows, columns = height // patch, width // patch
    chosen = torch.rand(batch, rows * columns, device=image.device).argsort(dim=1)[:, :keep]
    mask = torch.zeros(batch, rows * columns, device=image.device, dtype=image.dtype).scatter_(1, chosen, 1.0)
    return image * F.interpolate(mask.view(batch, 1, rows, columns), scale_factor=patch, mode="nearest")


def keep_patches(image: Tensor, patch: int, keep: int) -> Tensor:
    """(B, K, C*p*p): every patch laid out by a permutation, then `mask_tokens`."""
    batch, channels, height, width = image.shape
    grid = image.view(batch, channels, height // patch, patch, width // patch, patch).permute(0, 2, 4, 1, 3, 5)
    return mask_tokens(grid.reshape(batch, -1, channels * patch * patch), keep)
