"""The public functions of the frequency filter: what goes in is checked here, then one backend runs.

Both are `torch.library` operators with a fake kernel, so `torch.compile` sees one node, and the backend is chosen when
it runs. The filter is linear and its own adjoint: its gradient is the same filter of the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from vtk_kernels import dispatch
from vtk_kernels.frequency import reference
from vtk_kernels.frequency.bands import Filter, PassBand, Shape
from vtk_kernels.frequency.lowrank import LowRank, low_rank

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def frequency_filter(
    clip: Tensor,
    time: PassBand | None = None,
    space: PassBand | None = None,
    *,
    shape: Shape = "box",
    joint: bool = False,
    apply: Tensor | None = None,
) -> Tensor:
    """Keep the frequencies of a pass band along time, space or both: the ideal filters of FreqAug (arXiv 2204.03865).

    Harmonic |k| of an axis of length N has the frequency |k| / N cycles per sample; axes are periodic. `low(f)` keeps
    what is strictly below f, `high(f)` the complement, `band(f1, f2)` the difference of two lows. In space, low is the
    box |f_h| < f and |f_w| < f or, with `shape="radial"`, the disc hypot(f_h, f_w) < f; high is the complement of that.

    One read and one write of the clip, where the filter or its complement has few modes: at most 32 along each spatial
    axis and, if time is filtered, at most 128 frames (`lowrank.py`). Beyond, every backend uses `torch.fft`, as the
    reference does. float16 and bfloat16 are computed in float32.

    Args:
        clip: (B, C, T, H, W) float64, float32, bfloat16 or float16; B or C may be 0.
        time: the band of temporal frequencies that stays, made by `high`, `low` or `band`; None: all stay.
        space: the band of spatial frequencies that stays; None: all stay.
        shape: "box" or "radial", what low means in space.
        joint: with `time` and `space` of one kind, low means low along time *and* along space: `high` then keeps all
            but the static, smooth part, where two filters in a row keep only what passes both.
        apply: (B,) bool, which clips are filtered; the others are copied bit for bit. None: all are.

    Returns:
        the shape, dtype and device of `clip`, contiguous. Differentiable any number of times.

    Raises:
        ValueError: a shape, type or device does not fit, or no frequency would stay; the message names the argument.
    """
    if clip.ndim != 5 or 0 in clip.shape[2:]:
        raise ValueError(f"clip: expected (B, C, T, H, W) with T, H and W at least 1, got {tuple(clip.shape)}")
    if clip.dtype not in _FLOATS:
        also = " (for uint8 frames there is frequency_filter_frames)" if clip.dtype == torch.uint8 else ""
        raise ValueError(f"clip: expected float64, float32, bfloat16 or float16, got {clip.dtype}{also}")
    _check_filter(time, space, shape, joint)
    _check_apply(apply, clip, "clip")
    filtered: Tensor = _filter(clip, _ends(time), _ends(space), shape, joint, apply)
    return filtered


def frequency_filter_frames(
    frames: Tensor,
    time: PassBand | None = None,
    space: PassBand | None = None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    shape: Shape = "box",
    joint: bool = False,
    apply: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """`frequency_filter` of decoded frames, normalised in the same pass: the clip is (frames / 255 - mean) / std.

    Args:
        frames: (B, T, H, W, C) uint8, as decoders give them.
        time: as in `frequency_filter`; so are `space`, `shape`, `joint` and `apply`.
        space: see there.
        mean: C numbers, of values in [0, 1].
        std: C positive numbers.
        shape: see there.
        joint: see there.
        apply: clips that are not filtered are normalised all the same.
        dtype: of the result: float32, bfloat16 or float16.

    Returns:
        (B, C, T, H, W) of `dtype`, contiguous, computed in float32. Bytes have no gradient.

    Raises:
        ValueError: a shape, type or device does not fit, or no frequency would stay; the message names the argument.
    """
    if frames.ndim != 5 or 0 in frames.shape[1:4]:
        raise ValueError(f"frames: expected (B, T, H, W, C) with T, H and W at least 1, got {tuple(frames.shape)}")
    if frames.dtype != torch.uint8:
        raise ValueError(f"frames: expected uint8, got {frames.dtype}")
    for name, numbers in (("mean", mean), ("std", std)):
        if len(numbers) != frames.shape[4]:
            raise ValueError(f"{name}: expected a number for each of {frames.shape[4]} channels, got {len(numbers)}")
    if not all(deviation > 0 for deviation in std):
        raise ValueError(f"std: expected positive numbers, got {list(std)}")
    if dtype not in _FLOATS[1:]:
        raise ValueError(f"dtype: expected float32, bfloat16 or float16, got {dtype}")
    _check_filter(time, space, shape, joint)
    _check_apply(apply, frames, "frames")
    clip: Tensor = _filter_frames(frames, list(mean), list(std), _ends(time), _ends(space), shape, joint, apply, dtype)
    return clip


def _check_filter(time: PassBand | None, space: PassBand | None, shape: Shape, joint: bool) -> None:
    for name, wanted in (("time", time), ("space", space)):
        if wanted is not None and not isinstance(wanted, PassBand):
            raise ValueError(f"{name}: expected a pass band made by high, low or band, got {wanted!r}")
    if time is None and space is None:
        raise ValueError("time, space: expected at least one pass band")
    if shape not in ("box", "radial"):
        raise ValueError(f"shape: expected 'box' or 'radial', got {shape!r}")
    if joint and (time is None or space is None or _kind(time) != _kind(space)):
        raise ValueError(f"joint: expected time and space of one kind, both high, low or band, got {time} and {space}")


def _kind(wanted: PassBand) -> tuple[bool, bool]:
    return wanted.start > 0, wanted.stop < 1


def _check_apply(apply: Tensor | None, clips: Tensor, name: str) -> None:
    if apply is None:
        return
    if apply.dtype != torch.bool or apply.ndim != 1 or apply.shape[0] != clips.shape[0]:
        found = f"{apply.dtype} {tuple(apply.shape)}"
        raise ValueError(f"apply: expected bool ({clips.shape[0]},), one for each clip, got {found}")
    if apply.device != clips.device:
        raise ValueError(f"apply: expected it on {clips.device} with {name}, got {apply.device}")


def _ends(wanted: PassBand | None) -> list[float]:
    return [] if wanted is None else [wanted.start, wanted.stop]


@torch.library.custom_op("vtk_kernels::frequency_filter", mutates_args=())
def _filter(
    clip: Tensor, time: Sequence[float], space: Sequence[float], shape: str, joint: bool, apply: Tensor | None
) -> Tensor:
    clip = clip.detach().contiguous()
    sizes = (clip.shape[2], clip.shape[3], clip.shape[4])
    wanted = _wanted(tuple(time), tuple(space), shape, joint, sizes)
    backend, matrices = _backend("frequency_filter", clip, wanted, sizes)
    if matrices is None:
        return reference.frequency_filter(clip, wanted, apply)
    return backend.frequency_filter(clip, matrices, apply)  # type: ignore[no-any-return]


@_filter.register_fake
def _(
    clip: Tensor, time: Sequence[float], space: Sequence[float], shape: str, joint: bool, apply: Tensor | None
) -> Tensor:
    return clip.new_empty(clip.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *ctx.filter, apply = inputs
    ctx.save_for_backward(apply)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (apply,) = ctx.saved_tensors
    return _filter(grad, *ctx.filter, apply), None, None, None, None, None


_filter.register_autograd(_backward, setup_context=_remember)


@torch.library.custom_op("vtk_kernels::frequency_filter_frames", mutates_args=())
def _filter_frames(
    frames: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    time: Sequence[float],
    space: Sequence[float],
    shape: str,
    joint: bool,
    apply: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    sizes = (frames.shape[1], frames.shape[2], frames.shape[3])
    wanted = _wanted(tuple(time), tuple(space), shape, joint, sizes)
    backend, matrices = _backend("frequency_filter_frames", frames, wanted, sizes)
    means, deviations = (torch.tensor(list(numbers), device=frames.device) for numbers in (mean, std))
    if matrices is None:
        clip = reference.normalized(frames, means, deviations)
        return reference.frequency_filter(clip, wanted, apply).to(dtype)
    scale, shift = 1 / (255 * deviations), -means / deviations
    return backend.frequency_filter_frames(  # type: ignore[no-any-return]
        frames.contiguous(), scale, shift, dtype, matrices, apply
    )


@_filter_frames.register_fake
def _(
    frames: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    time: Sequence[float],
    space: Sequence[float],
    shape: str,
    joint: bool,
    apply: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    batch, length, height, width, channels = frames.shape
    return frames.new_empty((batch, channels, length, height, width), dtype=dtype)


@lru_cache(maxsize=256)
def _wanted(
    time: tuple[float, ...], space: tuple[float, ...], shape: Shape, joint: bool, sizes: tuple[int, int, int]
) -> Filter:
    """The filter, once it is known that something passes it."""
    in_time, in_space = (PassBand(*ends) if ends else None for ends in (time, space))
    wanted = Filter(in_time, in_space, shape, joint)
    frames, height, width = sizes
    if wanted.passes(*sizes).any():
        return wanted
    if in_time is not None and in_space is not None and joint:
        raise ValueError(f"time, space: the cut-offs remove every frequency of {frames} frames of {height} x {width}")
    if in_time is not None and not wanted.time_passes(frames).any():
        few = "needs at least 2 frames" if frames == 1 else f"removes every frequency of a length-{frames} axis"
        raise ValueError(f"time: the cut-off {few}, at {in_time.start:g} to {in_time.stop:g} cycles/sample")
    raise ValueError(f"space: the cut-off removes every frequency of a {height} x {width} frame")


def _backend(function: str, clip: Tensor, wanted: Filter, sizes: tuple[int, int, int]) -> tuple[Any, LowRank | None]:
    """The module that runs, and the matrices for it; None where `torch.fft` is to run."""
    chosen = dispatch.which(function, clip.device)
    if chosen == "reference":
        return reference, None
    dtype = torch.float64 if clip.dtype == torch.float64 else torch.float32
    return import_module(f"vtk_kernels.frequency.{chosen}"), low_rank(wanted, sizes, clip.device, dtype)
