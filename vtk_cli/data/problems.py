"""What is wrong with a dataset: the finding that readers collect and `vtk data check` reports."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

NAMED = 5
"""How many of many offenders with the same fault are named."""


@dataclass(frozen=True)
class Problem:
    """One wrong entry.

    Args:
        where: the entry, e.g. `val.txt:17` or `instances_val.json: annotation 4 (bbox [3, 2, 0, 5])`.
        what: what is wrong, in the same words for every entry with that fault, so that faults can be counted.
    """

    where: str
    what: str


@dataclass(frozen=True)
class Audit:
    """The result of checking a dataset.

    Args:
        name: the name or path that was checked.
        kind: `images`, `coco`, `yolo`, `voc` or `video`.
        entries: how many entries were looked at: images, clips; with boxes images and annotations.
        problems: what is wrong, in the order found; empty for a clean dataset.
    """

    name: str
    kind: str
    entries: int
    problems: tuple[Problem, ...]

    def counts(self) -> dict[str, int]:
        """How often each fault was found, the most frequent first."""
        return dict(Counter(problem.what for problem in self.problems).most_common())


def told(problems: Sequence[Problem]) -> str:
    """Each fault with its count and where it is first, in a line."""
    faults = by_fault(problems)
    shown = NAMED if len(faults) == 1 else 1
    return ", ".join(f"{len(places)} x {what} (first {'; '.join(places[:shown])})" for what, places in faults)


def by_fault(problems: Sequence[Problem]) -> list[tuple[str, list[str]]]:
    """(fault, where it is) for each fault, the most frequent first."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for problem in problems:
        places[problem.what].append(problem.where)
    return sorted(places.items(), key=lambda item: -len(item[1]))
