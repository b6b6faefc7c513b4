"""What a classifier's answers are worth: pure functions and records of per-sample answers, no network.

Every number is a mean over per-sample records in the order of the samples, in float64, so that it does not depend on
how the samples were shared among batches and processes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CALIBRATION_BINS = 15
"""As in arXiv 1706.04599."""


@dataclass(frozen=True, eq=False)
class PointAnswers:
    """Where the point head pointed (arXiv 2303.17595), n samples with P points each.

    Args:
        predicted: (n, P, 2) x and y as fractions of the crop; may lie outside it.
        points: (n, P, 2) the clicks, in [0, 1].
        present: (n, P) whether there is a click in the crop.
        side: of the square crop in pixels.
        boxes: (n, P, 4) left, top, right, bottom as fractions of the crop, beyond [0, 1] where the crop cuts them; all
            0 where there is none. None where the data has no boxes.
    """

    predicted: Floats
    points: Floats
    present: Bools
    side: int
    boxes: Floats | None = None

    @property
    def count(self) -> int:
        """How many clicks there are to compare with."""
        return int(self.present.sum())

    @property
    def click_error_px(self) -> float:
        """The mean distance between predicted point and click, in pixels of the crop; NaN without clicks."""
        distances = np.linalg.norm(self.predicted - self.points, axis=-1)[self.present]
        return float(distances.mean() * self.side) if distances.size else float("nan")

    @property
    def click_error(self) -> float:
        """The mean distance between predicted point and click, as a share of the crop's diagonal."""
        return self.click_error_px / (self.side * 2**0.5)

    @property
    def pointing_hits(self) -> float:
        """The pointing game: the share of predicted points inside the object's box; NaN without boxes.

        Counted over every box, whether there is a click or not.
        """
        if self.boxes is None:
            return float("nan")
        has_box = np.all(self.boxes[..., 2:] > self.boxes[..., :2], axis=-1)
        inside = np.all((self.predicted >= self.boxes[..., :2]) & (self.predicted <= self.boxes[..., 2:]), axis=-1)
        return float(inside[has_box].mean()) if has_box.any() else float("nan")

    def scalars(self) -> dict[str, float]:
        """The numbers for a row of metrics."""
        found = {"click_error": self.click_error, "click_error_px": self.click_error_px}
        return found if self.boxes is None else {**found, "pointing_hits": self.pointing_hits}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A classifier's answers to n samples of one label each.

    Args:
        indices: (n,) ascending: which samples these are; those that could not be read are missing.
        targets: (n,) the labels, 0 ... classes - 1.
        predictions: (n,) the classes with the largest logit.
        in_top5: (n,) whether the label is among the five largest logits.
        losses: (n,) -log of the label's softmax probability, in nats.
        confidences: (n,) the softmax probability of the prediction.
        classes: how many there are.
        points: what the point head answered, where there is one.
    """

    indices: Ints
    targets: Ints
    predictions: Ints
    in_top5: Bools
    losses: Floats
    confidences: Floats
    classes: int
    points: PointAnswers | None = None

    @property
    def n(self) -> int:
        """How many samples were answered."""
        return len(self.targets)

    @property
    def correct(self) -> Bools:
        """(n,) whether the prediction is the label."""
        return np.asarray(self.predictions == self.targets)

    @property
    def top1(self) -> float:
        """The share of right answers, in [0, 1]."""
        return float(self.correct.mean())

    @property
    def top5(self) -> float:
        """The share of samples whose label is among the five best answers, in [0, 1]."""
        return float(self.in_top5.mean())

    @property
    def nll(self) -> float:
        """The mean negative log-likelihood of the labels under the softmax, in nats."""
        return float(self.losses.mean())

    @property
    def ece(self) -> float:
        """The expected calibration error of the softmax probabilities, in [0, 1]."""
        return expected_calibration_error(self.confidences, self.correct)

    @cached_property
    def per_class(self) -> Floats:
        """(classes,) the share of each class's samples that were answered right; NaN for a class without samples."""
        counts = np.bincount(self.targets, minlength=self.classes)
        right = np.bincount(self.targets[self.correct], minlength=self.classes)
        shares: Floats = np.divide(right, counts, out=np.full(self.classes, np.nan), where=counts > 0)
        return shares

    @cached_property
    def confusion(self) -> Ints:
        """(classes, classes) how often the row's class was taken for the column's."""
        pairs = np.bincount(self.targets * self.classes + self.predictions, minlength=self.classes**2)
        return pairs.reshape(self.classes, self.classes)

    def accuracy_in(self, label_sets: Sequence[Collection[int]]) -> tuple[float, int]:
        """`accuracy_in_sets`, with a label set for each sample of the whole set."""
        return accuracy_in_sets(self.predictions, [label_sets[index] for index in self.indices])

    def scalars(self) -> dict[str, float]:
        """The numbers for a row of metrics; all in [0, 1] but `nll` and pixels."""
        points = self.points.scalars() if self.points is not None else {}
        return {"top1": self.top1, "top5": self.top5, "nll": self.nll, "ece": self.ece, **points}


@dataclass(frozen=True, eq=False)
class MultiLabelEvaluation:
    """A classifier's answers to n samples of any number of labels each.

    Args:
        indices: (n,) ascending: which samples these are.
        targets: (n, K) whether the sample shows the class.
        logits: (n, K).
        points: what the point head answered, where there is one.
    """

    indices: Ints
    targets: Bools
    logits: Floats
    points: PointAnswers | None = None

    @property
    def n(self) -> int:
        """How many samples were answered."""
        return len(self.targets)

    @cached_property
    def per_class(self) -> Floats:
        """(K,) the average precision of each class; NaN for a class that no sample shows."""
        return average_precisions(self.logits, self.targets)

    @property
    def mean_ap(self) -> float:
        """The mean average precision over the classes that some sample shows, in [0, 1]; NaN where there is none."""
        return float(np.nanmean(self.per_class)) if np.isfinite(self.per_class).any() else float("nan")

    @property
    def bce(self) -> float:
        """The mean binary cross entropy over samples and classes, in nats."""
        signed = np.where(self.targets, self.logits, -self.logits)
        return float(np.logaddexp(0.0, -signed).mean())

    def scalars(self) -> dict[str, float]:
        """The numbers for a row of metrics."""
        points = self.points.scalars() if self.points is not None else {}
        return {"map": self.mean_ap, "bce": self.bce, **points}


def expected_calibration_error(confidences: Floats, correct: Bools, bins: int = CALIBRATION_BINS) -> float:
    """The mean distance between confidence and accuracy over bins of equal width (arXiv 1706.04599, Section 2).

    Args:
        confidences: (n,) in [0, 1].
        correct: (n,).
        bins: how many; bin m holds confidences in ((m - 1) / bins, m / bins].
    """
    bin_of = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=confidences - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))


def average_precisions(scores: Floats, targets: Bools) -> Floats:
    """The average precision of each class: the area under its precision-recall curve, as a sum of steps.

    Args:
        scores: (n, K), any increasing function of the probability.
        targets: (n, K).

    Returns:
        (K,) in [0, 1]; NaN for a class that no sample shows.
    """
    from sklearn.metrics import average_precision_score  # takes a second

    found = [
        average_precision_score(shown, score) if shown.any() else np.nan
        for shown, score in zip(targets.T, scores.T, strict=True)
    ]
    return np.array(found, dtype=np.float64)


def accuracy_in_sets(predictions: Ints, label_sets: Sequence[Collection[int]]) -> tuple[float, int]:
    """The ReaL accuracy: an answer is right if it is any of the labels that people found (arXiv 2006.07159).

    Args:
        predictions: (n,).
        label_sets: n; an image with an empty set is left out.

    Returns:
        The accuracy, in [0, 1] (NaN where every set is empty), and how many images it is over.
    """
    right = [
        int(prediction) in labels for prediction, labels in zip(predictions, label_sets, strict=True) if len(labels)
    ]
    return (sum(right) / len(right) if right else float("nan")), len(right)


def backgrounds_gap(mixed_same: float, mixed_rand: float) -> float:
    """How much of the accuracy hangs on the background (the BG-Gap of arXiv 2006.09994).

    Args:
        mixed_same: accuracy with backgrounds of the same class.
        mixed_rand: accuracy with backgrounds of random classes.
    """
    return mixed_same - mixed_rand


def most_confident_mistakes(evaluation: Evaluation, count: int) -> Ints:
    """Positions (not sample indices) of up to `count` wrong answers, the surest first."""
    wrong = np.flatnonzero(~evaluation.correct)
    return wrong[np.argsort(-evaluation.confidences[wrong], kind="stable")][:count]
