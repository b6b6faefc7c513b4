"""The lists that published video data sets come with.

- Kinetics: CSV with the header `label,youtube_id,time_start,time_end,split`; the file is `<id>_<start>_<end>.mp4` (six
  digits each), beside the list, in `<label>/` or in `<split>/<label>/`.
- Something-Something v2: JSON of `{"id", "template", ...}`; the class of a template without its brackets is in
  `something-something-v2-labels.json` beside it; of a test list in `test-answers.csv` (`id;label`), where there is one.
- UCF101: `trainlist01.txt` with `Class/v.avi number`, `testlist01.txt` without numbers; classes, from 1, in
  `classInd.txt`.
- HMDB51: `<class>_test_split1.txt` with `file.avi 1` (training), `2` (test) or `0` (neither), one file a class.
- Diving48: JSON of `{"vid_name", "label", "start_frame", "end_frame"}`; each name is a video of its own.
- Gym99: `<clip> <label>` a line, clips without their suffix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.data.problems import Problem
from vtk_cli.data.video.entries import Entry, assembled, csv_rows, is_label
from vtk_cli.data.video.records import EXTENSIONS, ListFormat, Part, VideoList
from vtk_cli.data.walking import is_there
from vtk_cli.errors import UserError

KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
SSV2_LABELS, SSV2_ANSWERS = "something-something-v2-labels.json", "test-answers.csv"
_UCF_CLASSES = "classInd.txt"
_HMDB = re.compile(r"(.+)_test_split([1-9])\.txt")
_SNIFFED = 4096


@dataclass(frozen=True)
class Published:
    """How a format is recognised, and read."""

    recognises: Callable[[Path], bool]
    read: Callable[[Path, Path, Part], VideoList]


def read_kinetics(path: Path, root: Path, _: Part) -> VideoList:
    """See the module."""
    rows = csv_rows(path, _text(path).splitlines(), ",")
    names = tuple(sorted({row["label"] for _, row in rows if row.get("label")}))
    label_of = {name: label for label, name in enumerate(names)}
    entries: list[Entry | Problem] = []
    for number, row in rows:
        where = f"{path}:{number} ({row.get('youtube_id')})"
        try:
            name = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4"
            label, part = label_of[row["label"]], row["split"]
        except (KeyError, TypeError, ValueError):
            entries.append(Problem(where, f"line is not `{','.join(KINETICS_COLUMNS)}`"))
            continue
        places = (f"{row['label']}/{name}", f"{part}/{row['label']}/{name}", name)
        entries.append(Entry(next((place for place in places if is_there(root / place)), places[0]), label, where))
    return assembled(entries, root, names)


def read_ssv2(path: Path, root: Path, _: Part) -> VideoList:
    """See the module."""
    rows = _objects(path)
    labels_file = path.with_name(SSV2_LABELS)
    labels = _json(labels_file)
    try:
        label_of = {str(name): int(label) for name, label in labels.items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise UserError("is no JSON of template -> label", str(labels_file)) from error
    names = [name for name, _ in sorted(label_of.items(), key=lambda item: item[1])]
    answers = _answers(path.with_name(SSV2_ANSWERS))
    entries: list[Entry | Problem] = []
    for number, row in enumerate(rows):
        identity = row.get("id")
        where = f"{path}: entry {number} (id {identity})"
        template = str(row.get("template") or answers.get(str(identity), "")).replace("[", "").replace("]", "")
        if identity is None:
            entries.append(Problem(where, "entry has no id"))
        elif template and template not in label_of:
            entries.append(Problem(where, "template is unknown"))
        else:
            name = _found(root, str(identity), (".webm", ".mp4"))
            entries.append(Entry(name, label_of.get(template), where))
    return assembled(entries, root, names)


def read_ucf101(path: Path, root: Path, _: Part) -> VideoList:
    """See the module."""
    classes: dict[str, int] = {}
    for line in _text(path.with_name(_UCF_CLASSES)).splitlines():
        number, _space, name = line.strip().partition(" ")
        if name and is_label(number):
            classes[name] = int(number) - 1
    entries: list[Entry | Problem] = []
    for place, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where, words = f"{path}:{place} ({line.strip()})", line.split()
        folder = words[0].partition("/")[0]
        said = int(words[1]) - 1 if len(words) > 1 and is_label(words[1]) else classes.get(folder)
        if said is None or said != classes.get(folder, said):
            entries.append(Problem(where, "class is unknown" if said is None else "label is not that of the folder"))
        else:
            entries.append(Entry(words[0], said, where))
    return assembled(entries, root, sorted(classes, key=lambda name: classes[name]))


def read_hmdb51(path: Path, root: Path, part: Part) -> VideoList:
    """See the module; `path` is one of the files, whose number says which split, or their folder: the first split."""
    match = _HMDB.fullmatch(path.name)
    number = match[2] if match else "1"
    folder = path if path.is_dir() else path.parent
    files = sorted(file for file in folder.glob(f"*_test_split{number}.txt") if _HMDB.fullmatch(file.name))
    names = [file.name.removesuffix(f"_test_split{number}.txt") for file in files]
    wanted = {"train": "1", "test": "2"}[part]
    entries: list[Entry | Problem] = []
    for label, (name, file) in enumerate(zip(names, files, strict=True)):
        for place, line in enumerate(_text(file).splitlines(), 1):
            words = line.rsplit(maxsplit=1)
            if len(words) == 2 and words[1] in {"0", "1", "2"}:
                if words[1] == wanted:
                    within = f"{name}/{words[0]}"
                    entries.append(Entry(within if is_there(root / within) else words[0], label, f"{file}:{place}"))
            elif words:
                entries.append(Problem(f"{file}:{place} ({line.strip()})", "line is not `file 0|1|2`"))
    return assembled(entries, root, names)


def read_diving48(path: Path, root: Path, _: Part) -> VideoList:
    """See the module."""
    entries: list[Entry | Problem] = []
    for number, row in enumerate(_objects(path)):
        where = f"{path}: entry {number} ({row.get('vid_name')})"
        try:
            name, label = _found(root, str(row["vid_name"]), (".mp4",)), int(row["label"])
        except (KeyError, TypeError, ValueError, OverflowError):
            entries.append(Problem(where, "entry has no vid_name or no label"))
            continue
        entries.append(Entry(name, label, where))
    return assembled(entries, root, None)


def read_gym99(path: Path, root: Path, _: Part) -> VideoList:
    """See the module."""
    entries: list[Entry | Problem] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        words, where = line.split(), f"{path}:{number} ({line.strip()})"
        if len(words) == 2 and is_label(words[1]):
            entries.append(Entry(_found(root, words[0], (".mp4", ".mkv")), int(words[1]), where))
        elif words:
            entries.append(Problem(where, "line is not `clip label`"))
    return assembled(entries, root, None)


def _found(root: Path, stem: str, suffixes: tuple[str, ...]) -> str:
    """A file's name with the suffix that it has on disk; the first one where there is none. A folder has none."""
    if stem.lower().endswith(EXTENSIONS) or (is_there(root / stem) and (root / stem).is_dir()):
        return stem
    return next((stem + suffix for suffix in suffixes if is_there(root / (stem + suffix))), stem + suffixes[0])


def _answers(path: Path) -> Mapping[str, str]:
    if not path.is_file():
        return {}
    rows = csv_rows(path, ["id;label", *_text(path).splitlines()], ";")
    return {row["id"]: row["label"] for _, row in rows if row["id"] and row["label"] and None not in row}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("the list cannot be read", str(path), str(error)) from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not JSON: {error}", str(path)) from error


def _objects(path: Path) -> list[Mapping[str, Any]]:
    rows = _json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError("is no JSON list of videos", str(path))
    return rows


def _starts_with(path: Path, words: tuple[str, ...]) -> bool:
    """Whether the beginning of a file has all these words."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            start = stream.read(_SNIFFED)
    except OSError:
        return False
    return all(word in start for word in words)


def _is_gym(path: Path) -> bool:
    return path.suffix == ".txt" and path.name.startswith("gym")


PUBLISHED: Mapping[ListFormat, Published] = {
    "kinetics": Published(
        lambda path: path.suffix == ".csv" and _starts_with(path, (",".join(KINETICS_COLUMNS),)), read_kinetics
    ),
    "ssv2": Published(lambda path: path.suffix == ".json" and not _starts_with(path, ('"vid_name"',)), read_ssv2),
    "diving48": Published(lambda path: path.suffix == ".json" and _starts_with(path, ('"vid_name"',)), read_diving48),
    "ucf101": Published(lambda path: re.fullmatch(r"(train|test)list\d\d\.txt", path.name) is not None, read_ucf101),
    "hmdb51": Published(lambda path: _HMDB.fullmatch(path.name) is not None, read_hmdb51),
    "gym99": Published(_is_gym, read_gym99),
}
