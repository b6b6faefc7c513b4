"""`vtk prune sweep`: fractions x algorithms x scopes x seeds, dense generators and random masks beside them.

Every search is a piece of work by itself: kept once it is finished, and shared among processes.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device, resolve_device
from vtk_cli.engine.pieces.assembly import end_shard, require_place
from vtk_cli.engine.pieces.results import Result
from vtk_cli.engine.pieces.sharding import work_on_devices
from vtk_cli.engine.pieces.turns import Share
from vtk_cli.engine.run_folder import SUMMARY, RunFolder
from vtk_cli.engine.signals import stop_requests
from vtk_cli.errors import ExitCode
from vtk_cli.files import write_text
from vtk_cli.prune.metrics.quality import WEAKNESS
from vtk_cli.prune.pictures import Curve, Shown, draw_rows, draw_sweep
from vtk_cli.prune.preparation import Arm, Lab, open_lab
from vtk_cli.prune.report import BASELINE_NOTE
from vtk_cli.prune.ticket_info import NO_SPEED_UP
from vtk_cli.prune.trials import KEPT, PLACE, Trials, floor_of, from_png, kernel_of, without_samples
from vtk_cli.prune.verb_options import SCOPES, SweepOptions
from vtk_cli.reports import page

TABLE, PAGE = "sweep.csv", "report.html"
_COLUMNS = ("model", "kept, %", "distance", "sd", "kernel distance", "precision", "recall", "bytes")


def sweep(options: SweepOptions, console: Console) -> ExitCode:
    """Search at every point and draw the distance against what is kept: by itself, as one task of many, or the plan.

    Raises:
        UserError: options and images do not go together.
        Preempted, KeyboardInterrupt: a signal came; finished searches are kept.
    """
    arms = arms_of(options)
    if options.dry_run:
        points = len(arms) // options.seeds
        console.text(f"{len(arms):,} searches of {options.steps:,} steps: {points} points, {options.seeds} seeds")
        console.emit({"searches": len(arms), "seeds": options.seeds, "config": options.as_config()})
        return ExitCode.DONE
    device = resolve_device(options.device)
    require_place(options)
    if options.devices:
        work_on_devices("prune sweep", options, console, KEPT)
    lab = open_lab(replace(options, keep=str(float(options.fractions[0]))), device, console)
    trials = Trials.of(lab, options.store, Console(quiet=True))

    def assemble() -> Path:
        with RunFolder.open(
            "prune sweep",
            f"{options.data_name}-{options.gen}",
            config=options.as_config(),
            out=options.out,
            console=console,
            seed=options.seed,
            device=describe_device(device),
            may_change=PLACE if options.out else (),
        ) as run:
            _conclude(options, lab, _work(trials, arms, options.share, console), run, console)
        return run.path / SUMMARY

    if options.shard is None:
        assemble()
        return ExitCode.DONE
    _work(trials, arms, options.share, console)
    keys = [trials.key(arm) for arm in arms]
    return end_shard(options, "prune sweep", keys, trials.folder, assemble, kept=KEPT, console=console)


def arms_of(options: SweepOptions) -> list[Arm]:
    """Every point from every seed: seed by seed, the baselines first."""
    seeds = range(options.seed, options.seed + options.seeds)
    whole = Fraction(1)
    arms = []
    for seed in seeds:
        arms.append(Arm("dense", whole, "global", seed))
        arms += [Arm("random", keep, "global", seed) for keep in (*options.fractions, whole)]
        arms += [
            Arm(algorithm.value, keep, SCOPES[scope], seed)
            for algorithm in options.algos
            for scope in options.scopes
            for keep in options.fractions
        ]
    return list(dict.fromkeys(arms))


def _work(trials: Trials, arms: Sequence[Arm], share: Share, console: Console) -> list[Result]:
    with stop_requests() as stop, console.progress("searches", len(arms)) as progress:

        def tell(arm: Arm, result: Result) -> None:
            progress.advance(1, f"{arm.name}, seed {arm.seed}: {result['fd']:.4g}")

        return trials.results(arms, stop, tell, share)


def _conclude(options: SweepOptions, lab: Lab, results: Sequence[Result], run: RunFolder, console: Console) -> None:
    distance = lab.embedder.distance
    floor = floor_of(lab, console).frechet
    points = _points(results)
    rows = [_row(point) for point in points]
    write_text(run.path / TABLE, _as_csv(results))
    levels = [("trained dense, 100 %", [one["fd"] for one in results if one["algorithm"] == "dense"])]
    levels += [("train images (the floor)", [floor])]
    picture = draw_sweep(
        run.plots / "sweep",
        curves_of(results),
        levels=levels,
        title=f"{distance} against what is kept",
        subtitle=f"{options.gen} on {options.data_name}, {options.steps:,} steps, {options.seeds} seeds",
        y_label=distance,
    )
    first = [one for one in results if one["seed"] == options.seed]
    samples = draw_rows(
        run.plots / "samples",
        [Shown(f"{one['name']}: {one['fd']:.4g}", from_png(one["samples"])) for one in first],
        title=f"Samples and {distance}, seed {options.seed}",
        subtitle="the same noise in every row",
    )
    caption = f"{distance}, {options.samples:,} samples against {len(lab.report):,} images; floor {floor:.4g}"
    notes = [page.Text(text, "warning") for text in (WEAKNESS, NO_SPEED_UP, BASELINE_NOTE)]
    sections = [
        page.Section("The sweep", [page.Image(picture.svg, f"{distance} against the weights kept")]),
        page.Section("Samples", [page.Image(samples.png, "samples of every point")]),
        page.Section("Measured", [page.Table(_COLUMNS, rows, caption)]),
        page.Section("To be read with it", notes),
    ]
    best = min((one for one in points if one[0]["algorithm"] not in {"dense", "random"}), key=_mean)
    headline = {"best": f"{best[0]['name']}: {_mean(best):.4g}", "floor": f"{floor:.4g}"}
    page.write_page(
        run.path / PAGE, page.Page(f"{distance} against what is kept", caption, headline, sections, " ".join(sys.argv))
    )
    console.table(caption, _COLUMNS, rows)
    console.text(f"Look at {run.path / PAGE}")
    summary: dict[str, Any] = {
        "distance": distance,
        "floor": floor,
        "searches": [without_samples(one) for one in results],
        "picture": str(picture.png),
        "table": str(run.path / TABLE),
        "report": str(run.path / PAGE),
    }
    run.finish(summary)
    console.emit(summary)


def curves_of(results: Sequence[Result]) -> list[Curve]:
    """One curve for each way, random masks last; dense generators are levels and have none."""
    ways: dict[str, dict[float, list[float]]] = {}
    for one in results:
        if one["algorithm"] == "dense":
            continue
        name = "random mask" if one["algorithm"] == "random" else one["name"].rpartition(", ")[0]
        ways.setdefault(name, {}).setdefault(one["keep"], []).append(one["fd"])
    order = sorted(ways, key=lambda name: name == "random mask")
    return [
        Curve(name, sorted(ways[name]), np.array([ways[name][keep] for keep in sorted(ways[name])])) for name in order
    ]


def _points(results: Sequence[Result]) -> list[list[Result]]:
    """The results of all seeds, point by point."""
    found: dict[str, list[Result]] = {}
    for one in results:
        found.setdefault(one["name"], []).append(one)
    return list(found.values())


def _mean(point: Sequence[Result]) -> float:
    return float(mean(one["fd"] for one in point))


def _row(point: Sequence[Result]) -> tuple[str, ...]:
    qualities = [one["quality"] for one in point]
    kernel = mean(kernel_of(each) for each in qualities)
    distances = [one["fd"] for one in point]
    return (
        point[0]["name"],
        f"{100 * point[0]['kept'] / point[0]['weights']:.2f}",
        f"{mean(distances):.4g}",
        f"{stdev(distances):.2g}" if len(distances) > 1 else "",
        f"{kernel:.4g}",
        f"{mean(each['precision'] for each in qualities):.3f}",
        f"{mean(each['recall'] for each in qualities):.3f}",
        f"{mean(one['bytes'] for one in point):.0f}",
    )


def _as_csv(results: Sequence[Result]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("algorithm", "keep", "scope", "seed", "kept", "weights", "bytes", "fd")
    shares = ("precision", "recall", "density", "coverage")
    writer.writerow([*names, *shares])
    for one in results:
        writer.writerow([*(one[name] for name in names), *(one["quality"][name] for name in shares)])
    return text.getvalue()
