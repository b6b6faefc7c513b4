"""`vtk adapt compare`: ways to train x strategies x seeds x budgets, accuracy against labels.

Every run is a piece of work by itself: kept once it is finished, and shared among processes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from vtk_cli.adapt.preparation import read_domains
from vtk_cli.adapt.run_files import csv_text
from vtk_cli.adapt.scoreboard import ACCURACIES
from vtk_cli.adapt.trials import KEPT, Arm, Trials
from vtk_cli.adapt.verb_options import CompareOptions
from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device, resolve_device
from vtk_cli.engine.pieces.assembly import end_shard, require_place
from vtk_cli.engine.pieces.results import Result
from vtk_cli.engine.pieces.sharding import work_on_devices
from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.engine.run_folder import SUMMARY, RunFolder
from vtk_cli.engine.signals import stop_requests
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import write_text
from vtk_cli.reports import page
from vtk_cli.reports.curves import Curve, draw_curves
from vtk_cli.reports.plots import PALETTE, Picture

TABLE, ROUNDS, PAGE = "compare.csv", "rounds.csv", "report.html"
MAY_CHANGE = {"device", "workers", "checkpoint-seconds", "skip-nonfinite", "store", "shard", "devices"}
COLUMNS = ("training / query", "labels", "seeds", "mean", "sd", "lowest", "highest")


def compare(options: CompareOptions, console: Console) -> ExitCode:
    """Simulate every run and draw accuracy against labels: by itself, as one task of many, or the plan.

    Raises:
        UserError: options and data do not go together, or the target has no labels.
        Preempted, KeyboardInterrupt: a signal came; finished runs are kept.
    """
    arms = arms_of(options)
    domains, _ = read_domains(replace(options, seed=arms[0].seed), console, ())
    if not domains.is_labelled:
        raise UserError(
            "the target has no labels to simulate a person with", options.target_name, "give a labelled one"
        )
    if options.dry_run:
        ways = len({arm.way for arm in arms})
        console.text(f"{len(arms):,} runs of {options.rounds} rounds: {ways} ways, {len(options.seed_list)} seeds")
        console.emit({"runs": len(arms), "ways": ways, "config": options.as_config()})
        return ExitCode.DONE
    device = resolve_device(options.device)
    require_place(options)
    if options.devices:
        work_on_devices("adapt compare", options, console, KEPT)
    trials = Trials.of(options, options.store, console)

    def assemble() -> Path:
        with RunFolder.open(
            "adapt compare",
            options.name,
            config=options.as_config(),
            out=options.out,
            console=console,
            seed=options.seed,
            device=describe_device(device),
            may_change=MAY_CHANGE if options.out else (),
        ) as run:
            _conclude(options, work(trials, arms, console, options.share), run, console)
        return run.path / SUMMARY

    if options.shard is None:
        assemble()
        return ExitCode.DONE
    work(trials, arms, console, options.share)
    keys = [trials.key(arm) for arm in arms]
    return end_shard(options, "adapt compare", keys, trials.folder, assemble, kept=KEPT, console=console)


def arms_of(options: CompareOptions) -> list[Arm]:
    """Every run, seed by seed."""
    return [
        Arm(recipe, query, seed, budget)
        for seed in options.seed_list
        for budget in options.budget_list
        for recipe in options.recipe_list
        for query in options.query_list
    ]


def work(trials: Trials, arms: Sequence[Arm], console: Console, share: Share = WHOLE) -> list[Result]:
    """The results of all arms, with progress shown."""
    with stop_requests() as stop, console.progress("runs", len(arms)) as progress:

        def tell(arm: Arm, result: Result) -> None:
            progress.advance(1, f"{arm.way}, seed {arm.seed}: {_last(result)}")

        return trials.results(arms, stop, tell, share)


def headline(results: Sequence[Result]) -> str:
    """The accuracy that is told first: of images that are not in the pool where there are some."""
    measured = all(row.get("acc_test") is not None for one in results for row in one["rounds"])
    return "acc_test" if measured else "acc_pool_unlabelled"


def points(results: Sequence[Result], name: str) -> dict[str, dict[int, list[float]]]:
    """Way -> labels -> accuracies of the seeds; what was not measured is left out."""
    found: dict[str, dict[int, list[float]]] = {}
    for one in results:
        for row in one["rounds"]:
            if row.get(name) is not None:
                found.setdefault(str(one["way"]), {}).setdefault(int(row["labels"]), []).append(float(row[name]))
    return found


def table_rows(results: Sequence[Result], name: str) -> list[tuple[str, ...]]:
    """A row for each way and number of labels."""
    return [
        (
            way,
            str(labels),
            str(len(values)),
            f"{mean(values):.1f}",
            f"{stdev(values):.1f}" if len(values) > 1 else "",
            f"{min(values):.1f}",
            f"{max(values):.1f}",
        )
        for way, by_labels in points(results, name).items()
        for labels, values in sorted(by_labels.items())
    ]


def draw_comparison(path: Path, results: Sequence[Result], name: str, *, subtitle: str) -> Picture:
    """Accuracy against labels: the mean of the seeds, every seed, and the range between them; up to ten ways."""
    curves = []
    for way, by_labels in list(points(results, name).items())[: len(PALETTE)]:
        x = sorted(by_labels)
        seeds = max(len(values) for values in by_labels.values())
        y = np.full((len(x), seeds), np.nan)
        for at, labels in enumerate(x):
            y[at, : len(by_labels[labels])] = by_labels[labels]
        curves.append(Curve(way, np.array(x, np.float64), y))
    return draw_curves(
        path,
        curves,
        title="Accuracy against labels",
        subtitle=subtitle,
        x_label="labels of the target",
        y_label=f"accuracy ({ACCURACIES[name]}), %",
    )


def _conclude(options: CompareOptions, results: Sequence[Result], run: RunFolder, console: Console) -> None:
    name = headline(results)
    measured = [key for key in ACCURACIES if points(results, key)]
    subtitle = f"{options.name}; {len(options.seed_list)} seeds"
    pictures = {key: draw_comparison(run.plots / key, results, key, subtitle=subtitle) for key in measured}
    rows = table_rows(results, name)
    write_text(run.path / TABLE, csv_text([COLUMNS, *rows]))
    fields = ("labels", *ACCURACIES, "spearman", "pseudo_label_acc", "mean_entropy")
    every = [
        (one["recipe"], one["query"], one["seed"], one["budget"], row["round"], *(row.get(key) for key in fields))
        for one in results
        for row in one["rounds"]
    ]
    write_text(run.path / ROUNDS, csv_text([("recipe", "query", "seed", "budget", "round", *fields), *every]))
    sections = [
        page.Section(
            f"Accuracy, {ACCURACIES[key]}",
            [
                page.Image(pictures[key].svg, f"accuracy against labels, {ACCURACIES[key]}"),
                page.Table(COLUMNS, table_rows(results, key), "percent; sd over seeds"),
            ],
        )
        for key in sorted(measured, key=lambda key: key != name)
    ]
    settings = [(key, str(value)) for key, value in options.as_config().items()]
    sections.append(page.Section("Options", [page.Table(("", "value"), settings)]))
    last = rows_at_the_end(rows)
    top = {row[0]: f"{row[3]} % at {row[1]} labels" for row in last[:6]}
    about = f"{options.name}, seeds {options.seeds}, {len(results)} runs"
    page.write_page(run.path / PAGE, page.Page("Ways to adapt, compared", about, top, sections, " ".join(sys.argv)))
    console.table(f"Accuracy, {ACCURACIES[name]}, %", COLUMNS, rows)
    console.text(f"Look at {run.path / PAGE}")
    summary: dict[str, Any] = {
        "accuracy": name,
        "runs": list(results),
        "table": str(run.path / TABLE),
        "pictures": {key: str(one.png) for key, one in pictures.items()},
        "report": str(run.path / PAGE),
    }
    run.finish(summary)
    console.emit(summary)


def rows_at_the_end(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The row of each way with the most labels."""
    return list({row[0]: row for row in rows}.values())


def _last(result: Result) -> str:
    row = result["rounds"][-1]
    value = row.get("acc_test") if row.get("acc_test") is not None else row.get("acc_pool_unlabelled")
    return f"{row['labels']} labels" if value is None else f"{value:.1f} %"
