"""What takes the networks or their answers, not only their scores: other measures, features, ensembles, teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vtk_cli.similarity.ensembles import error_reduction, pick_ensemble, probabilities, study_ensembles, suggest_teacher
from vtk_cli.similarity.features import FEATURE_NAMES, ArchitectureFeatures, architecture_features, difference_vector
from vtk_cli.similarity.importance import feature_importance
from vtk_cli.similarity.other_measures import DISTANCES
from vtk_cli.similarity.passes import Comparison, Passes
from vtk_cli.similarity.sat import Floats
from vtk_cli.similarity.section import Section
from vtk_cli.similarity.statistics import rank_correlation


def network_features(passes: Passes, comparison: Comparison) -> list[ArchitectureFeatures]:
    """The 13 features of every network, read off its modules."""
    return [
        architecture_features(passes.pool.network(member).net, member.name.name, member.pixels.input_size)
        for member in comparison.members
    ]


def other_measures(matrices: Mapping[str, Floats], names: Sequence[str], score: Floats) -> Section:
    """Other similarities of the same networks on the same images, and how each ranks pairs against SAT."""
    spearman = {name: rank_correlation(matrix, score) for name, matrix in matrices.items()}
    if len(names) == 2:
        columns: tuple[str, ...] = ("measure", f"{names[0]} / {names[1]}")
        rows: list[tuple[str, ...]] = [(name, f"{matrix[0, 1]:.4f}") for name, matrix in matrices.items()]
    else:
        columns = ("measure", "mean over pairs", "Spearman with SAT")
        upper = np.triu_indices(len(names), 1)
        rows = [
            (name, f"{matrix[upper].mean():.4f}", f"{spearman[name]:.3f}" if np.isfinite(spearman[name]) else "-")
            for name, matrix in matrices.items()
        ]
    distances = [name for name in matrices if name in DISTANCES]
    note = f"{', '.join(distances)} is a distance: small where networks are alike." if distances else ""
    data = {"matrices": matrices, "spearman_with_sat": spearman}
    return Section("measures", "Other measures", data, columns, rows, note)


def importance(score: Floats, features: Sequence[ArchitectureFeatures], seed: int) -> Section:
    """Which features explain the scores: permutation importance of a boosted regression on what differs in a pair."""
    differs = np.stack([np.stack([difference_vector(one, other) for other in features]) for one in features])
    found = feature_importance(score, differs, FEATURE_NAMES, seed=seed)
    rows = [
        (name, f"{mean:.3f}", f"{spread:.3f}")
        for name, mean, spread in zip(found.features, found.mean, found.spread, strict=True)
    ]
    note = (
        f"R2 of the regression: {found.r2_train:.3f} on its own pairs, {found.r2_new_pairs:.3f} on a fifth of the pairs"
        f" left out, {found.r2_new_networks:.3f} on networks left out."
    )
    data = {
        "importance": dict(zip(found.features, found.mean.tolist(), strict=True)),
        "spread": dict(zip(found.features, found.spread.tolist(), strict=True)),
        "r2_train": found.r2_train,
        "r2_new_pairs": found.r2_new_pairs,
        "r2_new_networks": found.r2_new_networks,
    }
    return Section("importance", "Feature importance", data, ("feature", "importance", "sd"), rows, note)


def ensembles(score: Floats, comparison: Comparison, seed: int) -> Section:
    """Does an ensemble of unlike networks gain more?"""
    chances, labels = _answers(comparison)
    studied = study_ensembles(score, chances, labels, seed=seed)
    rows = [
        (
            each.size,
            len(each.reduction),
            f"{100 * np.mean(each.reduction):.1f} %" if len(each.reduction) else "-",
            f"{each.spearman:.3f}" if np.isfinite(each.spearman) else "-",
        )
        for each in studied
    ]
    data = [
        {"size": each.size, "count": len(each.reduction), "err": each.reduction, "spearman": each.spearman}
        for each in studied
    ]
    note = (
        "ERR = 1 - error of the mean softmax / mean error of the members;"
        " a negative Spearman is the published direction: unlike members gain more."
    )
    columns = ("size", "ensembles", "mean ERR", "Spearman(mean SAT, ERR)")
    return Section("ensembles", "Ensembles", data, columns, rows, note)


def picked_ensemble(score: Floats, comparison: Comparison, size: int) -> Section:
    """A greedy choice of accurate and unlike networks, with its measured gain."""
    chances, labels = _answers(comparison)
    accuracy = comparison.correct.mean(axis=1)
    members = pick_ensemble(score, accuracy, size)
    accurate = (chances[members].mean(axis=0).argmax(axis=1) == labels).mean()
    gain = error_reduction(chances, labels, members)
    names = [comparison.names[member] for member in members]
    rows = [(name, f"{100 * accuracy[member]:.1f} %") for name, member in zip(names, members, strict=True)]
    rows.append(("all together", f"{100 * accurate:.1f} %"))
    data = {"networks": names, "accuracy": accurate, "err": gain}
    shown = (
        f"Error reduction over the mean member: {100 * gain:.1f} %" if np.isfinite(gain) else "No member makes an error"
    )
    note = f"{shown}; chosen and measured on the same {len(labels)} images."
    return Section("ensemble", f"An ensemble of {size}", data, ("network", "accuracy"), rows, note)


def teachers(names: Sequence[str], score: Floats, families: Sequence[str], student: str) -> Section:
    """The other networks as teachers of `student`."""
    ranking = suggest_teacher(names, score, families, student)
    rows = [("same", name, f"{value:.3f}") for name, value in ranking.same_family]
    rows += [("other", name, f"{value:.3f}") for name, value in ranking.other_family]
    data = {"student": student, "same_family": ranking.same_family, "other_family": ranking.other_family}
    columns = ("base architecture", "teacher", "SAT")
    return Section("teachers", f"Teachers for {student}", data, columns, rows, ranking.guidance)


def _answers(comparison: Comparison) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Softmax (N, m, C) and labels (m,) of the images whose class is known."""
    known = (comparison.labels >= 0).numpy()
    return probabilities(comparison.logits[:, known]), comparison.labels.numpy()[known]
