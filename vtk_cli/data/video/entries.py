"""The lines of a list of videos, checked against one another."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vtk_cli.data.problems import Problem
from vtk_cli.data.video.records import VideoFile, VideoList
from vtk_cli.errors import UserError

_LONGEST_LABEL = 9
"""Digits."""


@dataclass(frozen=True)
class Entry:
    """A line that makes sense by itself.

    Args:
        name: the video's path, relative to where the list's paths start, or absolute.
        label: None where it is unlabelled.
        where: the line, for messages.
        seconds, frames: the part to use; see `VideoFile`.
    """

    name: str
    label: int | None
    where: str
    seconds: tuple[float, float] | None = None
    frames: tuple[int, int] | None = None


def csv_rows(path: Path, lines: Iterable[str], separator: str) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table with a header, each with its line number.

    Raises:
        UserError: it is no such table; the line is named.
    """
    reader = csv.DictReader(lines, delimiter=separator)
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"is no CSV: {error}", f"{path}:{reader.line_num + 1}") from error


def is_label(text: str) -> bool:
    """Whether a word is a number that a label can be."""
    return text.isdecimal() and len(text) <= _LONGEST_LABEL


def assembled(entries: Iterable[Entry | Problem], root: Path, names: Sequence[str] | None) -> VideoList:
    """The list of these lines; what is listed twice, or has a label that cannot be, is a problem.

    Args:
        entries: of the lines, in order.
        root: where relative paths start.
        names: of the classes; None: any label from 0 on goes.
    """
    videos: dict[tuple[object, ...], VideoFile] = {}
    problems: list[Problem] = []
    for entry in entries:
        if isinstance(entry, Problem):
            problems.append(entry)
            continue
        key = (entry.name, entry.seconds, entry.frames)
        if entry.label is not None and entry.label >= 10**_LONGEST_LABEL:
            problems.append(Problem(entry.where, "label is too large"))
        elif entry.label is not None and entry.label < 0:
            problems.append(Problem(entry.where, "label is negative"))
        elif entry.label is not None and names is not None and entry.label >= len(names):
            problems.append(Problem(entry.where, "label is out of range"))
        elif key in videos:
            same = videos[key].label == entry.label
            problems.append(
                Problem(entry.where, "video is listed twice" if same else "video is listed with two labels")
            )
        else:
            videos[key] = VideoFile(root / entry.name, entry.label, entry.where, entry.seconds, entry.frames)
    return VideoList(tuple(videos.values()), None if names is None else tuple(names), tuple(problems))
