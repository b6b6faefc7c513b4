"""Which findings a run reports: what the options ask for, and what so many networks allow."""

from __future__ import annotations

from collections.abc import Sequence

from vtk_cli.errors import UserError, nearest
from vtk_cli.models.names import PAPER69
from vtk_cli.similarity import matrix_findings, network_findings
from vtk_cli.similarity.clusters import spectral_clusters
from vtk_cli.similarity.command import AnalysisOptions, Measure, SimilarityOptions
from vtk_cli.similarity.features import ArchitectureFeatures, features_in, read_features
from vtk_cli.similarity.importance import FEWEST_NETWORKS
from vtk_cli.similarity.other_measures import measure
from vtk_cli.similarity.outcome import Result
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.sat import FEWEST_TO_CENTER, Floats, center
from vtk_cli.similarity.section import Section

_NEEDED_FOR_A_MAP = 3


def require_possible(names: Sequence[str], options: AnalysisOptions) -> None:
    """Refuse what cannot be asked of these networks, before hours are spent on their scores.

    Raises:
        UserError: too few networks for an analysis, a student that is not among them, or no readable `--features`.
    """
    count = len(names)
    clusters, size, student = options.clusters, options.pick_ensemble, options.suggest_teacher
    if clusters is not None and clusters >= count:
        fix = f"give at most {count - 1}" if count >= _NEEDED_FOR_A_MAP else "clustering needs at least 3 networks"
        raise UserError(f"{clusters} clusters of {count} networks", "--clusters", fix)
    if options.adjust == "center" and count < FEWEST_TO_CENTER:
        raise UserError(f"centred scores of {count} networks", "--adjust center", f"give at least {FEWEST_TO_CENTER}")
    if options.importance and count < FEWEST_NETWORKS:
        raise UserError(f"feature importance over {count} networks", "--importance", f"give at least {FEWEST_NETWORKS}")
    if size is not None and size > count:
        raise UserError(f"an ensemble of {size} out of {count} networks", "--pick-ensemble", f"give 2 to {count}")
    if student is not None and student not in names:
        raise UserError(
            f"the student {student!r} is not among the networks",
            "--suggest-teacher",
            nearest(student, names) or f"give one of {', '.join(names[:5])}",
        )
    if options.features is not None:
        read_features(options.features)


def sections(
    result: Result, rows: Rows, features: Sequence[ArchitectureFeatures], options: SimilarityOptions
) -> list[Section]:
    """The findings of a comparison, beyond the scores themselves; `features` as `wanted_features` gives them."""
    comparison, score = rows.comparison, result.matrix.score
    families = [feature.base_architecture for feature in features]
    found = _matrix_sections(comparison.names, score, families, options) if len(score) >= _NEEDED_FOR_A_MAP else []
    if options.measure:
        wanted = [name for name in Measure if name != Measure.ALL]
        if Measure.ALL not in options.measure:
            wanted = [name for name in wanted if name in options.measure]
        matrices = {
            str(name): measure(name, rows.passes, comparison, seed=options.seed, triplets=options.triplets)
            for name in wanted
        }
        found.append(network_findings.other_measures(matrices, comparison.names, score))
    if options.importance:
        found.append(network_findings.importance(score, features, options.seed))
    if options.ensembles:
        found.append(network_findings.ensembles(score, comparison, options.seed))
    if options.pick_ensemble is not None:
        found.append(network_findings.picked_ensemble(score, comparison, options.pick_ensemble))
    if options.suggest_teacher is not None:
        found.append(network_findings.teachers(comparison.names, score, families, options.suggest_teacher))
    return found


def matrix_sections(names: Sequence[str], score: Floats, options: AnalysisOptions) -> list[Section]:
    """The findings of an imported matrix.

    Raises:
        UserError: fewer than 3 networks, or what is needed to know of one of them is missing.
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
    unknown = [name for name, kind in zip(names, known, strict=True) if kind is None]
    found = _matrix_sections(names, score, () if unknown else kinds, options)
    if options.importance:
        missing = [name for name, feature in zip(names, features, strict=True) if feature is None]
        if missing:
            raise UserError(
                f"no features of {missing[0]} and {len(missing) - 1} others", f"--features {options.features}"
            )
        described = [feature for feature in features if feature is not None]
        found.append(network_findings.importance(score, described, options.seed))
    if options.suggest_teacher is not None:
        if unknown:
            fix = "give --features FILE with a line for every network"
            raise UserError(f"the base architecture of {unknown[0]} is not known", "--suggest-teacher", fix)
        found.append(network_findings.teachers(names, score, kinds, options.suggest_teacher))
    return found


def _matrix_sections(
    names: Sequence[str], score: Floats, families: Sequence[str], options: AnalysisOptions
) -> list[Section]:
    shown = center(score) if options.adjust == "center" else score
    count = options.clusters or matrix_findings.default_cluster_count(len(names))
    clusters = spectral_clusters(shown, count, options.affinity, options.seed)
    heading = matrix_findings.CENTRED if options.adjust == "center" else matrix_findings.RAW
    found = [
        matrix_findings.heat_map(names, shown, clusters, heading),
        matrix_findings.cluster_table(names, clusters, options.affinity),
        matrix_findings.network_map(names, shown, clusters, options.seed),
    ]
    kinds = matrix_findings.families(names, shown, families) if families else None
    return [*found, kinds] if kinds else found


def wanted_features(rows: Rows, options: SimilarityOptions) -> list[ArchitectureFeatures]:
    """Of every network: what `--features` says of it, else what its modules show; empty where nobody asks for them."""
    if len(rows.comparison.members) < _NEEDED_FOR_A_MAP and options.suggest_teacher is None:
        return []
    table = read_features(options.features) if options.features else {}
    read = network_findings.network_features(rows.passes, rows.comparison)
    return [features_in(table, member.name) or seen for member, seen in zip(rows.comparison.members, read, strict=True)]
