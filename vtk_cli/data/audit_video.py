"""Checks videos: every list, every label, every frame."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.problems import Problem
from vtk_cli.data.video.decoding import BrokenVideo, VideoDecoder
from vtk_cli.data.video.lists import class_names_beside, format_of, read_video_list
from vtk_cli.data.video.published_lists import SSV2_ANSWERS
from vtk_cli.data.video.records import ListFormat, Part, VideoFile, VideoList, is_video
from vtk_cli.data.video_probe import Probed, VideoProbe
from vtk_cli.data.walking import check_folder, read_folder
from vtk_cli.errors import UserError


@dataclass(frozen=True)
class Listed:
    """A list to read: its path, and the part of it, where a format holds several in one place."""

    path: Path
    part: Part = "train"

    def __str__(self) -> str:
        return f"{self.path.name} ({self.part})" if list_format_of(self.path) == "hmdb51" else self.path.name


def audit_videos(
    path: Path, console: Console, list_format: ListFormat | None = None, root: Path | None = None
) -> tuple[int, list[Problem]]:
    """The number of videos in a list, or in all lists or class folders of a folder, and what is wrong with them.

    Args:
        path: the list or folder.
        console: shows the progress.
        list_format: of the lists; None looks at each.
        root: where relative paths start; None: at each list's folder.

    Raises:
        UserError: there is no such thing, or no video in it.
    """
    lists = {
        listed: read_video_list(listed.path, list_format=list_format, root=root, part=listed.part)
        for listed in video_parts(path, list_format)
    }
    problems = [problem for found in lists.values() for problem in found.problems]
    problems += _differing_classes(lists)
    problems += _labels_out_of_range(lists)
    videos = [video for found in lists.values() for video in found.videos]
    for video, fault in zip(videos, _faults(videos, console), strict=True):
        if fault:
            problems.append(Problem(_named(video), fault))
    return len(videos), problems


def video_parts(path: Path, list_format: ListFormat | None = None) -> list[Listed]:
    """What to read of `path`: itself if a file; else its lists, else its splits of class folders, else itself."""
    if not path.is_file():
        check_folder(path)
    if (list_format or list_format_of(path)) == "hmdb51":
        return [Listed(path, "train"), Listed(path, "test")]
    if path.is_file():
        return [Listed(path)]
    content = read_folder(path)
    lists = [path / file.path for file in content.files if _is_list(path / file.path)]
    splits = [path / name for name in ("train", "val", "test") if name in content.folders]
    both = len(splits) > 1 and not any(is_video(file.path) for split in splits for file in read_folder(split).files)
    return [Listed(part) for part in lists or (splits if both else [path])]


def list_format_of(path: Path) -> ListFormat | None:
    """The format of a list, or of a folder of lists; None where that takes a look that fails."""
    try:
        return format_of(path)
    except UserError:
        return None


def is_json_list(path: Path) -> bool:
    """Whether a JSON file is a list of objects, as those of videos are and COCO's are not."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            return re.match(r"\s*\[\s*\{", stream.read(256)) is not None
    except OSError:
        return False


def _is_list(file: Path) -> bool:
    """Whether a file of a folder is a list of videos, and not the names or answers that lie beside some."""
    if file.suffix == ".csv":
        return file.name != SSV2_ANSWERS
    if file.suffix == ".json":
        return is_json_list(file)
    return file.suffix == ".txt" and list_format_of(file) in {"ucf101", "gym99"}


def _faults(videos: Sequence[VideoFile], console: Console) -> list[str]:
    """What is wrong with each; a file of which several parts are listed is decoded once."""
    files = list({video.path: video for video in videos}.values())
    probed = {video.path: found for video, found in zip(files, probe_videos(files, console), strict=True)}
    decoder = VideoDecoder()
    try:
        return [probed[video.path].fault or _fault_of_part(video, probed[video.path], decoder) for video in videos]
    finally:
        decoder.close()


def _fault_of_part(video: VideoFile, probed: Probed, decoder: VideoDecoder) -> str:
    """What is wrong with the part of a sound video that a list names."""
    if video.frames is not None and video.frames[1] > probed.frames:
        return "part ends after the end of its video"
    if video.seconds is None:
        return ""
    try:
        decoder.clips(video, lambda _length, _fps: [np.zeros(1, np.int64)])
    except BrokenVideo as error:
        return error.reason
    return ""


def probe_videos(videos: list[VideoFile], console: Console) -> list[Probed]:
    """Decode every video, in as many processes as there are cores (at most 8)."""
    count = max(1, min(8, os.cpu_count() or 1, len(videos)))
    idle: SimpleQueue[VideoProbe] = SimpleQueue()

    def probe(video: VideoFile) -> Probed:
        prober = idle.get()
        try:
            return prober(video.path)
        finally:
            idle.put(prober)

    results: list[Probed] = []
    with ExitStack() as stack, console.progress("decoding videos", len(videos)) as progress:
        for _ in range(count):
            idle.put(stack.enter_context(VideoProbe()))
        with ThreadPoolExecutor(count) as pool:
            for probed in pool.map(probe, videos):
                results.append(probed)
                progress.advance()
    return results


def _named(video: VideoFile) -> str:
    return video.where if str(video.path) in video.where else f"{video.where}: {video.path}"


def _differing_classes(lists: Mapping[Listed, VideoList]) -> list[Problem]:
    """Classes of one part that another does not have: their labels would not agree."""
    named = {part: found.class_names for part, found in lists.items() if found.class_names is not None}
    if len(named) < 2:
        return []
    first, *others = named
    known = set(named[first] or ())
    return [
        Problem(str(part.path / name), f"class is not in both {first} and {part}")
        for part in others
        for name in sorted(known ^ set(named[part] or ()))
    ]


def _labels_out_of_range(lists: Mapping[Listed, VideoList]) -> list[Problem]:
    """Labels without names that those beside the list do not reach, or that go beyond those of the training list."""
    trained = next((found.classes for listed, found in lists.items() if listed.path.stem == "train"), None)
    problems = []
    for listed, found in lists.items():
        if found.class_names is not None:
            continue
        names = class_names_beside(listed.path)
        classes = trained if names is None else len(names)
        what = "label is not among those of the training list" if names is None else "label is out of range"
        problems += [
            Problem(_named(video), what)
            for video in found.videos
            if video.label is not None and classes is not None and video.label >= classes
        ]
    return problems
