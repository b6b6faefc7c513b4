"""The story of `vtk similarity`, top to bottom.

Names become networks (published, or trained here on digits); every network answers every image, clean and under random
noise; each network is attacked once and every network answers the attacked images (a row); the rows become scores.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.engine.devices import resolve_device
from vtk_cli.engine.pieces.assembly import end_shard, require_place
from vtk_cli.engine.pieces.sharding import work_on_devices
from vtk_cli.engine.run_folder import SUMMARY, RunFolder
from vtk_cli.engine.signals import stop_requests
from vtk_cli.errors import ExitCode
from vtk_cli.options import flag_name, option_fields
from vtk_cli.similarity import analysis
from vtk_cli.similarity.command import AnalysisOptions, ScaleOptions, SimilarityOptions
from vtk_cli.similarity.examples import example_section
from vtk_cli.similarity.features import write_features
from vtk_cli.similarity.matrix_file import read_matrix_csv
from vtk_cli.similarity.outcome import assess, headline, result_sections
from vtk_cli.similarity.plan import show_plan
from vtk_cli.similarity.preparation import names, plan, prepare, references
from vtk_cli.similarity.publish import Report, publish
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.section import plain
from vtk_cli.similarity.summary import summary, write_tables

KEPT = "finished rows"
_MAY_CHANGE = {"networks", "list", "reference", "offline", "device", "batch-size", "checkpoint-seconds"} | {
    flag_name(field)
    for group in (AnalysisOptions, ScaleOptions)
    for field in set(option_fields(group)) - {"seed", "out"}
}
"""Options that may differ from an earlier run in the same folder: what was computed then is still true."""


def compare(options: SimilarityOptions, console: Console) -> ExitCode:
    """Compare networks: by itself, as one task of many, or the plan."""
    asked = names(options)
    named = asked + references(options, asked)
    analysis.require_possible([name.label for name, _ in named], options)
    device = resolve_device(options.device)
    if options.dry_run:
        show_plan(plan(options, named, device), console)
        return ExitCode.DONE
    require_place(options)
    if options.devices:
        work_on_devices("similarity", options, console, KEPT)
    title = "-".join(name.label for name, _ in named[:3]) + (f"-and-{len(named) - 3}-more" if len(named) > 3 else "")

    def run_folder() -> AbstractContextManager[RunFolder]:
        return RunFolder.open(
            "similarity",
            title,
            config=options.as_config(),
            out=options.out,
            console=console,
            seed=options.seed,
            device=str(device),
            may_change=_MAY_CHANGE if options.out else (),
        )

    if options.shard is None:
        with run_folder() as run, stop_requests() as stop:
            rows = prepare(options, named, device, console, lambda: stop.raise_if_requested(KEPT))
            _conclude(options, rows, len(asked), run, console)
        return ExitCode.DONE
    with stop_requests() as stop:
        rows = prepare(options, named, device, console, lambda: stop.raise_if_requested(KEPT))
        rows.all()

        def assemble() -> Path:
            with run_folder() as run:
                _conclude(options, rows, len(asked), run, console)
            return run.path / SUMMARY

        keys, store = [rows.key(source) for source in range(len(named))], rows.passes.store.folder
        return end_shard(options, "similarity", keys, store, assemble, kept=KEPT, console=console)


def _conclude(options: SimilarityOptions, rows: Rows, asked: int, run: RunFolder, console: Console) -> None:
    """Make what is missing of the rows, score and analyse them, and write and tell all of it.

    The first `asked` networks are those that the user named; the others are references.
    """
    result = assess(rows, eps_s=options.floor, resamples=options.resamples, seed=options.seed)
    features = analysis.wanted_features(rows, options)
    findings = [*analysis.sections(result, rows, features, options), example_section(rows)]
    about = _about(options)
    write_tables(result, run.path)
    if features:
        write_features(run.path / "features.csv", dict(zip(result.matrix.names, features, strict=True)))
    report = Report(
        headline(result, asked),
        about,
        [*result_sections(result, rows.comparison.members), *findings],
        result.warnings,
        summary(result, findings, rows, about),
    )
    publish(report, run, console)


def analyse_matrix(options: SimilarityOptions, console: Console) -> ExitCode:
    """Analyse a matrix that was published or computed before; no network is touched."""
    source = Path(str(options.import_matrix))
    names, score = read_matrix_csv(source)
    analysis.require_possible(names, options)
    if options.dry_run:
        console.text(f"{len(names)} networks in {source}; run folder {options.out or 'runs/similarity/DATE-NAME'}")
        console.emit({"imported": str(source), "networks": list(names), "config": options.as_config()})
        return ExitCode.DONE
    with RunFolder.open(
        "similarity",
        source.stem,
        config=options.as_config(),
        out=options.out,
        console=console,
        seed=options.seed,
        device="none",
        may_change=_MAY_CHANGE if options.out else (),
    ) as run:
        sections = analysis.matrix_sections(names, score, options)
        data = {section.key: plain(section.data) for section in sections}
        content = {"imported": str(source), "networks": list(names), "sat": plain(score), **data}
        publish(Report(f"{len(names)} networks", f"Scores from {source}", sections, [], content), run, console)
    return ExitCode.DONE


def _about(options: SimilarityOptions) -> str:
    """What the numbers rest on, in a sentence."""
    if not options.on_digits:
        return f"Images from {options.data}; published or given weights; preset {options.preset}."
    if options.quick:
        return (
            "Stand-ins at digits scale (ResNet layouts at 1/4 width, ViTs of dim 192 and 4 blocks), trained here on the"
            " embedded digits, not ImageNet weights."
        )
    return "The real networks at 32 x 32 pixels, trained here on the embedded digits, not ImageNet weights."
