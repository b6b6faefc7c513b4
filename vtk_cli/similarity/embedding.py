"""Networks as points on a plane, close where they share vulnerabilities (arXiv 2210.11407, Figure 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.manifold import TSNE, smacof

from vtk_cli.errors import UserError
from vtk_cli.similarity.clusters import sat_distance
from vtk_cli.similarity.sat import Floats

FEWEST_FOR_TSNE = 10


@dataclass(frozen=True)
class Embedding:
    """N networks on a plane.

    Args:
        points: (N, 2); only relative positions mean something.
        method: `t-SNE` or `MDS`.
    """

    points: Floats
    method: str


def embed(score: Floats, seed: int = 0) -> Embedding:
    """Place networks on a plane by their distances ln 100 - SAT: t-SNE, or MDS where there are fewer than 10.

    Args:
        score: (N, N) SAT, symmetric and finite.
        seed: of the random start.

    Raises:
        UserError: fewer than 3 networks.
    """
    if len(score) < 3:
        raise UserError(f"a map of {len(score)} networks", fix="give at least 3")
    if len(score) < FEWEST_FOR_TSNE:
        return Embedding(mds(sat_distance(score), seed), "MDS")
    return Embedding(tsne(sat_distance(score), seed), "t-SNE")


def tsne(distance: Floats, seed: int = 0) -> Floats:
    """t-SNE of an (N, N) distance matrix with perplexity min(30, (N - 1) / 3): neighbourhoods, not distances, are kept.

    Returns:
        (N, 2)
    """
    model = TSNE(metric="precomputed", init="random", perplexity=min(30.0, (len(distance) - 1) / 3), random_state=seed)
    return np.asarray(model.fit_transform(distance), dtype=np.float64)


def mds(distance: Floats, seed: int = 0) -> Floats:
    """Metric multidimensional scaling (SMACOF, best of 8 random starts): the plane's distances fit `distance`.

    Returns:
        (N, 2), centred, turned so that the widest direction is horizontal.
    """
    points, _ = smacof(
        distance, n_components=2, n_init=8, max_iter=500, eps=1e-9, random_state=seed, normalized_stress=False
    )
    centred = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(centred @ axes.T, dtype=np.float64)
