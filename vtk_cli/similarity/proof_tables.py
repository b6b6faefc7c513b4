"""The tables and the picture of `vtk proof similarity`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from vtk_cli.reports.curves import Points, draw_points
from vtk_cli.reports.page import Table
from vtk_cli.reports.plots import Picture
from vtk_cli.similarity.clusters import spectral_clusters
from vtk_cli.similarity.measures import agreement, error_consistency
from vtk_cli.similarity.outcome import Result
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.sat import Floats
from vtk_cli.similarity.statistics import Separation, separate_families

RESNET, VIT = "ResNet", "ViT"


@dataclass(frozen=True)
class Evidence:
    """How SAT and the baselines separate the families among some networks."""

    sat: Separation
    agreement: Separation
    error_consistency: Separation
    worst_noise_floor: float
    weakest_attack: float
    matrices: dict[str, Floats]
    beyond_noise: Floats
    families: list[str]

    @classmethod
    def of(cls, rows: Rows, result: Result, families: list[str]) -> Evidence:
        """Judge one comparison; `families` are those of its networks."""
        comparison = rows.comparison
        matrices = {
            "sat": result.matrix.score,
            "agreement": agreement(comparison.logits.argmax(axis=2)),
            "error consistency": error_consistency(comparison.correct),
        }
        separations = {name: separate_families(matrix, families) for name, matrix in matrices.items()}
        return cls(
            separations["sat"],
            separations["agreement"],
            separations["error consistency"],
            float(result.control.noise_floor.max()),
            float(result.control.whitebox.min()),
            matrices,
            result.control.corrected,
            families,
        )

    def mean_within(self, family: str) -> float:
        """Mean SAT over pairs of one family."""
        chosen = [i for i, each in enumerate(self.families) if each == family]
        block = self.matrices["sat"][np.ix_(chosen, chosen)]
        return float(block[np.triu_indices(len(chosen), 1)].mean()) if len(chosen) > 1 else float("nan")

    def as_json(self) -> dict[str, Any]:
        """The numbers, for `proof.json`."""
        return {
            "sat": vars(self.sat),
            "agreement": vars(self.agreement),
            "error_consistency": vars(self.error_consistency),
            "worst_noise_floor": self.worst_noise_floor,
            "weakest_attack": self.weakest_attack,
        }


def two_clusters(matrix: Floats, families: Sequence[str]) -> float:
    """Adjusted Rand index of the families with two spectral clusters of a similarity."""
    weights = np.maximum(matrix, 0.0)
    return float(adjusted_rand_score(families, spectral_clusters(weights, 2, "sat", seed=0).labels))


def score_table(evidence: dict[int, Evidence]) -> Table:
    """Means and extremes within and between families, a column a seed."""

    def line(name: str, values: list[float], digits: int = 3) -> tuple[str, ...]:
        spread = f"{np.mean(values):.{digits}f} ({np.std(values, ddof=1 if len(values) > 1 else 0):.{digits}f})"
        return (name, *(f"{value:.{digits}f}" for value in values), spread)

    every = list(evidence.values())
    rows = [
        line("mean SAT within a family", [e.sat.within for e in every]),
        line("mean SAT between families", [e.sat.between for e in every]),
        line("lowest within", [e.sat.lowest_within for e in every]),
        line("highest between", [e.sat.highest_between for e in every]),
        line("mean SAT, ResNet / ResNet", [e.mean_within(RESNET) for e in every]),
        line("mean SAT, ViT / ViT", [e.mean_within(VIT) for e in every]),
        line("worst noise floor, %", [100 * e.worst_noise_floor for e in every], 1),
        line("lowest white-box success, %", [100 * e.weakest_attack for e in every], 1),
        line("agreement within (baseline)", [e.agreement.within for e in every]),
        line("agreement between (baseline)", [e.agreement.between for e in every]),
    ]
    columns = ("", *(f"seed {seed}" for seed in evidence), "mean (sd)")
    return Table(columns, rows, "SAT within and between families, every seed")


def network_table(by_seed: dict[int, tuple[Rows, Result]]) -> Table:
    """Every network with its controls."""
    rows = [
        (
            seed,
            member.label,
            f"{member.parameters / 1e6:.2f}",
            f"{100 * result.control.accuracy[i]:.1f}",
            f"{100 * result.control.whitebox[i]:.1f}",
            f"{100 * result.control.noise_floor[i]:.1f}",
        )
        for seed, (rows_of, result) in by_seed.items()
        for i, member in enumerate(rows_of.comparison.members)
    ]
    columns = ("seed", "network@training seed", "M weights", "accuracy %", "white-box %", "noise floor %")
    return Table(columns, rows, "The networks")


def pair_table(by_seed: dict[int, tuple[Rows, Result]], names: list[str]) -> Table:
    """Every pair of architectures: SAT and its 95 % interval, a column a seed."""
    rows = [
        (
            f"{names[i]} / {names[j]}",
            *(
                f"{result.matrix.score[i, j]:.2f} ({result.low[i, j]:.2f} to {result.high[i, j]:.2f})"
                for _, result in by_seed.values()
            ),
        )
        for i, j in combinations(range(len(names)), 2)
    ]
    return Table(("pair", *(f"seed {seed}" for seed in by_seed)), rows, "SAT of every pair with its 95 % interval")


def noise_table(whole: Evidence, names: list[str]) -> Table:
    """Mean transfer beyond noise for three kinds of pairs."""
    kinds: dict[str, list[float]] = {"same architecture, other seed": [], "same family": [], "other family": []}
    for i, j in permutations(range(len(names)), 2):
        same_family = whole.families[i] == whole.families[j]
        kind = (
            "same architecture, other seed"
            if names[i] == names[j]
            else "same family"
            if same_family
            else "other family"
        )
        kinds[kind].append(whole.beyond_noise[i, j])
    rows = [(kind, f"{100 * np.mean(values):.1f}" if values else "-") for kind, values in kinds.items()]
    return Table(("pairs", "mean transfer beyond noise, %"), rows, "Transfer that random noise does not explain")


def baseline_table(whole: Evidence, recovered: dict[str, float], names: list[str]) -> Table:
    """SAT beside agreement and error consistency, over the networks of all seeds."""
    separations = {"sat": whole.sat, "agreement": whole.agreement, "error consistency": whole.error_consistency}
    rows = [
        (
            "SAT" if name == "sat" else name,
            f"{_same_architecture(whole.matrices[name], names):.3f}",
            f"{each.within:.3f}",
            f"{each.between:.3f}",
            f"{each.auc:.3f}",
            f"{each.nearest:.2f}",
            f"{recovered[name]:.2f}",
        )
        for name, each in separations.items()
    ]
    columns = (
        "similarity",
        "same architecture, other seed",
        "same family",
        "other family",
        "ROC-AUC of the family",
        "nearest is of the family",
        "ARI of 2 clusters",
    )
    return Table(columns, rows, f"All {len(names)} networks together: SAT and its baselines")


def _same_architecture(matrix: Floats, names: list[str]) -> float:
    pairs = [matrix[i, j] for i in range(len(names)) for j in range(i) if names[i] == names[j]]
    return float(np.mean(pairs)) if pairs else float("nan")


def draw_families(evidence: dict[int, Evidence], plots: Path) -> Picture:
    """Means and extremes within and between families, a point a seed."""

    def values(pick: str) -> Floats:
        return np.array([getattr(each.sat, pick) for each in evidence.values()])

    rows = [
        Points("within, mean", values("within"), ours=True),
        Points("within, lowest pair", values("lowest_within"), ours=True),
        Points("between, highest pair", values("highest_between")),
        Points("between, mean", values("between")),
    ]
    return draw_points(
        plots / "families",
        rows,
        title="SAT within and between families",
        subtitle="a point a seed, the bar is the mean",
        x_label="SAT (nats)",
    )
