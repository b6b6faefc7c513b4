"""What is wrong with a dataset: the finding that readers collect and `vtk data check` reports."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


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
