"""`vtk search score`: architectures measured with a trained supernet, and told side by side."""

from __future__ import annotations

from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device, resolve_device
from vtk_cli.engine.pieces.assembly import end_shard, require_place
from vtk_cli.engine.pieces.sharding import work_on_devices
from vtk_cli.engine.run_folder import SUMMARY, RunFolder
from vtk_cli.engine.signals import stop_requests
from vtk_cli.errors import ExitCode
from vtk_cli.reports import page
from vtk_cli.search.candidates import KEPT
from vtk_cli.search.judgement import Judgement
from vtk_cli.search.measuring import candidates_of, result_store
from vtk_cli.search.outcome import PAGE, READ_FIRST
from vtk_cli.search.pictures import draw_pareto
from vtk_cli.search.plan import judged_by, show_plan
from vtk_cli.search.scored import Scores
from vtk_cli.search.scores.combination import METRICS
from vtk_cli.search.scores.scorer import Measured
from vtk_cli.search.supernet_file import open_supernet
from vtk_cli.search.verb_options import ScoreVerbOptions
from vtk_cli.search.words import architectures_of

_SHOWN = 20


def score_architectures(options: ScoreVerbOptions, console: Console) -> ExitCode:
    """Score architectures: by itself, as one task of many, or the plan.

    Raises:
        UserError: supernet, architectures and settings do not go together.
        Preempted, KeyboardInterrupt: a signal came; scores are kept.
    """
    supernet, device = open_supernet(options.supernet), resolve_device(options.device)
    genes = architectures_of(options.architectures, supernet.space, options.seed)
    judgement = options.judgement
    needs = judgement.needs | {METRICS[name] for name in options.metric if name != "angle" or supernet.initial}
    if options.dry_run:
        rows = [("architectures", f"{len(genes):,} of {supernet.space.name}"), ("judged by", judged_by(judgement))]
        show_plan(rows, options.as_config(), console)
        return ExitCode.DONE
    require_place(options)
    if options.devices:
        work_on_devices("search score", options, console, KEPT)
    candidates = candidates_of(
        supernet, judgement, needs, store=result_store(options.store), device=device, console=console
    )

    def work() -> list[Measured]:
        with stop_requests() as stop, console.progress("architectures", len(genes)) as progress:
            return candidates.measured(genes, needs, stop, progress.advance, options.share)

    def assemble() -> Path:
        with RunFolder.open(
            "search score",
            supernet.name,
            config=options.as_config(),
            out=options.out,
            console=console,
            seed=options.seed,
            device=describe_device(device),
            may_change={"device", "score-batch-size", "store", "devices"} if options.out else (),
        ) as run:
            found, space, images = dict(zip(genes, work(), strict=True)), supernet.space, supernet.shape
            shape = space.shape(space.alone, images.classes, resolution=images.resolution)
            _conclude(Scores.of(found, space, shape, judgement), judgement, run, console)
        return run.path / SUMMARY

    if options.shard is None:
        assemble()
        return ExitCode.DONE
    work()
    keys, folder = candidates.keys(genes, needs), candidates.store.folder
    return end_shard(options, "search score", keys, folder, assemble, kept=KEPT, console=console)


def _conclude(scores: Scores, judgement: Judgement, run: RunFolder, console: Console) -> None:
    scores.write(run.path)
    table = scores.lines(_SHOWN)
    console.table(f"By {judgement.name}", table.columns, table.rows)
    if len(scores.rows) > _SHOWN:
        console.text(f"... and {len(scores.rows) - _SHOWN:,} more in {run.path / 'scores.csv'}")
    for note in scores.notes[:_SHOWN]:
        console.warn(note)
    pareto = draw_pareto(run.plots / "pareto", scores)
    sections = [
        page.Section("Read this first", [page.Text(READ_FIRST, "warning")]),
        page.Section("Scores", [scores.table(200)]),
        page.Section("Cost", [page.Image(pareto.svg, "score against multiply-accumulates")]),
    ]
    about = f"{len(scores.rows):,} architectures of {scores.space.name}"
    page.write_page(run.path / PAGE, page.Page(f"Scored by {judgement.name}", about, {}, sections))
    summary = scores.as_json()
    run.finish(summary)
    console.text(f"Look at {run.path / PAGE}")
    console.emit(summary)
