"""Strategies that look at the gradient of a loss at the embedding or the classifier; all in closed form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.adapt.query.catalog import QuerySettings
from vtk_cli.adapt.query.outputs import Picks, PoolOutputs
from vtk_cli.adapt.query.ranking import highest, probability_gap


def gradient_distances(errors: Tensor, embeddings: Tensor, index: int) -> Tensor:
    """Squared distances of the outer products a z^T of N images to that of one, without making any of them.

    |a z^T - a' z'^T|^2 = |a|^2 |z|^2 + |a'|^2 |z'|^2 - 2 (a . a') (z . z').

    Args:
        errors: a (N, C).
        embeddings: z (N, D).
        index: of the one.

    Returns:
        (N,), at least 0.
    """
    squares = errors.square().sum(1) * embeddings.square().sum(1)
    together = (errors @ errors[index]) * (embeddings @ embeddings[index])
    return (squares + squares[index] - 2 * together).clamp_min(0)


def badge_query(outputs: PoolOutputs, count: int, rng: np.random.Generator) -> Picks:
    """k-means++ on the gradients (p - onehot(argmax)) z^T of the classifier (BADGE, arXiv 1906.03671, Algorithm 1).

    The first is the one with the largest gradient. The score is the squared distance when it was chosen, of the first
    the squared norm.
    """
    p = outputs.probabilities
    errors = p - F.one_hot(p.argmax(1), p.shape[1])
    embeddings = outputs.embeddings.double()
    squares = errors.square().sum(1) * embeddings.square().sum(1)
    chosen: list[int] = []
    scores: list[float] = []
    nearest = torch.full((len(outputs),), torch.inf, dtype=torch.float64)
    for _ in range(count):
        index = _next(squares if not chosen else nearest, chosen, rng)
        scores.append(float(squares[index] if not chosen else nearest[index]))
        chosen.append(index)
        nearest = torch.minimum(nearest, gradient_distances(errors, embeddings, index))
        nearest[chosen] = 0
    return Picks(tuple(outputs.ids[index] for index in chosen), tuple(scores))


def sdm_scores(outputs: PoolOutputs, weight: float) -> Tensor:
    """(p1 - p2) - weight cos(d(p1 - p2)/dz, p1 g1 + p2 g2), g_j = -d CE(o, j)/dz, j the best two classes (SDM-AG).

    arXiv 2203.05738, Section 3.3. With o = W z + b, both gradients are W^T of something: g_j = W^T (e_j - p) and
    d(p1 - p2)/dz = W^T (p1 e_1 - p2 e_2 - (p1 - p2) p).

    Returns:
        (N,); low: uncertain, and training on the likely label would not settle it.

    Raises:
        ValueError: the outputs have no classifier.
    """
    if outputs.classifier is None:
        raise ValueError("the outputs have no classifier")
    p = outputs.probabilities
    gap = probability_gap(outputs.logits)
    if p.shape[1] < 2:
        return gap
    best = p.topk(2, dim=1)
    kept = torch.zeros_like(p)
    signed = kept.scatter(1, best.indices, best.values * torch.tensor([1.0, -1.0], dtype=p.dtype))
    likely = kept.scatter(1, best.indices, best.values)
    W = outputs.classifier.double()
    of_margin = (signed - gap[:, None] * p) @ W
    of_losses = (likely - best.values.sum(1, keepdim=True) * p) @ W
    return gap - weight * F.cosine_similarity(of_margin, of_losses, dim=1)


def sdm_query(outputs: PoolOutputs, count: int, settings: QuerySettings) -> Picks:
    """The lowest `sdm_scores`; the score is theirs, negative."""
    return highest(outputs, -sdm_scores(outputs, settings.sdm_weight), count)


def _next(weights: Tensor, chosen: list[int], rng: np.random.Generator) -> int:
    """The largest weight first, then a draw by weight; where all that is left weighs nothing, the first left."""
    if not chosen:
        return int(weights.argmax())
    total = float(weights.sum())
    if total > 0:
        return int(rng.choice(len(weights), p=(weights / total).numpy()))
    taken = set(chosen)
    return next(index for index in range(len(weights)) if index not in taken)
