"""What a list of videos holds, whatever its format. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from vtk_cli.data.problems import Problem
from vtk_cli.errors import UserError

EXTENSIONS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv")
ListFormat = Literal["paths", "vtk", "kinetics", "ssv2", "ucf101", "hmdb51", "diving48", "gym99", "folders"]
FORMATS: tuple[ListFormat, ...] = get_args(ListFormat)
Part = Literal["train", "test"]
SAMPLINGS = ("dense", "stride", "segment")
Short = Literal["clamp", "loop", "error"]


@dataclass(frozen=True)
class Sampling:
    """Which frames make a clip.

    Args:
        kind: `dense`: frames spread evenly over a window of frames x stride at 30 frames a second; `stride`: every
            stride-th frame as it comes; `segment`: one of each of as many equal parts of the video.
        frames: of a clip.
        stride: between frames; 0 for `segment`.
    """

    kind: Literal["dense", "stride", "segment"]
    frames: int
    stride: int


def parse_sampling(text: str) -> Sampling:
    """`dense:8x8`, `stride:8x2` or `segment:8`.

    Raises:
        UserError: it is none of these.
    """
    kind, _, numbers = text.strip().partition(":")
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})" if kind in {"dense", "stride"} else r"(\d{1,4})", numbers)
    if kind not in SAMPLINGS or match is None or 0 in map(int, match.groups()):
        what = f"{text!r} is no sampling"
        raise UserError(what, "--sampling", "give dense:8x8 or stride:8x2 (frames x stride), or segment:8 (frames)")
    frames, *stride = map(int, match.groups())
    return Sampling(kind, frames, stride[0] if stride else 0)  # type: ignore[arg-type]  # one of SAMPLINGS


@dataclass(frozen=True)
class VideoFile:
    """A video, or a part of one.

    Args:
        path: where it should lie; a folder where its frames are images.
        label: its class; None where it is unlabelled.
        where: the entry of the list that says so.
        seconds: the part to use, (start, end).
        frames: the part to use, (first frame, the frame after the last).
    """

    path: Path
    label: int | None
    where: str
    seconds: tuple[float, float] | None = None
    frames: tuple[int, int] | None = None


@dataclass(frozen=True)
class VideoList:
    """The videos of a list or folder, class names by label where there are any, and entries that make no sense."""

    videos: tuple[VideoFile, ...]
    class_names: tuple[str, ...] | None
    problems: tuple[Problem, ...]

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return any(video.label is not None for video in self.videos)

    @property
    def classes(self) -> int | None:
        """How many classes there are: as names, else up to the largest label; None where unlabelled."""
        if self.class_names is not None:
            return len(self.class_names)
        return max((video.label for video in self.videos if video.label is not None), default=-1) + 1 or None


def is_video(name: str) -> bool:
    """Whether a file name has the extension of a video, in any letter case."""
    return name.lower().endswith(EXTENSIONS)
