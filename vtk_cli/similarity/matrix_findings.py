"""What can be said of a matrix of SAT scores alone: its heat map and tree, its clusters, its map, its families."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from vtk_cli.reports.heatmap import SecondScale, draw_heatmap
from vtk_cli.reports.scatter import draw_scatter
from vtk_cli.similarity.clusters import Clusters, dendrogram
from vtk_cli.similarity.embedding import embed
from vtk_cli.similarity.sat import Floats
from vtk_cli.similarity.section import Section
from vtk_cli.similarity.statistics import family_means, separate_families, summarise

MOST_CLUSTERS = 10
"""The published number of clusters; its eigengaps do not single it out, so it is the reader's choice."""

_TRANSFER_MARKS = {math.log(percent): f"{percent} %" for percent in (0.1, 0.5, 1, 2, 5, 10, 20, 50, 100)}


@dataclass(frozen=True)
class Heading:
    """What a matrix is called where it is drawn and described."""

    title: str
    value: str
    second_scale: SecondScale | None = None


RAW = Heading(
    "Similarity by attack transferability (SAT)", "SAT", SecondScale("mean transfer", MappingProxyType(_TRANSFER_MARKS))
)
CENTRED = Heading("SAT, each network's own level taken out", "centred SAT")
"""Centred scores are differences: no transfer belongs to them."""


def default_cluster_count(networks: int) -> int:
    """N / 2, at least 2 and at most 10."""
    return max(2, min(MOST_CLUSTERS, networks // 2))


def heat_map(names: Sequence[str], score: Floats, clusters: Clusters, heading: Heading) -> Section:
    """The matrix, in the order of its dendrogram."""
    tree = dendrogram(score)
    groups = [f"cluster {label + 1}" for label in clusters.labels]

    def draw(folder: Path) -> Path:
        return draw_heatmap(
            folder / "heatmap",
            score,
            names,
            title=heading.title,
            subtitle="rows and columns in the order of the tree (average linkage of ln 100 - SAT)",
            value_label=f"{heading.value} (nats)",
            linkage=tree.linkage,
            groups=groups,
            second_scale=heading.second_scale,
        ).svg

    summary = summarise(names, score)
    rows = [
        ("pairs", len(names) * (len(names) - 1) // 2),
        (f"mean {heading.value}", f"{summary.mean:.4f}"),
        ("standard deviation", f"{summary.sd:.4f}"),
        ("median", f"{summary.median:.4f}"),
        ("least alike", f"{summary.least.first} / {summary.least.second} ({summary.least.value:.4f})"),
        ("most alike", f"{summary.most.first} / {summary.most.second} ({summary.most.value:.4f})"),
    ]
    data = {
        "mean": summary.mean,
        "sd": summary.sd,
        "median": summary.median,
        "least": [summary.least.first, summary.least.second, summary.least.value],
        "most": [summary.most.first, summary.most.second, summary.most.value],
        "tree_order": [names[index] for index in tree.order],
        "linkage": tree.linkage,
    }
    return Section("matrix", "The matrix", data, ("", "off the diagonal"), rows, draw=draw)


def cluster_table(names: Sequence[str], clusters: Clusters, affinity: str) -> Section:
    """Which networks are in which cluster."""
    members = clusters.members(tuple(names))
    rows = [(index + 1, len(group), ", ".join(group)) for index, group in enumerate(members)]
    note = (
        f"Spectral clustering ({affinity} affinity), k = {len(members)} by choice; over 5 seeds the partitions agree"
        f" with a mean adjusted Rand index of {clusters.stability:.2f} (1 = always the same)."
    )
    data = {"k": len(members), "affinity": affinity, "stability": clusters.stability, "members": members}
    return Section("clusters", "Clusters", data, ("cluster", "size", "networks"), rows, note)


def network_map(names: Sequence[str], score: Floats, clusters: Clusters, seed: int) -> Section:
    """The networks on a plane, by t-SNE (MDS where there are fewer than 10)."""
    embedding = embed(score, seed)

    def draw(folder: Path) -> Path:
        return draw_scatter(
            folder / "tsne",
            embedding.points,
            names,
            groups=[f"cluster {label + 1}" for label in clusters.labels],
            title=f"Networks by similarity ({embedding.method})",
            subtitle="distance = ln 100 - SAT; only relative positions mean something",
        ).svg

    data = {"method": embedding.method, "points": embedding.points}
    return Section("map", f"Map ({embedding.method})", data, draw=draw)


def families(names: Sequence[str], score: Floats, family: Sequence[str]) -> Section | None:
    """Similarity within and between base architectures; None where there is only one, or none twice."""
    if len(set(family)) < 2 or len(set(family)) == len(family):
        return None
    apart = separate_families(score, family)
    known, means = family_means(score, family)
    rows = [
        (kind, *(f"{mean:.3f}" if np.isfinite(mean) else "-" for mean in line))
        for kind, line in zip(known, means, strict=True)
    ]
    note = (
        f"Pairs of the same base architecture: mean {apart.within:.4f}; of different ones: {apart.between:.4f}."
        f" ROC-AUC of 'same base architecture' {apart.auc:.3f};"
        f" the nearest network is of the same kind for {100 * apart.nearest:.1f} %."
    )
    data = {
        "families": dict(zip(names, family, strict=True)),
        "within": apart.within,
        "between": apart.between,
        "auc": apart.auc,
        "nearest": apart.nearest,
        "means": {"families": known, "sat": means},
    }
    return Section("families", "Base architectures", data, ("mean SAT", *known), rows, note)
