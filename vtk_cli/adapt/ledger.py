"""The labels of a run as they came in, one row each, and what they make of the pool.

Rows are only ever added. A later row of an image takes the place of an earlier one, and a row of origin `undo` takes
back every row of its round that stands before it. So the file tells the whole story, and what counts follows from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Origin = Literal["human", "oracle", "extra", "audit", "undo"]
"""Who said it: a person, the simulated one, a person unasked; an image of the audit; the end of a round."""
ORIGINS: Mapping[str, Origin] = {name: name for name in get_args(Origin)}
SKIP, BAD, OTHER = ":skip", ":bad", ":other"
"""Answers that are no class: put back; no usable image; none of the classes (open set)."""
MARKS = (SKIP, BAD, OTHER)


@dataclass(frozen=True, slots=True)
class LabelRow:
    """A row of `labels.csv`.

    Args:
        sample_id: of the image; empty in a row that undoes a round.
        label: a class name or one of `MARKS`.
        round: in which it came.
        origin: who said it.
        time: when, ISO 8601 in UTC.
    """

    sample_id: str
    label: str
    round: int
    origin: Origin
    time: str

    @property
    def is_charged(self) -> bool:
        """Whether it counts against the budget: a class or `OTHER`, and not of the audit."""
        return self.origin not in {"audit", "undo"} and self.label not in {SKIP, BAD}


@dataclass(frozen=True)
class Partition:
    """The images of a pool by what is known of them; every image is in one place. Each in the order of the pool.

    Args:
        labelled: class names by sample id: what may be trained on.
        unlabelled: not waiting for an answer: trained on without labels.
        queried: asked in the open round and not answered.
        other: of none of the classes: not trained on.
        bad: no usable image: out of the pool.
        audit: measured on, never trained on.
    """

    labelled: Mapping[str, str]
    unlabelled: tuple[str, ...]
    queried: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    audit: tuple[str, ...] = ()

    @property
    def without_label(self) -> tuple[str, ...]:
        """What the stage on unlabelled images trains on: `unlabelled`, then `queried`."""
        return (*self.unlabelled, *self.queried)

    def check(self, pool: Sequence[str]) -> None:
        """Hold the parts against the pool.

        Raises:
            ValueError: an image is in two parts, or in none, or is not of the pool.
        """
        parts: tuple[Iterable[str], ...] = (
            self.labelled, self.unlabelled, self.queried, self.other, self.bad, self.audit,
        )  # fmt: skip
        together = [each for part in parts for each in part]
        if len(together) != len(set(together)):
            raise ValueError("an image is in two parts of the pool")
        if set(together) != set(pool):
            raise ValueError("the parts are not the pool")


def standing(rows: Iterable[LabelRow]) -> dict[str, LabelRow]:
    """The rows that count, by sample id: the last of each image, without the rounds that were undone."""
    kept: list[LabelRow] = []
    for row in rows:
        if row.origin == "undo":
            kept = [one for one in kept if one.round != row.round or one.origin == "audit"]
        else:
            kept.append(row)
    return {row.sample_id: row for row in kept}


def charged(rows: Iterable[LabelRow]) -> int:
    """Labels that count against the budget."""
    return sum(row.is_charged for row in standing(rows).values())


def partition(
    pool: Sequence[str], rows: Iterable[LabelRow], *, queried: Collection[str] = (), audit: Collection[str] = ()
) -> Partition:
    """What rows and open questions make of a pool.

    Args:
        pool: sample ids.
        rows: of the ledger.
        queried: asked in the open round, answered or not.
        audit: images of the audit, answered or not.
    """
    said = standing(rows)
    apart, asked = frozenset(audit), frozenset(queried)
    labelled: dict[str, str] = {}
    places: dict[str, list[str]] = {"unlabelled": [], "queried": [], "other": [], "bad": [], "audit": []}
    for name in pool:
        label = said[name].label if name in said else None
        if label == BAD:
            places["bad"].append(name)
        elif name in apart:
            places["audit"].append(name)
        elif label is None:
            places["queried" if name in asked else "unlabelled"].append(name)
        elif label == SKIP:
            places["unlabelled"].append(name)
        elif label == OTHER:
            places["other"].append(name)
        else:
            labelled[name] = label
    return Partition(labelled, **{place: tuple(names) for place, names in places.items()})
