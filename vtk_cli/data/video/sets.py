"""Opens what a user names as training and test videos: a list, a folder of both, class folders, `moving-digits`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.data.embedded import open_embedded
from vtk_cli.data.moving_digits import DIRECTIONS
from vtk_cli.data.problems import Problem
from vtk_cli.data.video.lists import CLASS_NAMES, class_names_beside, format_of, read_video_list
from vtk_cli.data.video.records import ListFormat, Part, VideoFile, VideoList
from vtk_cli.errors import UserError

EMBEDDED = "moving-digits"
_TRAIN = ("train.csv", "something-something-v2-train.json", "trainlist01.txt", "train.txt", "train.json", "train")
_VAL = (
    *("val.csv", "something-something-v2-validation.json", "testlist01.txt", "val.txt", "val.json", "val"),
    *("test.csv", "test.txt", "test.json", "test"),
)
_SHOWN = 3


@dataclass(frozen=True)
class VideoSet:
    """Videos that are used together.

    Args:
        name: for people.
        videos: all of them, or those with a label where some have one.
        classes: names by label; numbers where the list has no names; empty where it is unlabelled.
    """

    name: str
    videos: tuple[VideoFile, ...]
    classes: tuple[str, ...]

    @property
    def labelled(self) -> bool:
        """Whether each video has its label."""
        return bool(self.classes)

    @property
    def labels(self) -> list[int]:
        """By video; -1 where it has none."""
        return [-1 if video.label is None else video.label for video in self.videos]


def open_videos(
    data: str | Path,
    val: str | Path | None = None,
    *,
    list_format: ListFormat | None = None,
    root: Path | None = None,
    console: Console,
) -> tuple[VideoSet, VideoSet | None]:
    """The training videos and, where there are any, the test videos; both with the same classes.

    Args:
        data: `moving-digits`, a list, or a folder: with lists or class folders of both parts, or one folder a class.
        val: test videos, in place of those that `data` has.
        list_format: None looks at each list.
        root: where relative paths of lists start; None: at each list's folder.
        console: hears of what is read.

    Raises:
        UserError: there is nothing, a list has lines that make no sense, or the classes of the two differ.
    """
    train_path, val_path = _parts(data, console)
    val_path = val_path if val is None else _one(val, console)
    train = _read(train_path, list_format, root, "train")
    test = None if val_path is None else _read(val_path, list_format, root, "test")
    names = _names(train, test, train_path)
    if str(data) == EMBEDDED:
        names = tuple(DIRECTIONS)
    one = VideoSet(str(data), train.videos, names if train.labelled else ())
    other = None
    if test is not None and val_path is not None:
        _check_classes(test, names, val_path)
        other = VideoSet(val_path.stem, test.videos, names if test.labelled else ())
    console.note(f"{one.name}: {_told(one)}" + ("" if other is None else f"; {other.name}: {_told(other)}"))
    return one, other


def open_video_list(
    data: str | Path, *, list_format: ListFormat | None = None, root: Path | None = None, part: Part = "test"
) -> VideoList:
    """A list by itself, refused where lines make no sense."""
    return _read(Path(data), list_format, root, part)


def _parts(data: str | Path, console: Console) -> tuple[Path, Path | None]:
    if str(data) == EMBEDDED:
        folder = open_embedded(EMBEDDED, console).folder
        return folder / "train.csv", folder / "val.csv"
    path = Path(data)
    if path.is_dir():
        train = next((path / name for name in _TRAIN if (path / name).exists()), None)
        if train is not None:
            return train, next((path / name for name in _VAL if (path / name).exists()), None)
        return path, path if format_of(path) == "hmdb51" else None
    return path, None


def _one(data: str | Path, console: Console) -> Path:
    """Test videos: of the embedded data `val` and `val-iid` have names of their own."""
    for name in ("val", "val-iid"):
        if str(data) == f"{EMBEDDED}:{name}":
            return open_embedded(EMBEDDED, console).folder / f"{name}.csv"
    return Path(data)


def _read(path: Path, list_format: ListFormat | None, root: Path | None, part: Part) -> VideoList:
    found = read_video_list(path, list_format=list_format, root=root, part=part)
    if found.problems:
        raise UserError(_summary(found.problems), str(path), f"see all with vtk data check {path}")
    if found.labelled and any(video.label is None for video in found.videos):
        missing = sum(video.label is None for video in found.videos)
        raise UserError(f"{missing} of {len(found.videos)} videos have no label", str(path), "label all, or none")
    return found


def _summary(problems: tuple[Problem, ...]) -> str:
    counts: dict[str, int] = {}
    for problem in problems:
        counts[problem.what] = counts.get(problem.what, 0) + 1
    told = ", ".join(f"{count} x {what}" for what, count in counts.items())
    first = "; ".join(problem.where for problem in problems[:_SHOWN])
    return f"{len(problems)} lines make no sense: {told} (first {first})"


def _names(train: VideoList, test: VideoList | None, path: Path) -> tuple[str, ...]:
    if train.class_names is not None:
        return train.class_names
    if test is not None and test.class_names is not None and not train.labelled:
        return test.class_names
    count = max(train.classes or 0, (test.classes or 0) if test is not None and test.class_names is None else 0)
    if not count:
        return ()
    named = class_names_beside(path)
    if named is None:
        return tuple(map(str, range(count)))
    if len(named) < count:
        what = f"names {len(named)} classes, but labels go up to {count - 1}"
        raise UserError(what, str(path.with_name(CLASS_NAMES)))
    return named


def _check_classes(test: VideoList, names: tuple[str, ...], path: Path) -> None:
    if test.class_names is not None and names and test.class_names != names:
        odd = sorted(set(test.class_names) ^ set(names))[:_SHOWN]
        raise UserError("the classes are not those of the training videos", str(path), f"differing: {', '.join(odd)}")
    largest = max((video.label for video in test.videos if video.label is not None), default=-1)
    if names and largest >= len(names):
        raise UserError(f"label {largest} is out of range", str(path), f"there are {len(names)} classes")


def _told(videos: VideoSet) -> str:
    classes = f" of {len(videos.classes)} classes" if videos.labelled else ", unlabelled"
    return f"{len(videos.videos):,} videos{classes}"
