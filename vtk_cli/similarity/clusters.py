"""Groups of networks that share vulnerabilities: spectral clustering, its stability, and a tree.

Clustering follows arXiv 2210.11407, Figure 1: the scores are edge weights of a graph, k-means runs on the leading
eigenvectors of its normalised Laplacian. The number of clusters is the reader's choice; the scores do not fix it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from vtk_cli.errors import UserError, nearest
from vtk_cli.similarity.sat import MAX_SAT, Floats

STABILITY_SEEDS = 5

Labels = NDArray[np.int64]


def sat_affinity(score: Floats) -> Floats:
    """max(SAT, 0): pairs whose mean transfer is below 1 % are not joined by an edge."""
    return np.maximum(score, 0.0)


def transfer_affinity(score: Floats) -> Floats:
    """exp(SAT), the mean transfer in percent: never negative, and it spreads the close pairs apart."""
    return np.exp(score)


AFFINITIES: MappingProxyType[str, Callable[[Floats], Floats]] = MappingProxyType(
    {"sat": sat_affinity, "exp": transfer_affinity}
)


@dataclass(frozen=True)
class Clusters:
    """A partition of N networks.

    Args:
        labels: (N,) in 0..k-1; cluster 0 is the largest (of equals, the one whose first member comes first).
        stability: mean adjusted Rand index between the partitions of 5 seeds; 1 = the seed does not matter,
            0 = no better than chance.
    """

    labels: Labels
    stability: float

    def members(self, names: tuple[str, ...]) -> list[list[str]]:
        """The names in each cluster, largest cluster first."""
        return [[names[i] for i in np.flatnonzero(self.labels == c)] for c in range(self.labels.max() + 1)]


def spectral_clusters(score: Floats, count: int, affinity: str = "sat", seed: int = 0) -> Clusters:
    """Partition networks by spectral clustering of their scores.

    Args:
        score: (N, N) SAT, symmetric and finite.
        count: clusters, 2 <= count < N.
        affinity: a key of `AFFINITIES`.
        seed: of k-means; the stability compares seeds seed .. seed + 4.

    Raises:
        UserError: `count` or `affinity` is not possible.
    """
    networks = len(score)
    if affinity not in AFFINITIES:
        raise UserError(f"unknown affinity '{affinity}'", fix=nearest(affinity, AFFINITIES) or "give sat or exp")
    if not 2 <= count < networks:
        possible = f"give 2 to {networks - 1}" if networks > 2 else "clustering needs at least 3 networks"
        raise UserError(f"{count} clusters of {networks} networks", fix=possible)
    weights = AFFINITIES[affinity](score)
    partitions = [_partition(weights, count, seed + offset) for offset in range(STABILITY_SEEDS)]
    agreement = [adjusted_rand_score(one, other) for one, other in combinations(partitions, 2)]
    return Clusters(_largest_first(partitions[0]), float(np.mean(agreement)))


@dataclass(frozen=True)
class Tree:
    """A hierarchy of N networks.

    Args:
        linkage: (N - 1, 4) as scipy's `linkage` gives it; heights are distances ln 100 - SAT.
        order: (N,) the networks from left to right under the tree, neighbours as similar as the tree allows.
    """

    linkage: Floats
    order: Labels


def dendrogram(score: Floats) -> Tree:
    """Average-linkage tree of the distances ln 100 - SAT.

    Args:
        score: (N, N) SAT, symmetric and finite, N >= 2.
    """
    merges = linkage(squareform(sat_distance(score), checks=False), method="average", optimal_ordering=True)
    return Tree(merges, leaves_list(merges).astype(np.int64))


def sat_distance(score: Floats) -> Floats:
    """ln 100 - SAT with a zero diagonal: (N, N), never negative, symmetric."""
    distance = np.maximum(MAX_SAT - score, 0.0)
    np.fill_diagonal(distance, 0.0)
    return distance


def _partition(weights: Floats, count: int, seed: int) -> Labels:
    model = SpectralClustering(
        n_clusters=count, affinity="precomputed", assign_labels="kmeans", n_init=20, random_state=seed
    )
    with warnings.catch_warnings():
        # Networks that share no edge are separate clusters, which is what the eigenvectors of eigenvalue 0 say.
        warnings.filterwarnings("ignore", message="Graph is not fully connected", category=UserWarning)
        labels: Labels = model.fit_predict(weights).astype(np.int64)
    return labels


def _largest_first(labels: Labels) -> Labels:
    found, first, size = np.unique(labels, return_index=True, return_counts=True)
    ranked = found[np.lexsort((first, -size))]
    return np.argsort(ranked)[np.searchsorted(found, labels)].astype(np.int64)
