"""The picture and the film of what a frequency filter takes from a clip."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vtk_cli.files import atomic_path
from vtk_cli.reports.plots import INK, PALETTE, SOFT, Picture, axes_in_inches, save, style, write_titles

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
_MOST_FRAMES = 8
_CELL, _GAP = 1.05, 0.08  # inches
_FILM_SIDE = 256
_ROWS = ("clip", "filtered", "taken away")


@dataclass(frozen=True, eq=False)
class Filtered:
    """A clip before and after a filter.

    Args:
        clip: (3, T, H, W) normalised.
        filtered: the same, filtered.
        mean, std: of the normalisation.
    """

    clip: Floats
    filtered: Floats
    mean: float
    std: float

    @property
    def shown(self) -> tuple[Bytes, Bytes, Bytes]:
        """The clip, what is left and what is taken away, each (T, H, W, 3) uint8; the brighter one of the two as it is.

        What has no mean is shown about mid-gray.
        """
        removed = self.clip - self.filtered
        return (
            _pixels(self.clip * self.std + self.mean),
            _pixels(self.filtered * self.std + self._level(self.filtered)),
            _pixels(removed * self.std + self._level(removed)),
        )

    def _level(self, part: Floats) -> float:
        """What is added to a part: mid-gray where it has no mean left, else the normalisation's mean."""
        return self.mean if abs(float(part.mean() - self.clip.mean())) < abs(float(part.mean())) + 1e-6 else 0.5


def temporal_spectrum(clip: Floats) -> Floats:
    """(T // 2 + 1,) root mean square of the coefficients at k / T cycles a frame, over channels and pixels."""
    coefficients = np.fft.rfft(clip.astype(np.float64), axis=1, norm="ortho")
    found: Floats = np.sqrt((np.abs(coefficients) ** 2).mean(axis=(0, 2, 3))).astype(np.float32)
    return found


def spatial_spectrum(clip: Floats) -> Floats:
    """(H, W) the same of the frames' coefficients, frequency 0 in the middle."""
    coefficients = np.fft.fft2(clip.astype(np.float64), axes=(2, 3), norm="ortho")
    power = (np.abs(coefficients) ** 2).mean(axis=(0, 1))
    found: Floats = np.fft.fftshift(np.sqrt(power)).astype(np.float32)
    return found


def draw_preview(path: Path, filtered: Filtered, *, title: str, subtitle: str) -> Picture:
    """Draw frames before, after and what is between them, and the spectra along time and in space.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        filtered: the clip.
        title, subtitle: one line each.
    """
    shown = filtered.shown
    frames = np.unique(np.linspace(0, len(shown[0]) - 1, min(_MOST_FRAMES, len(shown[0]))).round().astype(int))
    pitch, left, low = _CELL + _GAP, 0.95, 3.1
    width = max(left + len(frames) * pitch, 9.3)
    with style():
        figure = Figure(figsize=(width + 0.2, low + 3 * pitch + 0.9))
        for row, (name, clip) in enumerate(zip(_ROWS, shown, strict=True)):
            for column, frame in enumerate(frames):
                bottom = low + (2 - row) * pitch
                axes = axes_in_inches(figure, left + column * pitch, bottom, _CELL, _CELL)
                axes.imshow(clip[frame], interpolation="nearest")
                axes.set_axis_off()
                if column == 0:
                    axes.text(-0.06, 0.5, name, transform=axes.transAxes, ha="right", va="center", color=INK)
                if row == 0:
                    axes.set_title(f"frame {frame}", fontsize=8.0, color=SOFT, pad=3)
                if row == column == 0:
                    write_titles(axes, title.replace("$", r"\$"), subtitle.replace("$", r"\$"), above=0.32)
        _draw_temporal(figure, filtered)
        _draw_spatial(figure, filtered)
        return save(figure, path)


def write_film(path: Path, filtered: Filtered, rate: float) -> None:
    """Write clip, filtered clip and what was taken away side by side as an H.264 MP4.

    Args:
        path: `.mp4`.
        filtered: the clip.
        rate: frames a second.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    clips = filtered.shown
    factor = max(1, _FILM_SIDE // max(clips[0].shape[1:3]))
    joined = np.concatenate(clips, axis=2).repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = joined.shape[1] // 2 * 2, joined.shape[2] // 2 * 2  # H.264 wants even sides
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000), options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in joined[:, :height, :width]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def _pixels(clip: Floats) -> Bytes:
    """(3, T, H, W) of values in [0, 1] to (T, H, W, 3)."""
    found: Bytes = (clip.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 3, 0)
    return found


def _draw_temporal(figure: Figure, filtered: Filtered) -> None:
    axes = axes_in_inches(figure, 0.95, 0.6, 3.0, 1.75)
    before, after = temporal_spectrum(filtered.clip), temporal_spectrum(filtered.filtered)
    places, frames = np.arange(len(before)), filtered.clip.shape[1]
    axes.bar(places - 0.2, before, 0.4, color=PALETTE[4], label="clip")
    axes.bar(places + 0.2, after, 0.4, color=PALETTE[0], label="filtered")
    axes.set_xlabel("cycles a frame")
    few = places[:: max(1, len(places) // 6)]
    axes.set_xticks(few, [f"{place / frames:.2g}" for place in few])
    axes.set_yscale("log")
    floor = max(float(before.max()) * 1e-4, 1e-6)
    axes.set_ylim(floor, float(before.max()) * 2 + floor)
    axes.legend(fontsize=8.0, loc="upper right")
    axes.set_title("spectrum along time", loc="left", fontsize=9.0, color=SOFT)


def _draw_spatial(figure: Figure, filtered: Filtered) -> None:
    spectra = [spatial_spectrum(part) for part in (filtered.clip, filtered.filtered)]
    top = float(np.log10(spectra[0].max() + 1e-12))
    for column, (name, spectrum) in enumerate(zip(("clip", "filtered"), spectra, strict=True)):
        axes = axes_in_inches(figure, 4.9 + column * 2.3, 0.55, 1.8, 1.8)
        axes.imshow(
            np.log10(spectrum + 1e-12), cmap="magma", vmin=top - 4, vmax=top, extent=(-0.5, 0.5, 0.5, -0.5),
            interpolation="nearest",
        )  # fmt: skip
        axes.set_title(f"spectrum in space, {name}", loc="left", fontsize=9.0, color=SOFT)
        axes.set_xticks([-0.5, 0, 0.5])
        axes.set_yticks([-0.5, 0, 0.5])
        axes.set_xlabel("cycles a pixel")
