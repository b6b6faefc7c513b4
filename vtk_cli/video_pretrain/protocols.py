"""The protocols of `vtk video-pretrain eval` that need features alone: neighbours, a logistic probe, retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.linear_probe import LinearProbe, fit_probe
from vtk_cli.video_pretrain.looking import Found
from vtk_cli.video_pretrain.neighbours import RECALL_AT, knn_scores, recall_at
from vtk_cli.video_pretrain.scores import Answers


@dataclass(frozen=True, eq=False)
class Bank:
    """Training videos whose features are known.

    Args:
        found: their features.
        labels: of all videos of the list.
        classes: how many there are.
    """

    found: Found
    labels: list[int]
    classes: int

    @property
    def targets(self) -> NDArray[np.int64]:
        """(n,) labels of the videos that were decoded."""
        return labels_of(self.found, self.labels)


def labels_of(found: Found, labels: list[int]) -> NDArray[np.int64]:
    """(n,) labels of the videos that were decoded."""
    return np.array([labels[index] for index in found.indices.tolist()], np.int64)


def answers_of(found: Found, scores: NDArray[Any], labels: list[int]) -> Answers:
    """Scores (n, K) with the labels of the videos that were decoded."""
    return Answers(found.indices, labels_of(found, labels), np.asarray(scores, np.float64))


def by_neighbours(queries: Found, bank: Bank, *, k: int, temperature: float) -> NDArray[Any]:
    """(n, K): the votes of the nearest training videos."""
    votes = knn_scores(
        torch.from_numpy(queries.features),
        torch.from_numpy(bank.found.features),
        torch.from_numpy(bank.targets),
        classes=bank.classes,
        k=k,
        temperature=temperature,
    )
    found: NDArray[Any] = votes.numpy()
    return found


def probe_of(bank: Bank) -> LinearProbe:
    """A logistic regression on the training videos: from features to (n, K)."""
    return fit_probe(bank.found.features, bank.targets, classes=bank.classes)


def retrieval(queries: Found, query_labels: list[int], bank: Bank) -> Mapping[int, float]:
    """R@k: the share of test videos that have one of their class among the k nearest training videos.

    Raises:
        UserError: there are fewer training videos than the largest k.
    """
    if len(bank.found.indices) < max(RECALL_AT):
        what = f"{len(bank.found.indices)} training videos are fewer than the {max(RECALL_AT)} of R@{max(RECALL_AT)}"
        raise UserError(what, "DATA", "give more videos")
    return recall_at(
        torch.from_numpy(queries.features),
        torch.from_numpy(labels_of(queries, query_labels)),
        torch.from_numpy(bank.found.features),
        torch.from_numpy(bank.targets),
    )
