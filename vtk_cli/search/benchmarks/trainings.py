"""The layout that NAS-Bench-201 (arXiv 2001.00326) and NATS-Bench (arXiv 2009.00437) share.

A file of theirs is a dict of `meta_archs`, the text of every architecture, `evaluated_indexes`, and `arch2infos`, which
holds for each index the trainings by their length: `less` (12 epochs) and `full` (200), or `12` and `200`. NATS-Bench
also comes as a folder with a file for each index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vtk_cli.errors import UserError
from vtk_cli.search.benchmarks.benchmark import Row

_EPOCHS = {"less": "12", "full": "200"}
_MILLION = 1e6
_FIX = "known are NAS-Bench-201 v1.0 and v1.1, and the topologies of NATS-Bench 1.0"


def meta_archs(content: Any, name: str) -> list[str]:
    """The architectures of a file, by index.

    Raises:
        UserError: it has no `meta_archs`, or they are not text.
    """
    if not isinstance(content, Mapping) or "meta_archs" not in content:
        raise UserError("has no 'meta_archs': it is of another version or no benchmark", name, _FIX)
    archs = content["meta_archs"]
    if not isinstance(archs, list) or not archs or not all(isinstance(arch, str) for arch in archs):
        raise another_version("'meta_archs' is no list of text", name)
    if len(set(archs)) < len(archs):
        raise another_version("'meta_archs' holds an architecture twice", name)
    return archs


def file_rows(content: dict[str, Any], name: str) -> Iterator[Row]:
    """The rows of a whole file, which is emptied on the way: the large one takes most of a machine's memory.

    Raises:
        UserError: it is not laid out as described above.
    """
    archs, infos = meta_archs(content, name), content.get("arch2infos")
    if not isinstance(infos, dict) or not infos:
        raise another_version("it has no 'arch2infos'", name)
    for index in sorted(infos):
        if not isinstance(index, int) or not 0 <= index < len(archs):
            raise another_version(f"there is no architecture {index!r}", name)
        yield from entry_rows(archs[index], infos.pop(index), name)


def entry_rows(arch: str, entry: Any, name: str) -> list[Row]:
    """The rows of one architecture, after the last epoch of each of its trainings.

    Args:
        arch: what `meta_archs` calls it.
        entry: the trainings by length.
        name: of the file, for messages.

    Raises:
        UserError: the entry is not laid out as described above, or is of another architecture.
    """
    if not isinstance(entry, Mapping):
        raise another_version(f"the entry of {arch} is no dict", name)
    rows: list[Row] = []
    try:
        for length, info in entry.items():
            if info["arch_str"] != arch:
                raise another_version(f"the entry of {arch} says {info['arch_str']}", name)
            for (dataset, seed), result in info["all_results"].items():
                rows += _training_rows(arch, str(dataset), _EPOCHS.get(length, str(length)), int(seed), result)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        missing = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read: {error}"
        raise another_version(f"the entry of {arch} {missing}", name) from error
    return rows


def another_version(what: str, name: str) -> UserError:
    """What is said of a file with another layout."""
    return UserError(f"is of another version or damaged: {what}", name, _FIX)


def _training_rows(arch: str, dataset: str, hp: str, seed: int, result: Mapping[str, Any]) -> Iterator[Row]:
    last = int(result["epochs"]) - 1
    flops, params = _MILLION * float(result["flop"]), _MILLION * float(result["params"])
    splits = {"train": (result["train_acc1es"].get(last), result["train_losses"].get(last))}
    for key, accuracy in result["eval_acc1es"].items():
        split, _, epoch = key.rpartition("@")
        if int(epoch) == last:
            splits[split] = (accuracy, result["eval_losses"].get(key))
    for split, (accuracy, loss) in splits.items():
        if accuracy is not None:
            yield Row(arch, dataset, split, hp, seed, float(accuracy), _number(loss), flops, params)


def _number(value: Any) -> float | None:
    """A loss; what diverged has none."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
