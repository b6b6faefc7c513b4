"""Where a run stands, as a summary for `--json` and as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vtk_cli.adapt.ledger import LabelRow
from vtk_cli.adapt.run_files import RunFiles, read_classes
from vtk_cli.adapt.scoreboard import ACCURACIES, levelled_off, read_metrics
from vtk_cli.adapt.state import AdaptState, divide, next_command
from vtk_cli.console import Console
from vtk_cli.data.classification_folders import some

ROUND_COLUMNS = ("round", "labels", "query", *ACCURACIES.values(), "rank corr.", "pseudo labels", "entropy")
LEVELLED_OFF = "the accuracy on the audit has levelled off: further labels may bring little"


def standing_summary(
    files: RunFiles, state: AdaptState, rows: Sequence[LabelRow], pool: Sequence[str]
) -> dict[str, Any]:
    """Where a run stands; JSON values."""
    part = divide(state, rows, pool)
    counts = Counter(part.labelled.values())
    metrics = read_metrics(files)
    return {
        "run": str(files.folder),
        "phase": state.phase,
        "round": state.round,
        "rounds": state.rounds,
        "recipe": state.recipe,
        "strategy": state.strategy,
        "seed": state.seed,
        "budget": {"total": state.budget.total, "used": state.budget.used, "pending": state.budget.pending},
        "pool": {
            "images": len(pool),
            "labelled": len(part.labelled),
            "unlabelled": len(part.unlabelled),
            "queried": len(part.queried),
            "other": len(part.other),
            "bad": len(part.bad),
            "audit": len(part.audit),
        },
        "labels_by_class": {name: counts[name] for name in read_classes(files)},
        "metrics": metrics,
        "levelled_off": levelled_off(metrics),
        "next": next_command(state, str(files.folder)),
    }


def show_standing(summary: Mapping[str, Any], console: Console) -> None:
    """Print where a run stands and what to type next."""
    budget, pool = summary["budget"], summary["pool"]
    rows = [
        ("phase", summary["phase"]),
        ("round", f"{summary['round']} of {summary['rounds']}"),
        ("recipe, query", f"{summary['recipe']}, {summary['strategy']}"),
        ("labels", f"{budget['used']} of {budget['total']} bought, {budget['pending']} asked for"),
        ("pool", ", ".join(f"{count} {name}" for name, count in pool.items() if count)),
    ]
    console.table(str(summary["run"]), ("", "value"), rows)
    if summary["metrics"]:
        console.table("Rounds", *round_table(summary["metrics"]))
    labels = {name: count for name, count in summary["labels_by_class"].items() if count}
    if labels:
        console.table("Labels by class", ("class", "labels"), [*labels.items()])
        empty = [name for name, count in summary["labels_by_class"].items() if not count]
        if empty:
            console.note(f"{len(empty)} classes have no label of the target: {some(empty)}")
    if summary["levelled_off"]:
        console.text(LEVELLED_OFF)
    console.text(f"next: {summary['next']}")


def round_table(metrics: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(columns, rows) of what was measured after each round, without columns in which there is nothing."""
    whole = [
        (
            str(row["round"]),
            str(row["labels"]),
            str(row["strategy"]),
            *(_percent(row.get(name)) for name in ACCURACIES),
            "" if row.get("spearman") is None else f"{row['spearman']:.2f}",
            _percent(row.get("pseudo_label_acc")),
            "" if row.get("mean_entropy") is None else f"{row['mean_entropy']:.3f}",
            _audited(row.get("audit")),
        )
        for row in metrics
    ]
    columns = (*ROUND_COLUMNS, "audit")
    used = [at for at in range(len(columns)) if at < 2 or any(row[at] for row in whole)]
    return tuple(columns[at] for at in used), [tuple(row[at] for at in used) for row in whole]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _audited(found: Mapping[str, Any] | None) -> str:
    if not found or not found["judged"]:
        return ""
    return f"{100 * found['right'] / found['judged']:.1f} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"
