"""A linear probe: a logistic regression on standardised features that were computed once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vtk_cli.errors import UserError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A logistic regression that is fitted.

    Args:
        scaler: features to mean 0 and variance 1, by the training features.
        regression: on those.
        classes: how many there are, also those that no training feature had.
    """

    scaler: StandardScaler
    regression: LogisticRegression
    classes: int

    def probabilities(self, features: NDArray[np.floating]) -> Floats:
        """(n, D) features to (n, classes) probabilities; a class that was never seen has none."""
        found = np.zeros((len(features), self.classes))
        scaled = self.scaler.transform(np.asarray(features, np.float64))
        found[:, self.regression.classes_] = self.regression.predict_proba(scaled)
        return found


def fit_probe(
    features: NDArray[np.floating], labels: NDArray[np.int64], *, classes: int, penalty: float = 1.0
) -> LinearProbe:
    """Fit the probe; the same features give the same probe.

    Args:
        features: (n, D).
        labels: (n,) of 0 ... classes - 1.
        classes: how many there are.
        penalty: of the squared weights, against the summed loss: 1 / C.

    Raises:
        UserError: the videos are of one class only.
    """
    if len(np.unique(labels)) < 2:
        raise UserError("the videos to fit the probe on are of one class only", "DATA", "give videos of two or more")
    scaler = StandardScaler().fit(np.asarray(features, np.float64))
    regression = LogisticRegression(C=1 / penalty, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after 1,000 rounds what is left changes no answer
        regression.fit(scaler.transform(np.asarray(features, np.float64)), labels)
    return LinearProbe(scaler, regression, classes)
