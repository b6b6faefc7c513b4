"""The embedded `moving-digits`: short H.264 clips of a digit crossing a photo crop; the direction is the label.

The background is a spurious cue. It comes from one of four families (photo x left or right half): in `train` and
`val-iid` family and label agree in exactly nine clips of ten, in `val` they are independent. A model that reads the
background does well on `val-iid` and at chance on `val`. Opposite directions are time reversals of one another, so
the order of the frames, not any frame, tells them apart.

Files: `<split>/<direction>/<clip>.mp4`, a list `<split>.csv` of `path label` lines (Kinetics as PySlowFast reads it, no
header), and `clips.json` with what was drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from vtk_cli.data.digits import SPLITS, Glyphs, Split, load_glyphs
from vtk_cli.data.painting import Bytes, Half, contrasting_colour, draw_glyph, load_photos, paint, photo_crop
from vtk_cli.files import write_json, write_text

ClipSplit = Literal["train", "val", "val-iid", "probe"]
CLIP_SPLITS: tuple[ClipSplit, ...] = ("train", "val", "val-iid")
_ALL_SPLITS: tuple[ClipSplit, ...] = (*CLIP_SPLITS, "probe")
"""`probe`: digits of `train` on backgrounds that do not agree with the label; the embedded dataset has none of it."""
SIDE, FRAMES, FPS = 64, 16, 8
SPEED = 2
"""Pixels a frame. Whole ones: the digit looks the same in every frame."""
SMALLEST_DIGIT, LARGEST_DIGIT = 16, 24
SMALLEST_CROP, LARGEST_CROP = 128, 320
DIRECTIONS = {"down": (0, 1), "left": (-1, 0), "right": (1, 0), "up": (0, -1)}
"""Class name -> (dx, dy), y downwards; the label is the place in the alphabet, as in one folder a class."""
FAMILIES: tuple[tuple[int, Half], ...] = ((0, "left"), (0, "right"), (1, "left"), (1, "right"))
"""Background family -> (photo, half)."""
EXCEPTIONS = 10
"""Where the background agrees with the label, it does so in all but one of this many clips of a label."""
ENCODER = {"qp": "14", "preset": "medium", "threads": "1"}
"""x264 at a constant, nearly lossless quantizer. Not `crf`: its macroblock tree gave now and then other bytes for the
same frames. One thread: the bytes do not depend on the machine's cores."""
STREAM = 3
"""Sets this dataset's random numbers apart from those of the other embedded datasets."""


@dataclass(frozen=True)
class Clip:
    """What a clip shows: all that is needed to know where its digit is in frame t, (x + t SPEED dx, y + t SPEED dy).

    Args:
        path: the file, relative to the dataset.
        label: the direction, an index into `DIRECTIONS`.
        family: where the background comes from, an index into `FAMILIES`.
        digit, digit_id: the class 0..9 of the digit, and which of the 1,797 it is.
        x, y: the top left corner of the digit in the first frame, in pixels.
        width, height: of the digit, in pixels.
        colour: of the digit, RGB.
    """

    path: str
    label: int
    family: int
    digit: int
    digit_id: int
    x: int
    y: int
    width: int
    height: int
    colour: tuple[int, int, int]


def build_moving_digits(
    folder: Path, *, train: int, val: int, val_iid: int, probe: int = 0, exceptions: int = EXCEPTIONS
) -> None:
    """Write `moving-digits` with that many clips a split into the empty `folder`; fewer are the first of more.

    Args:
        folder: where to.
        train, val, val_iid, probe: clips of each split; a split of none is left out.
        exceptions: where the background agrees with the label, it does in all but one of this many clips of a label.
    """
    described: dict[str, Any] = {}
    counts = zip(_ALL_SPLITS, (train, val, val_iid, probe), strict=True)
    for split, count in ((split, count) for split, count in counts if count):
        clips = []
        for clip, frames in draw_clips(split, count, exceptions):
            path = folder / clip.path
            path.parent.mkdir(parents=True, exist_ok=True)
            write_h264(path, frames)
            clips.append(clip)
        write_text(folder / f"{split}.csv", "".join(f"{clip.path} {clip.label}\n" for clip in clips))
        described[split] = [asdict(clip) for clip in clips]
    write_json(folder / "clips.json", {"classes": list(DIRECTIONS), **described})


def draw_clips(split: ClipSplit, count: int, exceptions: int = EXCEPTIONS) -> Iterator[tuple[Clip, Bytes]]:
    """The first `count` clips of a split with their frames, uint8 (16, 64, 64, 3); clip i depends on the split and i.

    `val` and `val-iid` draw from the same validation digits.
    """
    photos = load_photos()
    source: Split = SPLITS[0] if split in {"train", "probe"} else SPLITS[1]
    glyphs = load_glyphs(source)
    for index in range(count):
        rng = np.random.default_rng([STREAM, _ALL_SPLITS.index(split), index])
        label, family = label_and_family(split, index, exceptions)
        photo, half = FAMILIES[family]
        crop = photo_crop(photos[photo], SIDE, rng, smallest=SMALLEST_CROP, largest=LARGEST_CROP, half=half)
        path = f"{split}/{list(DIRECTIONS)[label]}/{index:06d}.mp4"
        yield _draw_clip(path, label, family, crop=crop, glyphs=glyphs, rng=rng)


def label_and_family(split: ClipSplit, index: int, exceptions: int = EXCEPTIONS) -> tuple[int, int]:
    """The label and the background family of a clip.

    Labels take turns. `val` and `probe`: so do the families of a label, independent of it. Otherwise label and family
    agree but for the last of every `exceptions` clips of a label, in which the three other families take turns.
    """
    count = len(DIRECTIONS)
    turn, label = divmod(index, count)
    if split in {"val", "probe"}:
        return label, turn % count
    if turn % exceptions < exceptions - 1:
        return label, label
    return label, (label + 1 + turn // exceptions % (count - 1)) % count


def write_h264(path: Path, frames: Bytes) -> None:
    """Write frames, uint8 (T, H, W, 3) with even H and W, as an H.264 MP4 of `FPS` frames a second."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options=ENCODER)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _draw_clip(
    path: str, label: int, family: int, *, crop: Bytes, glyphs: Glyphs, rng: np.random.Generator
) -> tuple[Clip, Bytes]:
    which = int(rng.integers(len(glyphs.ids)))
    glyph = draw_glyph(glyphs.ink[which], int(rng.integers(SMALLEST_DIGIT, LARGEST_DIGIT + 1)))
    height, width = glyph.opacity.shape
    dx, dy = (SPEED * step for step in list(DIRECTIONS.values())[label])
    path_x, path_y = dx * (FRAMES - 1), dy * (FRAMES - 1)
    left, top = (int(rng.integers(SIDE - size - abs(way) + 1)) for size, way in ((width, path_x), (height, path_y)))
    swept = crop[top : top + height + abs(path_y), left : left + width + abs(path_x)]
    colour = contrasting_colour(swept, rng)
    x, y = left - min(path_x, 0), top - min(path_y, 0)
    frames = np.repeat(crop[None], FRAMES, axis=0)
    for t, frame in enumerate(frames):
        paint(frame, glyph, colour, x + t * dx, y + t * dy)
    red, green, blue = (int(value) for value in colour)
    digit, digit_id = int(glyphs.labels[which]), int(glyphs.ids[which])
    return Clip(path, label, family, digit, digit_id, x, y, width, height, (red, green, blue)), frames
