"""Checks videos: every list, every label, every frame."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

from vtk_cli.console import Console
from vtk_cli.data.problems import Problem
from vtk_cli.data.video.lists import read_video_list
from vtk_cli.data.video.records import VideoFile, VideoList, is_video
from vtk_cli.data.video_probe import Probed, VideoProbe
from vtk_cli.data.walking import check_folder, read_folder


def audit_videos(path: Path, console: Console) -> tuple[int, list[Problem]]:
    """The number of videos in a list, or in all lists or class folders of a folder, and what is wrong with them."""
    lists = {part: read_video_list(part) for part in video_parts(path)}
    problems = [problem for found in lists.values() for problem in found.problems]
    problems += _differing_classes(lists)
    videos = [video for found in lists.values() for video in found.videos]
    for video, probed in zip(videos, probe_videos(videos, console), strict=True):
        if probed.fault:
            problems.append(Problem(_named(video), probed.fault))
    return len(videos), problems


def video_parts(path: Path) -> list[Path]:
    """What to read of `path`: itself if a file; else its lists, else its splits of class folders, else itself."""
    if path.is_file():
        return [path]
    check_folder(path)
    content = read_folder(path)
    lists = [path / file.path for file in content.files if file.path.endswith(".csv")]
    splits = [path / name for name in ("train", "val", "test") if name in content.folders]
    both = len(splits) > 1 and not any(is_video(file.path) for split in splits for file in read_folder(split).files)
    return lists or (splits if both else [path])


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


def _differing_classes(lists: dict[Path, VideoList]) -> list[Problem]:
    """Class folders of one split that another does not have: their labels would not agree."""
    named = {part: found.class_names for part, found in lists.items() if found.class_names is not None}
    if len(named) < 2:
        return []
    first, *others = named
    known = set(named[first] or ())
    return [
        Problem(str(part / name), f"class is not in both {first.name} and {part.name}")
        for part in others
        for name in sorted(known ^ set(named[part] or ()))
    ]
