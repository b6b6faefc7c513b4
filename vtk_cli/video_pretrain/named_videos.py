"""Which videos an evaluation is on: those that the user names, else those of the run that the network is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.data.video.sets import VideoSet, open_videos
from vtk_cli.engine.run_config import RunConfig
from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.data_options import MOVING_DIGITS, ListFormat
from vtk_cli.video_pretrain.eval_options import EvalOptions
from vtk_cli.video_pretrain.trained import SavedNetwork

_SHOWN = 3


@dataclass(frozen=True)
class NamedVideos:
    """What names videos, as `vtk video-pretrain run` takes it.

    Args:
        data, val: lists or folders; val None where data has its own.
        format: of the lists.
        root: where their relative paths start; None: at each list's folder.
    """

    data: str
    val: str | None
    format: ListFormat
    root: Path | None

    def opened(self, console: Console) -> tuple[VideoSet, VideoSet | None]:
        """The training and the test videos; see `open_videos`."""
        list_format = None if self.format == "auto" else self.format
        return open_videos(self.data, self.val, list_format=list_format, root=self.root, console=console)


def options_of_run(saved: SavedNetwork) -> Mapping[str, Any]:
    """The options of the run that a network is from, by their fields; empty where it lies in none."""
    config = RunConfig.read(saved.path.parent)
    return {} if config is None else {name.replace("-", "_"): value for name, value in config.options.items()}


def named_videos(options: EvalOptions, saved: SavedNetwork) -> NamedVideos:
    """The videos of the options; without DATA all that the run said of its own, but for what is given anew.

    Raises:
        UserError: none are named, and there is no run.
    """
    if options.data is not None:
        return NamedVideos(options.data, options.val, options.format, options.root)
    run = options_of_run(saved)
    if "data" not in run:
        raise UserError("no videos are named", "DATA", f"name a list, a folder or {MOVING_DIGITS}")
    root = Path(run["root"]) if "root" in run else None
    return NamedVideos(
        str(run["data"]),
        options.val or run.get("val"),
        run.get("format", "auto") if options.format == "auto" else options.format,
        options.root or root,
    )


def common_classes(saved: SavedNetwork, videos: Sequence[str]) -> tuple[str, ...]:
    """The names of a network's classes, where it is tested on videos of the classes `videos`.

    Lists of plain labels have numbers for names, and need not have a video of every class.

    Raises:
        UserError: the network has other classes.
    """
    known, fix = saved.classes, "fine-tune it: --protocol finetune"
    numbered = is_numbered(known), is_numbered(videos)
    if len(videos) > len(known) or (len(videos) < len(known) and not numbered[1]):
        raise UserError(f"knows {len(known)} classes, the videos have {len(videos)}", str(saved.path), fix)
    if not any(numbered) and known != tuple(videos):
        differing = [f"{one} / {other}" for one, other in zip(known, videos, strict=True) if one != other]
        what = f"its classes are not those of the videos: {', '.join(differing[:_SHOWN])}"
        raise UserError(what, str(saved.path), fix)
    return known if numbered[1] else tuple(videos)


def is_numbered(classes: Sequence[str]) -> bool:
    """Whether classes have numbers for names."""
    return tuple(classes) == tuple(map(str, range(len(classes))))
