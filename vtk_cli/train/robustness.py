"""The report card of a classifier: one number for every set that it was examined on besides its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from vtk_cli.models.accuracy import Evaluation, MultiLabelEvaluation, backgrounds_gap

_SAME, _RAND = "mixed_same", "mixed_rand"


@dataclass(frozen=True)
class SetScore:
    """How a classifier does on a set.

    Args:
        name: of the set.
        measure: `top-1`, `ReaL` (arXiv 2006.07159), `mAP`, `BG-Gap` (arXiv 2006.09994) or `AUPR` (arXiv 1907.07174).
        value: in [0, 1]; a gap may be negative; NaN where no image counts.
        images: how many it is over.
    """

    name: str
    measure: str
    value: float
    images: int


@dataclass(frozen=True, eq=False)
class Examined:
    """A set and what was answered to it.

    Args:
        evaluation: of the set.
        label_sets: the right labels of each image of the set, where these are several (ReaL).
    """

    evaluation: Evaluation | MultiLabelEvaluation
    label_sets: Sequence[Collection[int]] | None = None


def report_card(sets: Mapping[str, Examined]) -> list[SetScore]:
    """One score a set; where both are there, also the gap between `mixed_same` and `mixed_rand`.

    Args:
        sets: by name; the Backgrounds Challenge is recognised by names that end in `mixed_same` and `mixed_rand`.
    """
    scores = [_score(name, examined) for name, examined in sets.items()]
    for same in scores:
        if not _plain(same.name).endswith(_SAME) or same.measure != "top-1":
            continue
        partner = _plain(same.name).removesuffix(_SAME) + _RAND
        rand = next((score for score in scores if _plain(score.name) == partner), None)
        if rand is not None:
            gap = backgrounds_gap(same.value, rand.value)
            scores = [*scores, SetScore(f"{same.name} - {rand.name}", "BG-Gap", gap, same.images + rand.images)]
    return scores


def _score(name: str, examined: Examined) -> SetScore:
    found = examined.evaluation
    if isinstance(found, MultiLabelEvaluation):
        return SetScore(name, "mAP", found.mean_ap, found.n)
    if examined.label_sets is not None:
        return SetScore(name, "ReaL", *found.accuracy_in(examined.label_sets))
    return SetScore(name, "top-1", found.top1, found.n)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
