"""What a search came to: files, pictures and a page for people, `summary.json` for programs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.models.spaces.architecture import write_architecture
from vtk_cli.models.spaces.cost import in_millions
from vtk_cli.reports import page
from vtk_cli.search.drawing import draw_architecture
from vtk_cli.search.evolution import Evolution
from vtk_cli.search.pictures import draw_pareto, draw_progress
from vtk_cli.search.retraining import Retrained
from vtk_cli.search.scored import Scores, figure
from vtk_cli.search.supernet_file import SupernetRun
from vtk_cli.search.winner import Winner

ARCHITECTURE, PAGE = "architecture.json", "report.html"
_SHOWN = 10
READ_FIRST = (
    "A score ranks architectures that share the weights of one supernet: it does not tell their accuracy when they are"
    " trained alone, and scores of two supernets cannot be compared. How far a score can be trusted `vtk search rank`"
    " measures, on a space whose true accuracies are known."
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a search came to.

    Args:
        supernet: that architectures were judged with.
        evolution: its generations.
        scores: of all architectures that were scored.
        winner: the best of them.
        retrained: its network, trained alone; None where it was not asked for.
    """

    supernet: SupernetRun
    evolution: Evolution
    scores: Scores
    winner: Winner
    retrained: Retrained | None

    def summary(self) -> dict[str, Any]:
        """The result as programs read it."""
        architecture, shape = self.winner.architecture, self.winner.shape
        return {
            "space": shape.space,
            "architecture": self.scores.space.format(architecture.genes),
            **architecture.as_json(shape),
            "evaluated": len(self.scores.rows),
            "generations": self.evolution.generation,
            "pareto": [
                {"arch": self.scores.space.format(row.genes), "score": row.score, "flops": row.cost.macs}
                for row in self.scores.pareto()
            ],
            "supernet": str(self.supernet.folder),
            **({} if self.retrained is None else {"retrained": self.retrained.summary()}),
        }


def conclude(outcome: Outcome, run: RunFolder, console: Console, config: Mapping[str, object]) -> None:
    """Write the files of a search and tell its result.

    Raises:
        JobError, UserError: the disk is full, or the folder may not be written.
    """
    winner, scores = outcome.winner, outcome.scores
    write_architecture(run.path / ARCHITECTURE, winner.architecture, winner.shape)
    scores.write(run.path)
    table = scores.lines(_SHOWN)
    console.table(f"The best of {len(scores.rows):,} by {scores.judgement.name}", table.columns, table.rows)
    for note in scores.notes[:_SHOWN]:
        console.warn(note)
    _tell(outcome, run.path, console)
    _write_page(outcome, run, config)
    summary = outcome.summary()
    run.finish(summary)
    console.emit(summary)


def _tell(outcome: Outcome, folder: Path, console: Console) -> None:
    winner, retrained = outcome.winner, outcome.retrained
    images = outcome.supernet.options
    data = "" if images.on_digits else shlex.quote(images.data)
    cost = outcome.scores.space.cost(winner.row.genes, winner.shape)
    console.text(
        f"Best: {outcome.scores.space.format(winner.row.genes)}"
        f" ({in_millions(cost.macs)} multiply-accumulates, {in_millions(cost.params)} parameters)"
    )
    if retrained is not None and retrained.evaluation is not None:
        top1 = retrained.evaluation.scalars()["top1"]
        console.text(f"Trained alone: {top1:.2%} of {retrained.evaluation.n:,} validation images right")
        console.text(f"Use it: vtk train eval {retrained.weights} {data}".rstrip())
    elif retrained is None:
        console.text(f"Train it alone: vtk search retrain {folder / ARCHITECTURE} {data}".rstrip())
    console.text(f"Look at {folder / PAGE}")


def _write_page(outcome: Outcome, run: RunFolder, config: Mapping[str, object]) -> None:
    scores, winner = outcome.scores, outcome.winner
    drawing = draw_architecture(run.plots / "architecture", scores.space, winner.row.genes, winner.shape)
    progress = draw_progress(run.plots / "search", outcome.evolution, scores)
    pareto = draw_pareto(run.plots / "pareto", scores)
    front = Scores(scores.space, scores.shape, scores.judgement, scores.pareto())
    text = scores.space.format(winner.row.genes)
    headline: dict[str, object] = {
        scores.judgement.name: figure(winner.row.score),
        "multiply-accumulates": in_millions(winner.row.cost.macs),
        "parameters": in_millions(winner.row.cost.params),
        "scored": f"{len(scores.rows):,}",
    }
    retrained = outcome.retrained
    if retrained is not None and retrained.evaluation is not None:
        headline = {"top-1, trained alone": f"{retrained.evaluation.scalars()['top1']:.2%}", **headline}
    sections = [
        page.Section("Read this first", [page.Text(READ_FIRST, "warning")]),
        page.Section("The best architecture", [page.Image(drawing.svg, f"{scores.space.name} {text}")]),
        page.Section("The search", [page.Image(progress.svg, "every score in order"), scores.table(50)]),
        page.Section("Cost", [page.Image(pareto.svg, "score against multiply-accumulates"), front.table()]),
        page.Section("Options", [page.Table(("", ""), [(name, str(value)) for name, value in config.items()])]),
    ]
    about = f"{scores.space.name}, judged by {scores.judgement.name} with the supernet of {outcome.supernet.folder}"
    content = page.Page(f"Best of {len(scores.rows):,}: {text}", about, headline, sections, f"{' '.join(sys.argv)}")
    page.write_page(run.path / PAGE, content)
