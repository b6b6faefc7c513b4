"""The two domains of a run: a labelled source, and a target whose labels, where it has any, are kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vtk_cli.adapt.digits_domains import EMBEDDED, digits_source, digits_target
from vtk_cli.adapt.domain_lists import Listed, read_listed, read_unlabelled
from vtk_cli.adapt.ledger import MARKS
from vtk_cli.adapt.pool import Pool, files_pool
from vtk_cli.console import Console
from vtk_cli.data.classification_folders import FileReader, some
from vtk_cli.data.classification_named import ArrayReader
from vtk_cli.data.classification_source import ImageSource
from vtk_cli.data.images import broken_images
from vtk_cli.errors import UserError, nearest


@dataclass(frozen=True, eq=False)
class Domains:
    """What a run works on.

    Args:
        class_names: of the source; the classifier's outputs in order.
        source: labelled; None where only its classifier is there.
        pool: the target.
        truth: labels of the target by sample id, as numbers; empty where it has none. Only the simulated oracle and
            the measuring of results may look at it.
        test: labelled images of the target that are not in the pool; None without any.
    """

    class_names: tuple[str, ...]
    source: ImageSource | None
    pool: Pool
    truth: Mapping[str, int]
    test: ImageSource | None = None

    def __post_init__(self) -> None:
        if len(self.pool) < 2:
            raise UserError(f"{len(self.pool)} target images are too few", self.pool.name, "give at least 2")

    @property
    def is_labelled(self) -> bool:
        """Whether the label of every target image is known."""
        return all(name in self.truth for name in self.pool.ids)

    def without(self, unreadable: Sequence[Unreadable]) -> Domains:
        """The domains without images that cannot be read."""
        gone = {part: {one.sample_id for one in unreadable if one.part == part} for part in PARTS}
        pool = self.pool
        if gone["target"]:
            pool = pool.only([name for name in pool.ids if name not in gone["target"]])
        truth = {name: label for name, label in self.truth.items() if name in pool.row_of}
        source = None if self.source is None else _kept(self.source, gone["source"])
        test = None if self.test is None else _kept(self.test, gone["test"])
        return replace(self, source=source, pool=pool, truth=truth, test=test)


PARTS = ("source", "target", "test")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that cannot be read: in which of `PARTS`, its id, and why."""

    part: str
    sample_id: str
    reason: str


def open_domains(
    source: str | None,
    target: str,
    *,
    console: Console,
    target_test: str | None = None,
    root: Path | None = None,
    class_names: tuple[str, ...] | None = None,
    seed: int = 0,
    ignore_target_labels: bool = False,
) -> Domains:
    """Open the domains of a run; no image of a folder is decoded.

    Args:
        source: `digits`, `digits-m`, or what `read_listed` reads, with labels; None: only the classifier is there.
        target: the same, with or without labels.
        console: told of what is odd.
        target_test: labelled images to test on; None: what the target sets aside, if it does.
        root: what the paths in list and CSV files are relative to.
        class_names: of the classifier, where there is no source.
        seed: of the draw that parts the digits of `digits` and `digits-m` from one another.
        ignore_target_labels: take the images at any depth in the target's folder, whatever its subfolders mean.

    Raises:
        UserError: one of them is not there or not readable; a class of the target is not one of the source; images
            to test on are in the pool; there are fewer than two target images.
    """
    opened = None if source is None else _open_source(source, target, root, seed, console)
    names = opened.class_names if opened is not None else class_names
    if names is None:
        raise UserError("there are no class names", "--source", "give the source, or a checkpoint that names them")
    _check_names(names)
    test: ImageSource | None
    if target in EMBEDDED:
        pool, truth, test = digits_target(target, source, names, seed)
    else:
        path = _existing(target)
        listed = read_unlabelled(path, console) if ignore_target_labels else read_listed(path, root, console)
        _check_written(listed)
        pool = files_pool(target, listed.root, tuple(listed.labels))
        truth = _numbers(listed, names)
        test = None if listed.held_out is None else _labelled(listed.held_out, names)
    if target_test is not None:
        test = _open_test(target_test, root, names, console)
    if test is not None:
        _check_apart(pool, test)
    return Domains(names, opened, pool, truth, test)


def find_unreadable(domains: Domains, console: Console) -> tuple[Unreadable, ...]:
    """Decode every image once; those that cannot be are named in warnings and returned, for `Domains.without`.

    Raises:
        UserError: none of a part can be read.
    """
    found: list[Unreadable] = []
    parts: tuple[tuple[str, ImageSource | Pool | None], ...] = (
        ("source", domains.source),
        ("target", domains.pool),
        ("test", domains.test),
    )
    for part, images in parts:
        if images is None:
            continue
        broken = _broken(images, console)
        count = len(images)
        if count and len(broken) == count:
            name, reason = next(iter(broken.items()))
            raise UserError(f"none of the {count} images of the {part} can be read, first {name} ({reason})",
                            images.name, "look at the paths, and give their folder with --root")  # fmt: skip
        if broken:
            named = ", ".join(f"{name} ({reason})" for name, reason in list(broken.items())[:5])
            console.warn(f"{part}: {len(broken)} of {count} images cannot be read and are left out: {named}")
        found += [Unreadable(part, name, reason) for name, reason in broken.items()]
    return tuple(found)


def _broken(images: ImageSource | Pool, console: Console) -> dict[str, str]:
    names = images.ids if isinstance(images, Pool) else tuple(images.names)
    if isinstance(images.read, ArrayReader):
        return {}  # in memory
    root = Path(images.name) if isinstance(images, ImageSource) else images.root or Path()
    reasons = dict(broken_images([root / name for name in names], console))
    return {name: reasons[root / name] for name in names if root / name in reasons}


def _open_source(source: str, target: str, root: Path | None, seed: int, console: Console) -> ImageSource:
    if source in EMBEDDED:
        return digits_source(source, target if target in EMBEDDED else None, seed)
    listed = read_listed(_existing(source), root, console)
    without = [path for path, label in listed.labels.items() if label is None]
    if without:
        what = f"{len(without)} of {len(listed.labels)} source images have no label, first {some(without)}"
        raise UserError(what, source, "the source is what is learnt from: label it, or leave such images out")
    names_ = listed.class_names or _number_names(listed, console)
    if len(names_) < 2:
        raise UserError("there is one class only, and nothing to tell it from", source, "give at least two classes")
    return _labelled(listed, names_)


def _open_test(text: str, root: Path | None, names: tuple[str, ...], console: Console) -> ImageSource:
    listed = read_listed(_existing(text), root, console)
    without = sum(label is None for label in listed.labels.values())
    if without:
        raise UserError(f"{without} images to test on have no label", text)
    return _labelled(listed, names)


def _labelled(listed: Listed, names: tuple[str, ...]) -> ImageSource:
    numbers = _numbers(listed, names)
    paths = tuple(numbers)
    labels = torch.tensor([numbers[path] for path in paths], dtype=torch.int64)
    return ImageSource(str(listed.root), names, labels, FileReader(listed.root, paths), paths)


def _numbers(listed: Listed, names: tuple[str, ...]) -> dict[str, int]:
    """Labels by path as numbers of `names`: by name, or, where a list has only numbers, as they are."""
    said = {path: label for path, label in listed.labels.items() if label is not None}
    numbered = all(name.isascii() and name.isdigit() for name in names)
    if listed.class_names is None and not numbered:
        wrong = next((path for path, label in said.items() if int(label) >= len(names)), None)
        if wrong is not None:
            what = f"the label {said[wrong]} of {wrong} is out of range"
            raise UserError(what, listed.where, f"the source has the classes 0 to {len(names) - 1}")
        return {path: int(label) for path, label in said.items()}
    number_of = {name: number for number, name in enumerate(names)}
    absent = sorted(set(said.values()) - set(names))
    if absent:
        fix = nearest(absent[0], names) or f"the source has {some(names)}"
        what = f"{len(absent)} classes of the target are not in the source: {some(absent)}"
        raise UserError(what, listed.where, f"{fix}; or take the images without their labels")
    return {path: number_of[label] for path, label in said.items()}


def _number_names(listed: Listed, console: Console) -> tuple[str, ...]:
    numbers = {int(label) for label in listed.labels.values() if label is not None}
    empty = sorted(set(range(max(numbers) + 1)) - numbers)
    if empty:
        console.warn(f"{listed.where}: no image has the label {some([str(one) for one in empty])}")
    return tuple(str(number) for number in range(max(numbers) + 1))


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not name.strip() or name in MARKS or name == "?":
            raise UserError(f"a class cannot be called {name!r}", "--source", "that is what a missing label is called")


def _check_written(listed: Listed) -> None:
    """Refuse names that no CSV file could hold."""
    for name in listed.labels:
        if not name.isprintable() or name != name.strip():
            raise UserError(f"the file name {name!r} cannot be written in a table", listed.where, "rename the file")


def _check_apart(pool: Pool, test: ImageSource) -> None:
    if pool.root is None:
        shared = sorted(set(pool.ids) & set(test.names))
    else:
        here = {(pool.root / name).resolve() for name in pool.ids}
        shared = sorted(name for name in test.names if (Path(test.name) / name).resolve() in here)
    if shared:
        what = f"{len(shared)} images to test on are in the target as well, first {some(shared)}"
        raise UserError(what, "--target-test", "leave them out of one of the two")


def _kept(images: ImageSource, gone: set[str]) -> ImageSource:
    return images.subset([index for index, name in enumerate(images.names) if name not in gone])


def _existing(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.exists() and not path.parent.is_dir():
        raise UserError(f"no such folder, file or dataset: {text}", fix=nearest(text, EMBEDDED))
    if not path.exists() and nearest(text, EMBEDDED) and "/" not in text:
        raise UserError(f"no such folder, file or dataset: {text}", fix=nearest(text, EMBEDDED))
    return path
