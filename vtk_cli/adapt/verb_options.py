"""The options of the verbs of `vtk adapt`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from vtk_cli.adapt.options import AdaptOptions, complete_query
from vtk_cli.adapt.query.catalog import parse_strategy
from vtk_cli.adapt.recipes import RecipeName
from vtk_cli.engine.pieces.shard_options import ShardOptions
from vtk_cli.engine.processes.parallel_options import Parallel, ParallelOptions, ProcessOptions
from vtk_cli.errors import UserError, nearest
from vtk_cli.options import SpeechOptions, option

_RUN_HELP = "The folder of a run [default: the newest]."
_MOST_SEEDS = 1000


@dataclass(frozen=True, kw_only=True)
class StartOptions(AdaptOptions, ParallelOptions):
    """All options of `vtk adapt start` and `vtk adapt run`."""

    run: Path | None = option(None, "The run folder, as --out.", positional=True, metavar="RUN", recorded=False)

    def check(self) -> None:
        """Options that contradict one another."""
        super().check()
        if self.run is not None and self.out is not None and self.run != self.out:
            raise UserError("is another folder than RUN", f"--out {self.out}", "leave out one of the two")


@dataclass(frozen=True, kw_only=True)
class RunFolderOptions(SpeechOptions):
    """What a verb on a run is told."""

    run: Path | None = option(None, _RUN_HELP, positional=True, metavar="RUN")


@dataclass(frozen=True, kw_only=True)
class WorkOptions(RunFolderOptions):
    """What a verb that computes is told."""

    device: str | None = option(
        None, "auto, cpu, cuda, cuda:N or mps [default: as at the start].", panel="Run", metavar="NAME"
    )


@dataclass(frozen=True, kw_only=True)
class QueryOptions(WorkOptions):
    """`vtk adapt query`."""

    n: int | None = option(
        None, "Ask about so many images [default: the round's part of the budget].", panel="Query", metavar="N"
    )
    strategy: str | None = option(
        None, "Another strategy than the run's.", panel="Query", metavar="NAME", complete=complete_query
    )
    blind: bool = option(False, "Do not show what the model thinks; guesses lead whoever labels.", panel="Query")
    redo: bool = option(False, "Draw anew, while no label of the round is in.", panel="Query")
    further: bool = option(
        False, "In the open round, ask about more images in place of skipped and bad ones.", panel="Query"
    )
    copies: bool = option(
        False, "Also copy the images to images/, to be sorted for label --from-folders.", panel="Query"
    )

    def check(self) -> None:
        """Options that contradict one another."""
        if self.redo and self.further:
            raise UserError("a round is drawn anew or gets more images", "--redo --further", "leave out one of them")


@dataclass(frozen=True, kw_only=True)
class LabelOptions(RunFolderOptions):
    """`vtk adapt label`."""

    run: Path | None = option(None, _RUN_HELP, positional=True, metavar="RUN")
    file: Path | None = option(
        None,
        "CSV with sample_id,label (a filled query.csv), or JSON of Label Studio.",
        positional=True,
        metavar="FILE",
    )
    from_folders: Path | None = option(
        None, "Images sorted into folders called like classes.", panel="Labels", metavar="DIR"
    )
    oracle: bool = option(False, "Take the target's own labels of what was asked.", panel="Labels")
    interactive: bool = option(False, "Ask here, image by image.", panel="Labels")
    allow_extra: bool = option(False, "Take labels of images that were not asked for too.", panel="Labels")
    replace: bool = option(False, "Let labels take the place of others of this round.", panel="Labels")

    def check(self) -> None:
        """Labels come from one place."""
        given = [self.file is not None, self.from_folders is not None, self.oracle, self.interactive]
        if sum(given) != 1:
            if self.run is not None and self.run.is_file():
                raise UserError("is a file, and no run", str(self.run), f"type vtk adapt label RUN {self.run}")
            what = "there are labels from more than one place" if sum(given) else "where are the labels?"
            raise UserError(what, fix="give a FILE, --from-folders DIR, --oracle or --interactive")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunFolderOptions, ProcessOptions):
    """`vtk adapt train`."""

    device: str | None = option(  # type: ignore[assignment]  # None: as at the start
        None, "auto, cpu, cuda, cuda:N or mps [default: as at the start].", panel="Run", metavar="NAME"
    )
    parallel: Parallel | None = option(
        None, "ddp: whole weights in each process; fsdp: a part [default: as at the start].", panel="Scale"
    )
    allow_partial: bool = option(False, "Train though answers are missing; they are put back.", panel="Labels")


@dataclass(frozen=True, kw_only=True)
class StatusOptions(RunFolderOptions):
    """`vtk adapt status`."""

    suspicious: int = option(
        0, "Also list so many labels that the model believes least.", panel="Labels", metavar="N", minimum=0
    )
    device: str | None = option(
        None, "auto, cpu, cuda, cuda:N or mps [default: as at the start].", panel="Run", metavar="NAME"
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(WorkOptions):
    """`vtk adapt evaluate`."""

    data: str | None = option(
        None, "Other labelled images of the target: a folder, a list or a CSV file.", panel="Data", metavar="DATA"
    )
    root: Path | None = option(None, "What the paths in a list are relative to.", panel="Data", metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class PredictOptions(WorkOptions):
    """`vtk adapt predict`."""

    run: Path | None = option(None, _RUN_HELP, positional=True, metavar="RUN")
    images: Path | None = option(None, "A folder of images, at any depth.", positional=True, metavar="IMAGES")
    to: Path = option(Path("predictions.csv"), "The table.", panel="Output", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class UndoOptions(RunFolderOptions):
    """`vtk adapt undo`."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(RunFolderOptions):
    """`vtk adapt export`."""

    run: Path | None = option(None, _RUN_HELP, positional=True, metavar="RUN")
    to: Path | None = option(None, "The file [default: RUN/model.safetensors].", positional=True, metavar="FILE")
    published: bool = option(
        False, "Write FE.pt and CLS.pt, as TL-ADA's code reads them, into the folder FILE.", panel="Export"
    )
    source_norm: bool = option(
        False, "Take the source's batch normalisation: the network for source images.", panel="Export"
    )


@dataclass(frozen=True, kw_only=True)
class CompareOptions(AdaptOptions, ShardOptions):
    """All options of `vtk adapt compare`; --recipe, --query, --seed and --budget give way to the lists."""

    recipes_: str = option("joint,sequential", "Ways to train.", panel="Comparison", metavar="NAME,NAME")
    queries: tuple[str, ...] = option(
        ("random,loss",),
        "Strategies; may be repeated, and must be for shares.",
        panel="Comparison",
        metavar="NAME,NAME",
    )
    seeds: str = option("0-2", "Seeds: 0-2, or 0,3,5.", panel="Comparison", metavar="SEEDS")
    budgets: str | None = option(
        None, "Budgets [default: --budget; its rounds are points on the curve].", panel="Comparison", metavar="N,N%"
    )
    store: Path | None = option(
        None, "Where results are kept [default: the user's cache].", panel="Scale", metavar="DIR"
    )

    @property
    def recipe_list(self) -> tuple[RecipeName, ...]:
        """The recipes.

        Raises:
            UserError: an unknown one.
        """
        known: dict[str, RecipeName] = {name: name for name in get_args(RecipeName)}
        found = []
        for name in _split(self.recipes_):
            if name not in known:
                raise UserError(f"unknown recipe {name!r}", "--recipes", nearest(name, known) or ", ".join(known))
            found.append(known[name])
        return tuple(dict.fromkeys(found))

    @property
    def query_list(self) -> tuple[str, ...]:
        """The strategies."""
        names = [name for text in self.queries for name in ((text,) if ":" in text else _split(text))]
        return tuple(dict.fromkeys(names))

    @property
    def budget_list(self) -> tuple[str, ...]:
        """The budgets."""
        return tuple(dict.fromkeys(_split(self.budgets or self.budget)))

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds, rising.

        Raises:
            UserError: they cannot be read.
        """
        seeds: set[int] = set()
        for part in _split(self.seeds):
            match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
            if match is None or not 0 <= int(match[2] or match[1]) - int(match[1]) < _MOST_SEEDS:
                raise UserError(f"{self.seeds!r} are no seeds", "--seeds", "give 0-2 or 0,3,5")
            seeds.update(range(int(match[1]), int(match[2] or match[1]) + 1))
        return tuple(sorted(seeds))

    def check(self) -> None:
        """Options that contradict one another."""
        super().check()
        for query in self.query_list:
            for recipe in self.recipe_list:
                parse_strategy(query, recipe=recipe, where="--queries")
        if not (self.seed_list and self.budget_list and self.query_list and self.recipe_list):
            raise UserError("there is nothing to compare", fix="name recipes, queries, seeds and budgets")
        ShardOptions.check(self)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
