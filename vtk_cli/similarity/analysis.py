"""Which findings a run reports: what the options ask for, and what so many networks allow."""

from __future__ import annotations

from collections.abc import Sequence

from vtk_cli.errors import UserError
from vtk_cli.models.names import PAPER69
from vtk_cli.similarity import matrix_findings, network_findings
from vtk_cli.similarity.command import AnalysisOptions, Measure, SimilarityOptions
from vtk_cli.similarity.features import ArchitectureFeatures, features_in, read_features
from vtk_cli.similarity.outcome import Result
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.sat import Floats, center
from vtk_cli.similarity.section import Section

_NEEDED_FOR_A_MAP = 3


def sections(result: Result, rows: Rows, options: SimilarityOptions) -> list[Section]:
    """The findings of a comparison, beyond the scores themselves."""
    comparison, score = rows.comparison, result.matrix.score
    wants_features = len(score) >= _NEEDED_FOR_A_MAP or options.importance or options.suggest_teacher is not None
    features = _features(rows, options) if wants_features else []
    families = [feature.base_architecture for feature in features]
    found = _matrix_sections(comparison.names, score, families, options) if len(score) >= _NEEDED_FOR_A_MAP else []
    if options.measure:
        wanted = [name for name in Measure if name != Measure.ALL]
        if Measure.ALL not in options.measure:
            wanted = [name for name in wanted if name in options.measure]
        found.append(network_findings.other_measures(wanted, rows.passes, comparison, score, options.seed))
    if options.importance:
        found.append(network_findings.importance(score, features, options.seed))
    if options.ensembles:
        found.append(network_findings.ensembles(score, comparison, options.seed))
    if options.pick_ensemble is not None:
        found.append(network_findings.picked_ensemble(score, comparison, options.pick_ensemble))
    if options.suggest_teacher is not None:
        found.append(network_findings.teachers(score, comparison, families, options.suggest_teacher))
    return found


def matrix_sections(names: Sequence[str], score: Floats, options: AnalysisOptions) -> list[Section]:
    """The findings of an imported matrix.

    Raises:
        UserError: fewer than 3 networks, or features of one of them are missing.
    """
    if len(names) < _NEEDED_FOR_A_MAP:
        raise UserError(f"{len(names)} networks", f"--import-matrix {options.import_matrix}", "at least 3 are needed")
    families = {network.published: network.family for network in PAPER69}
    table = read_features(options.features) if options.features else {}
    features = [table.get(name) for name in names]
    known = [
        feature.base_architecture if feature else families.get(name)
        for name, feature in zip(names, features, strict=True)
    ]
    kinds = [kind for kind in known if kind is not None]
    found = _matrix_sections(names, score, kinds if len(kinds) == len(names) else (), options)
    if options.importance:
        missing = [name for name, feature in zip(names, features, strict=True) if feature is None]
        if missing:
            raise UserError(
                f"no features of {missing[0]} and {len(missing) - 1} others", f"--features {options.features}"
            )
        described = [feature for feature in features if feature is not None]
        found.append(network_findings.importance(score, described, options.seed))
    return found


def _matrix_sections(
    names: Sequence[str], score: Floats, families: Sequence[str], options: AnalysisOptions
) -> list[Section]:
    centred = options.adjust == "center"
    shown = center(score) if centred else score
    clusters = matrix_findings.find_clusters(names, shown, options.clusters, options.affinity, options.seed)
    title = "SAT, each network's own level taken out" if centred else "Similarity by attack transferability (SAT)"
    found = [
        matrix_findings.heat_map(names, shown, clusters, title),
        matrix_findings.cluster_table(names, clusters, options.affinity),
        matrix_findings.network_map(names, shown, clusters, options.seed),
    ]
    kinds = matrix_findings.families(names, shown, families) if families else None
    return [*found, kinds] if kinds else found


def _features(rows: Rows, options: SimilarityOptions) -> list[ArchitectureFeatures]:
    """Of every network: what `--features` says of it, else what its modules show."""
    table = read_features(options.features) if options.features else {}
    read = network_findings.network_features(rows.passes, rows.comparison)
    return [features_in(table, member.name) or seen for member, seen in zip(rows.comparison.members, read, strict=True)]
