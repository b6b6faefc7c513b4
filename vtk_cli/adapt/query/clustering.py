"""Strategies that spread over the embedding: clusters, and the images nearest to their centres."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.adapt.query.catalog import QuerySettings
from vtk_cli.adapt.query.outputs import Picks, PoolOutputs
from vtk_cli.adapt.query.ranking import highest, predicted_losses

STARTS = 4
"""Of k-means; scikit-learn's own choice differs between its versions."""
AT_ONCE = 2**24
"""Entries of a matrix of all images by all that are in memory at once."""
_TINY = 1e-8

Floats = npt.NDArray[np.float64]


def kmeans_centres(points: Floats, count: int, rng: np.random.Generator, weights: Floats | None = None) -> Floats:
    """Centres (count, D) of k-means over points (N, D), each as heavy as `weights` (N,) says."""
    found = KMeans(count, n_init=STARTS, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():  # fewer different points than clusters: two centres in one place do no harm
        warnings.simplefilter("ignore", ConvergenceWarning)
        found.fit(points, sample_weight=weights)
    return np.asarray(found.cluster_centers_, np.float64)


def nearest_distinct(centres: Floats, points: Floats) -> list[int]:
    """One point for each centre, none for two: the closest pair first, then the closest of what is left.

    Args:
        centres: (k, D), k <= N.
        points: (N, D).

    Returns:
        Indices of points, in the order of the centres.
    """
    distances = np.maximum(
        (centres**2).sum(1)[:, None] + (points**2).sum(1)[None] - 2 * centres @ points.T, 0.0
    )  # (k, N)
    nearest, taken = distances.argmin(1), np.zeros(len(points), bool)
    gap = distances[np.arange(len(centres)), nearest]
    found = np.full(len(centres), -1)
    for _ in range(len(centres)):
        centre = int(np.where(found < 0, gap, np.inf).argmin())
        point = int(nearest[centre])
        found[centre], taken[point] = point, True
        for other in np.flatnonzero((found < 0) & (nearest == point)):
            row = np.where(taken, np.inf, distances[other])
            nearest[other], gap[other] = row.argmin(), row.min()
    return [int(point) for point in found]


def clustered(
    outputs: PoolOutputs, scores: Tensor, count: int, rng: np.random.Generator, weights: Tensor | None = None
) -> Picks:
    """The image nearest to each of `count` centres of k-means; the highest score first, of equals the first id."""
    if count >= len(outputs):
        return highest(outputs, scores, len(outputs))
    points = outputs.embeddings.double().numpy()
    centres = kmeans_centres(points, count, rng, None if weights is None else weights.double().numpy())
    chosen = nearest_distinct(centres, points)
    return highest(outputs.rows(chosen), scores[torch.tensor(chosen)], count)


def clue_weights(logits: Tensor, temperature: float) -> Tensor:
    """-sum p log(p + 1e-8), p = softmax(o / T): (N,) (CLUE, arXiv 2010.08666, equation 2)."""
    p = (logits.double() / temperature).softmax(1)
    return -(p * (p + _TINY).log()).sum(1)


def clue_query(outputs: PoolOutputs, count: int, rng: np.random.Generator, settings: QuerySettings) -> Picks:
    """Clusters of the embedding weighted by entropy (CLUE, arXiv 2010.08666, Algorithm 1); the score is the weight."""
    weights = clue_weights(outputs.logits, settings.temperature)
    heavy = weights.clamp_min(0)
    return clustered(outputs, weights, count, rng, heavy if heavy.sum() > 0 else None)


def loss_diverse_query(outputs: PoolOutputs, count: int, rng: np.random.Generator, settings: QuerySettings) -> Picks:
    """Clusters of those with the highest predicted losses.

    Raises:
        UserError: the model has no loss predictor.
    """
    predicted = predicted_losses(outputs)
    kept = min(settings.loss_candidates * count, len(outputs))
    lossy = outputs.of(highest(outputs, predicted, kept).ids)
    return clustered(lossy, predicted_losses(lossy), count, rng)


def las_scores(outputs: PoolOutputs, neighbours: int) -> Tensor:
    """How unlike its neighbours the prediction of each image is (LADA, arXiv 2208.12856, equations 1 to 3).

    Q_i = -sum_j w_ij p_i . p_j over the nearest by cosine, w their similarity as shares of 1, propagated once:
    Q_i + sum_j w_ij Q_j.

    Returns:
        (N,), -2 to 0; high: unlike.
    """
    p = outputs.probabilities
    count = min(neighbours, len(outputs) - 1)
    if count < 1:
        return torch.zeros(len(outputs), dtype=torch.float64)
    unit = F.normalize(outputs.embeddings.double(), dim=1)
    weights, indices = [], []
    rows = max(1, AT_ONCE // len(unit))
    for start in range(0, len(unit), rows):
        similar = unit[start : start + rows] @ unit.T
        here = torch.arange(len(similar))
        similar[here, here + start] = -torch.inf
        near = similar.topk(count, dim=1)
        weights.append(near.values.clamp_min(0) + _TINY)
        indices.append(near.indices)
    w, at = torch.cat(weights), torch.cat(indices)
    w = w / w.sum(1, keepdim=True)
    own = -(w * torch.einsum("nc,njc->nj", p, p[at])).sum(1)
    return own + (w * own[at]).sum(1)


def las_query(outputs: PoolOutputs, count: int, rng: np.random.Generator, settings: QuerySettings) -> Picks:
    """Clusters of those most unlike their neighbours (LADA, arXiv 2208.12856, Section 3.2), on the unit sphere."""
    scores = las_scores(outputs, settings.neighbours)
    kept = highest(outputs, scores, min(count * (1 + settings.las_candidates), len(outputs)))
    chosen = frozenset(kept.ids)
    at = [index for index, name in enumerate(outputs.ids) if name in chosen]
    unlike = outputs.rows(at)
    on_sphere = PoolOutputs(unlike.ids, unlike.logits, F.normalize(unlike.embeddings, dim=1))
    return clustered(on_sphere, scores[torch.tensor(at)], count, rng)


def coreset_query(outputs: PoolOutputs, labelled: Tensor | None, count: int, rng: np.random.Generator) -> Picks:
    """The farthest first from what is labelled or chosen (k-Center-Greedy, arXiv 1708.00489, Algorithm 1).

    Args:
        outputs: of the candidates.
        labelled: embeddings (n, D) of what is labelled; None or empty: the first is drawn.
        count: how many.
        rng: of that draw.

    Returns:
        In the order of choice; the score is the distance when chosen (NaN of one that was drawn).
    """
    points = outputs.embeddings.double()
    nearest = torch.full((len(points),), torch.inf, dtype=torch.float64)
    if labelled is not None and len(labelled):
        for some in labelled.double().split(max(1, AT_ONCE // max(1, len(points)))):
            nearest = torch.minimum(nearest, torch.cdist(points, some).amin(1))
    chosen: list[int] = []
    scores: list[float] = []
    while len(chosen) < count:
        drawn = bool(nearest.isinf().all())
        index = int(rng.integers(len(points))) if drawn else int(nearest.argmax())
        scores.append(float("nan") if drawn else float(nearest[index]))
        chosen.append(index)
        nearest = torch.minimum(nearest, (points - points[index]).norm(dim=1))
        nearest[index] = -1.0  # also of copies of it, it is not chosen again
    return Picks(tuple(outputs.ids[index] for index in chosen), tuple(scores))
