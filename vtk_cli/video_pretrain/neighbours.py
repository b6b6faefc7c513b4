"""What features say without any training: nearest neighbours and retrieval, by the cosine. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

RECALL_AT = (1, 5, 10, 20)
_CHUNK = 1024
"""Queries whose similarities are in memory at a time."""


def knn_scores(
    queries: Tensor, bank: Tensor, labels: Tensor, *, classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """The weighted vote of the k nearest neighbours (arXiv 1805.01978, Section 3.4).

    Args:
        queries: (Q, D) features; any length, the cosine counts.
        bank: (N, D) features of known class.
        labels: (N,) int64, theirs.
        classes: how many there are.
        k: neighbours; at most N are taken.
        temperature: a neighbour votes with exp(cosine / temperature).

    Returns:
        (Q, classes) shares of the votes, each row sums to 1.
    """
    known = F.normalize(bank.float(), dim=1)
    votes = []
    for chunk in F.normalize(queries.float(), dim=1).split(_CHUNK):
        near, which = (chunk @ known.T).topk(min(k, len(known)), dim=1)
        weights = ((near - near[:, :1]) / temperature).exp()  # the largest is 1: no temperature overflows
        counted = torch.zeros(len(chunk), classes, device=chunk.device)
        counted.scatter_add_(1, labels.to(chunk.device)[which], weights)
        votes.append(counted / counted.sum(dim=1, keepdim=True))
    return torch.cat(votes) if votes else queries.new_zeros(0, classes)


def recall_at(
    queries: Tensor, query_labels: Tensor, bank: Tensor, labels: Tensor, ranks: Sequence[int] = RECALL_AT
) -> dict[int, float]:
    """Retrieval R@k: the share of queries that have one of their class among the k nearest of the bank.

    Args:
        queries: (Q, D), Q at least 1.
        query_labels: (Q,).
        bank: (N, D).
        labels: (N,).
        ranks: the k.

    Returns:
        k -> share in [0, 1].
    """
    known = F.normalize(bank.float(), dim=1)
    found: dict[int, list[Tensor]] = {k: [] for k in ranks}
    most = min(max(ranks), len(known))
    pairs = zip(F.normalize(queries.float(), dim=1).split(_CHUNK), query_labels.split(_CHUNK), strict=True)
    for chunk, wanted in pairs:
        which = (chunk @ known.T).topk(most, dim=1).indices
        same = labels.to(chunk.device)[which] == wanted.to(chunk.device)[:, None]
        for k in ranks:
            found[k].append(same[:, :k].any(dim=1))
    return {k: float(torch.cat(hits).double().mean()) for k, hits in found.items()}


def nearest(queries: Tensor, bank: Tensor, count: int) -> Tensor:
    """(Q, count) indices of the nearest of the bank, the nearest first."""
    known = F.normalize(bank.float(), dim=1)
    return (F.normalize(queries.float(), dim=1) @ known.T).topk(min(count, len(known)), dim=1).indices
