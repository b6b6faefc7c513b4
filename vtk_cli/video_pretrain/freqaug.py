"""FreqAug (arXiv 2204.03865): some views of a clip lose their slow or their smooth part, and with it the static scene.

It is the last step of a view, after normalisation: what it keeps of a constant is nothing, so that normalising before
or after differs by a factor only. One draw decides for a view, for all its channels and frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.method_options import FreqAug as Kind
from vtk_cli.video_pretrain.method_options import FreqAugOptions, Pass
from vtk_kernels.frequency import PassBand, band, frequency_filter, high, low

_PROBE_STD_MIN = 1e-6


@dataclass(frozen=True)
class FreqAug:
    """Which part of a clip is taken out, and how often.

    Args:
        kind: `t`, `s`, `st` (both, one after the other), `joint` (both at once), `diff` (differences of frames).
        time: the temporal frequencies that stay; None leaves them all.
        space: the spatial ones.
        shape: what low means in space.
        probability: that a view is filtered.
        keep_dc: the mean of each channel stays.
        renorm: a filtered view gets the standard deviation back that it had.
    """

    kind: Kind
    time: PassBand | None = None
    space: PassBand | None = None
    shape: Literal["box", "radial"] = "box"
    probability: float = 0.5
    keep_dc: bool = False
    renorm: bool = False

    def draw(self, views: int, generator: torch.Generator | None = None) -> Tensor:
        """(views,) bool: which are filtered; each by itself."""
        return torch.rand(views, generator=generator) < self.probability

    def __call__(self, clips: Tensor, apply: Tensor) -> Tensor:
        """Filter some clips.

        Args:
            clips: (B, C, T, H, W) floating, normalised.
            apply: (B,) bool; the others come back bit for bit.

        Returns:
            The shape and dtype of `clips`.
        """
        if self.kind == "none":
            return clips
        flags = apply.to(clips.device)
        filtered = _differences(clips, flags) if self.kind == "diff" else self._filtered(clips, flags)
        if not (self.keep_dc or self.renorm):
            return filtered
        chosen = flags.view(-1, 1, 1, 1, 1)
        changed = filtered
        if self.renorm:
            changed = changed * (_deviation(clips) / _deviation(changed).clamp(min=_PROBE_STD_MIN))
        if self.keep_dc:
            changed = changed + (clips.mean((2, 3, 4), keepdim=True) - changed.mean((2, 3, 4), keepdim=True))
        return torch.where(chosen, changed, clips)

    def check(self, frames: int, side: int) -> None:
        """Refuse a filter that takes everything out of clips of `frames` frames of `side` x `side` pixels.

        Raises:
            UserError: it does; or it needs two frames and there is one.
        """
        if self.kind in {"t", "st", "joint", "diff"} and frames < 2:
            raise UserError("a temporal filter needs >= 2 frames", "--sampling", "give more frames")
        if self.kind in {"none", "diff"}:
            return
        try:
            self._filtered(torch.zeros(1, 1, frames, side, side), torch.ones(1, dtype=torch.bool))
        except ValueError as error:
            what = f"the cut-off removes every frequency of a clip of {frames} x {side} x {side} ({error})"
            raise UserError(what, "--freqaug", "choose other cut-offs") from error

    def _filtered(self, clips: Tensor, flags: Tensor) -> Tensor:
        return frequency_filter(
            clips,
            self.time,
            self.space,
            shape=self.shape,
            joint=self.kind == "joint",
            apply=flags,
        )


def freqaug_of(options: FreqAugOptions) -> FreqAug:
    """The augmentation that options describe; they are checked."""
    options.check_bands()
    return FreqAug(
        options.freqaug,
        _passed(options.freq_t, options.freq_cutoff_t, options.freq_stop_t) if options.filters_time else None,
        _passed(options.freq_s, options.freq_cutoff_s, options.freq_stop_s) if options.filters_space else None,
        options.freq_shape,
        options.freq_prob,
        options.freq_keep_dc,
        options.freq_renorm,
    )


def _passed(kind: Pass, cutoff: float, stop: float | None) -> PassBand:
    if kind == "bp":
        return band(cutoff, cutoff if stop is None else stop)
    return high(cutoff) if kind == "hp" else low(cutoff)


def _differences(clips: Tensor, flags: Tensor) -> Tensor:
    """Each frame less the one before; the first is given the second's."""
    moved = clips.diff(dim=2)
    return torch.where(flags.view(-1, 1, 1, 1, 1), torch.cat((moved[:, :, :1], moved), dim=2), clips)


def _deviation(clips: Tensor) -> Tensor:
    return clips.std((1, 2, 3, 4), keepdim=True, correction=0)
