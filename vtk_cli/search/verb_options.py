"""The options of the verbs of `vtk search` that work on a trained supernet, on an architecture, or on a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from vtk_cli.data.options import DIGITS
from vtk_cli.engine.processes.parallel_options import ParallelOptions
from vtk_cli.errors import UserError
from vtk_cli.models.spaces.architecture import parse_architecture
from vtk_cli.models.spaces.catalog import RELEASED, SPACES
from vtk_cli.options import RunOptions, SpeechOptions, option
from vtk_cli.search.options import (
    EvolutionOptions,
    LimitOptions,
    ScoreOptions,
    StoreOptions,
    SupernetOptions,
    count_of,
)
from vtk_cli.search.retrain_options import RetrainOptions
from vtk_cli.search.retrain_recipes import RETRAIN_RECIPES, retrain_recipe_of


class MetricName(StrEnum):
    """What can be measured of an architecture."""

    FLATNESS = "flatness"
    LOSS = "loss"
    ACCURACY = "accuracy"
    ANGLE = "angle"


_SUPERNET_HELP = "The folder of a run of `vtk search supernet` or `run` [default: the newest in runs/]."
_ARCHITECTURE_HELP = (
    "Genes ('2 0 3'), a published name (genas-flatness-cifar100), a string of NAS-Bench-201, or an architecture file"
)
_SPACE_HELP = "The space of bare genes; files and published names know theirs."


def _complete_architecture(incomplete: str) -> list[str]:
    return [name for name in RELEASED if name.startswith(incomplete)]


def _complete_space(incomplete: str) -> list[str]:
    return [name for name in SPACES if name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class SearchOptions(SupernetOptions, ScoreOptions, LimitOptions, EvolutionOptions, StoreOptions, ParallelOptions):
    """All options of `vtk search run`: the supernet's, the scores', the search's, and how to re-train."""

    retrain: bool = option(True, "Train the winner by itself at the end, from scratch.", panel="Re-training")
    fit_width: float | None = option(
        None,
        "Give the winner the even width whose multiply-accumulates come closest to so many, as in 600M (darts).",
        panel="Re-training",
        metavar="N",
        parse=count_of,
    )
    retrain_recipe: str | None = option(
        None, "How: a recipe of `vtk search retrain` [default: the space's own].", panel="Re-training", metavar="NAME"
    )
    retrain_epochs: int | None = option(
        None, "For so many epochs [default: the recipe's].", panel="Re-training", metavar="N", minimum=1
    )

    def check(self) -> None:
        """Options that contradict one another."""
        super().check()
        _ = self.judgement, self.evolution(official=False, genes=2)
        if self.shard or self.merge:
            flag = f"--shard {self.shard}" if self.shard else "--merge"
            fix = "let others help with vtk search evolve --supernet RUN --shard queue, once the supernet is trained"
            raise UserError("a whole search is no share of one", flag, fix)


@dataclass(frozen=True, kw_only=True)
class ImportOptions(SupernetOptions, ParallelOptions):
    """All options of `vtk search supernet`."""

    weights: Path | None = option(
        None,
        "Train nothing: take over these weights of a supernet (also those that GeNAS and RLNAS publish).",
        panel="Weights",
        metavar="FILE",
    )
    initial: Path | None = option(
        None, "With --weights: the weights before training, which the angle needs.", panel="Weights", metavar="FILE"
    )

    def check(self) -> None:
        """Options that contradict one another."""
        super().check()
        if self.initial is not None and self.weights is None:
            raise UserError("are the weights before the training of others", "--initial", "give --weights FILE too")


@dataclass(frozen=True, kw_only=True)
class _OnSupernet(RunOptions):
    """What every verb that needs a trained supernet is told."""

    supernet: Path | None = option(None, _SUPERNET_HELP, panel="Supernet", metavar="RUN")


@dataclass(frozen=True, kw_only=True)
class ScoreVerbOptions(_OnSupernet, ScoreOptions, StoreOptions):
    """All options of `vtk search score`."""

    architectures: tuple[str, ...] = option(
        (),
        f"{_ARCHITECTURE_HELP}; random:N for N of the seed's, all for every one of a small space.",
        positional=True,
        metavar="ARCH",
        complete=_complete_architecture,
    )
    metric: tuple[MetricName, ...] = option(tuple(MetricName), "What to measure; may be repeated.", panel="Score")

    def check(self) -> None:
        """Options that contradict one another."""
        super().check()
        _ = self.judgement


@dataclass(frozen=True, kw_only=True)
class EvolveOptions(_OnSupernet, ScoreOptions, LimitOptions, EvolutionOptions, StoreOptions):
    """All options of `vtk search evolve`."""

    def check(self) -> None:
        """Options that contradict one another."""
        super().check()
        _ = self.judgement, self.evolution(official=False, genes=2)


@dataclass(frozen=True, kw_only=True)
class RankOptions(_OnSupernet, ScoreOptions, StoreOptions):
    """All options of `vtk search rank`."""

    benchmark: Path | None = option(
        None,
        "The true accuracies: a CSV or JSON of `vtk search tabulate`, NAS-Bench-201's .pth, a folder of NATS-Bench, or"
        " a pickle of NASLib.",
        positional=True,
        metavar="BENCHMARK",
    )
    scores: Path | None = option(
        None, "Rank these scores (scores.csv of `vtk search score`) and compute none.", panel="Score", metavar="CSV"
    )
    space: str | None = option(
        None,
        "With --scores: the space of their architectures [default: nasbench201].",
        panel="Score",
        metavar="NAME",
        complete=_complete_space,
    )
    dataset: str | None = option(
        None, "Of the benchmark, whose accuracies [default: the one it has, or cifar10].", panel="Benchmark"
    )
    split: str | None = option(
        None, "Of the dataset, which images [default: those RLNAS compares with].", panel="Benchmark"
    )
    hp: str | None = option(
        None, "Of the benchmark, which length of training, in epochs [default: the longest].", panel="Benchmark"
    )
    num_archs: int | None = option(
        None, "Only so many architectures, drawn by the seed [default: all].", panel="Benchmark", metavar="N", minimum=3
    )
    top: int = option(10, "Regret of the best of the so many highest scores.", panel="Benchmark", minimum=1)
    resamples: int = option(1000, "Bootstrap resamples of the intervals.", panel="Benchmark", minimum=1)

    def check(self) -> None:
        """Options that contradict one another."""
        super().check()
        _ = self.judgement
        if (self.shard or self.merge) and self.scores is not None:
            flag = "--shard" if self.shard else "--merge"
            raise UserError("scores of a file are not computed", flag, "leave it out")


@dataclass(frozen=True, kw_only=True)
class _NetworkOptions(SpeechOptions):
    """Which network of which architecture."""

    architecture: str = option(
        "", f"{_ARCHITECTURE_HELP}.", positional=True, metavar="ARCH", complete=_complete_architecture
    )
    space: str | None = option(None, _SPACE_HELP, panel="Network", metavar="NAME", complete=_complete_space)
    form: str | None = option(
        None, "Which of the space's networks (darts: cifar, imagenet).", panel="Network", metavar="FORM"
    )
    width: int | None = option(None, "Its width.", panel="Network", metavar="C", minimum=1)
    cells: int | None = option(None, "Its cells.", panel="Network", metavar="N", minimum=1)
    fit_width: float | None = option(
        None,
        "The even width whose multiply-accumulates come closest to so many, as in 600M (darts).",
        panel="Network",
        metavar="N",
        parse=count_of,
    )


@dataclass(frozen=True, kw_only=True)
class SizedNetworkOptions(_NetworkOptions):
    """Which network, where there are no images that say its classes."""

    classes: int | None = option(None, "Its classes.", panel="Network", metavar="N", minimum=1)
    size: int | None = option(None, "Side of its input.", panel="Network", metavar="PX", minimum=1)


@dataclass(frozen=True, kw_only=True)
class ShowOptions(SizedNetworkOptions):
    """All options of `vtk search show`."""

    out: Path = option(
        Path("architecture"),
        "Where the drawing goes: NAME.png and NAME.svg.",
        panel="Run",
        short="-o",
        metavar="NAME",
    )


@dataclass(frozen=True, kw_only=True)
class SpacesOptions(SpeechOptions):
    """`vtk search spaces`."""


@dataclass(frozen=True, kw_only=True)
class RetrainVerbOptions(_NetworkOptions, RetrainOptions, ParallelOptions):
    """All options of `vtk search retrain`."""

    @classmethod
    def default_recipe(cls, given: Mapping[str, Any]) -> str:
        """That of the architecture's network."""
        try:
            architecture = parse_architecture(str(given.get("architecture") or ""), given.get("space"))
        except UserError:
            return "digits"  # what is wrong is said where the architecture is opened
        form = str(given.get("form") or architecture.form or architecture.space.alone)
        recipe = retrain_recipe_of(architecture.space.name, form)
        return recipe if recipe in RETRAIN_RECIPES else "digits"


@dataclass(frozen=True, kw_only=True)
class TabulateOptions(RetrainOptions, StoreOptions):
    """All options of `vtk search tabulate`."""

    space: str | None = option(
        None,
        "The space [default: digits-mini on digits, else nasbench201].",
        panel="Space",
        metavar="NAME",
        complete=_complete_space,
    )
    arch: tuple[str, ...] = option(
        ("all",), "Which architectures: all, random:N, or genes; may be repeated.", panel="Space", metavar="ARCH"
    )
    seeds: int = option(3, "Trainings of each, from the seed on.", panel="Space", minimum=1)

    @classmethod
    def default_recipe(cls, given: Mapping[str, Any]) -> str:
        """That of the space."""
        space = str(given.get("space") or default_table_space(given.get("data")))
        recipe = retrain_recipe_of(space, SPACES[space].alone) if space in SPACES else "digits"
        return recipe if recipe in RETRAIN_RECIPES else "digits"

    @property
    def space_name(self) -> str:
        """The space, with the default in place of none."""
        return self.space or default_table_space(self.data)

    def check(self) -> None:
        """Options that contradict one another."""
        super().check()
        StoreOptions.check(self)


def default_table_space(data: Any) -> str:
    """`digits-mini` for the embedded digits, else `nasbench201`."""
    return "digits-mini" if data in {None, DIGITS} else "nasbench201"


@dataclass(frozen=True, kw_only=True)
class ExportOptions(SizedNetworkOptions):
    """All options of `vtk search export`."""

    supernet: Path | None = option(
        None, "Give it the weights that it has in this run's supernet.", panel="Weights", metavar="RUN"
    )
    weights: Path | None = option(
        None,
        "Give it the weights of a re-training (also those that GeNAS, SPOS and RLNAS publish).",
        panel="Weights",
        metavar="FILE",
    )
    out: Path = option(
        Path("architecture"),
        "The file: NAME.json without weights, NAME.safetensors with them.",
        panel="Run",
        short="-o",
        metavar="NAME",
    )

    def check(self) -> None:
        """Options that contradict one another."""
        if self.supernet is not None and self.weights is not None:
            raise UserError("there are two sources of weights", "--supernet --weights", "leave one out")
