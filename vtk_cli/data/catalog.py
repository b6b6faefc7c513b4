"""The embedded datasets by name: what each is, who uses it, where it lies. Imports nothing heavy; makes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vtk_cli.errors import UserError, nearest
from vtk_cli.files import cache_folder, content_key

Kind = Literal["images", "coco", "yolo", "voc", "video"]
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """An embedded dataset.

    Args:
        name: what users type.
        kind: how it is read.
        what: what it holds, in a line.
        used_by: the subcommands whose default it is.
        version: raised when what is drawn or how it is written changes; part of the cache key.
        counts: how many images or clips a split has, where the user may choose; the defaults.
    """

    name: str
    kind: Kind
    what: str
    used_by: tuple[str, ...]
    version: int
    counts: Mapping[str, int] = field(default_factory=dict)


ENTRIES = (
    Entry(
        "digits",
        "images",
        "1,797 handwritten digits, 32x32 RGB, 10 classes, 1,437 train / 360 val",
        ("train", "search", "prune", "similarity"),
        version=1,
    ),
    Entry(
        "digits-coco",
        "coco",
        "128x128 photo crops with 1-5 digits; COCO boxes, masks and one point a digit",
        ("detect", "segment"),
        version=1,
        counts={"train": 400, "val": 150},
    ),
    Entry(
        "moving-digits",
        "video",
        "64x64 H.264 clips of a digit moving on a photo crop; direction is the label, background a spurious cue",
        ("video-pretrain",),
        version=1,
        counts={"train": 768, "val": 512, "val_iid": 512},
    ),
    Entry(
        "digits-m",
        "images",
        "the digits blended into photo crops as MNIST-M does, 32x32 RGB, the split of digits",
        ("adapt",),
        version=1,
    ),
)


@dataclass(frozen=True)
class Cached:
    """What the cache holds of a dataset at its default size: the folder, and its bytes (None: not made yet)."""

    folder: Path
    size: int | None


def find_entry(name: str) -> Entry:
    """The embedded dataset called `name`.

    Raises:
        UserError: there is none; the nearest is named.
    """
    known = {entry.name: entry for entry in ENTRIES}
    if name not in known:
        raise UserError(f"no embedded dataset {name!r}", fix=nearest(name, known) or f"there are {', '.join(known)}")
    return known[name]


def folder_of(entry: Entry, counts: Mapping[str, int] | None = None) -> Path:
    """Where the cache keeps a dataset with `counts` (default: the entry's); the name ends in a content key."""
    key = content_key({"version": entry.version, "counts": dict(entry.counts if counts is None else counts)})
    return cache_folder() / "data" / f"{entry.name}-{key}"


def cached(entry: Entry) -> Cached:
    """What the cache holds of `entry`, as its manifest says; without a readable manifest it counts as not made."""
    folder = folder_of(entry)
    manifest = read_manifest(folder)
    return Cached(folder, None if manifest is None else sum(size for size, _ in manifest["files"].values()))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a dataset folder: `files` maps relative paths to [size, sha256]; None when absent or torn."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        rows = manifest["files"].values()
        whole = all(isinstance(size, int) and isinstance(digest, str) for size, digest in rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None
