"""The options of the verbs of `vtk prune`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Literal

from vtk_cli.engine.pieces.shard_options import ShardOptions
from vtk_cli.engine.processes.parallel_options import ParallelOptions
from vtk_cli.errors import UserError
from vtk_cli.options import SpeechOptions, option
from vtk_cli.prune.keeping import Scope, parse_keep
from vtk_cli.prune.options import MASKED_ALGORITHMS, EmbedderOptions, TrialOptions, check_selection


class Baseline(StrEnum):
    """What a ticket is compared with."""

    ALL = "all"
    RANDOM = "random"
    UNTRAINED = "untrained"
    DENSE = "dense"
    SPARSE = "sparse"


class FormName(StrEnum):
    """What a generator is exported as; see `forms.FORMS`."""

    SAFETENSORS = "safetensors"
    CSR = "csr"
    TERNARY = "ternary"
    TORCH_PRUNE = "torch-prune"
    ONNX = "onnx"


class Algorithm(StrEnum):
    """What finds masks."""

    EDGE_POPUP = "edge-popup"
    GEM_MINER = "gem-miner"
    IMP = "imp"
    MAGNITUDE = "magnitude"
    SPARSE = "sparse"


class ScopeName(StrEnum):
    """Where weights compete."""

    LAYER = "layer"
    GLOBAL = "global"


_GENERATOR_HELP = (
    "A ticket (.vtkt), a run folder, a generator (.safetensors), or a published checkpoint [default: the newest run]."
)
_THETA_HELP = "The weights that a ticket on a checkpoint selects from."


@dataclass(frozen=True, kw_only=True)
class RunVerbOptions(TrialOptions, ParallelOptions):
    """All options of `vtk prune run`."""

    baselines: tuple[Baseline, ...] = option(
        (),
        "Also measure, with the same loss and steps: random (mask), untrained, dense, sparse (random mask, trained), or"
        " all; may be repeated.",
        panel="Metrics",
    )
    eval_every: int | None = option(
        None,
        "Measure the distance after so many steps too, on images that the final report does not use.",
        panel="Metrics",
        metavar="STEPS",
        minimum=1,
    )
    select: Literal["last", "best"] = option(
        "last", "Keep the end of the search, or what --eval-every measured best.", panel="Metrics"
    )
    export: tuple[FormName, ...] = option((), "Write the generator in this form too; may be repeated.", panel="Ticket")
    codec: Literal["rice", "zlib", "raw"] = option("rice", "How the ticket packs its masks.", panel="Ticket")
    store_weights: bool = option(
        False, "Put the kept weights into the ticket, 4 bytes each, where no seed gives them back.", panel="Ticket"
    )
    allow_framework_rng: bool = option(
        False, "Let the ticket rely on torch's random numbers, which may change with its version.", panel="Ticket"
    )

    def check(self) -> None:
        """Options that contradict one another."""
        super().check()
        if self.select == "best" and self.eval_every is None:
            raise UserError("nothing is measured on the way", "--select best", "give --eval-every STEPS")
        if self.select == "best" and self.algo in {"imp", "random"}:
            raise UserError(f"{self.algo} is done at its end alone", "--select best", "leave it out")
        needs_seed = self.algo in MASKED_ALGORITHMS and self.theta is None and self.weight_init != "signed-constant"
        if needs_seed and not (self.store_weights or self.allow_framework_rng):
            what = f"a ticket of {self.weight_init} weights needs more than a seed"
            raise UserError(what, "--weight-init", "give --store-weights, or --allow-framework-rng")

    @property
    def compared(self) -> tuple[Baseline, ...]:
        """The baselines, `all` spelt out."""
        every = tuple(one for one in Baseline if one != Baseline.ALL)
        return every if Baseline.ALL in self.baselines else tuple(dict.fromkeys(self.baselines))


@dataclass(frozen=True, kw_only=True)
class SweepOptions(TrialOptions, ShardOptions):
    """All options of `vtk prune sweep`; `--algo`, `--keep` and `--scope` give way to the lists."""

    keeps: tuple[str, ...] = option(
        ("0.05", "0.1", "0.2", "0.3", "0.5"), "Fractions kept; may be repeated.", panel="Sweep", metavar="FRACTION"
    )
    algos: tuple[Algorithm, ...] = option(
        (Algorithm.EDGE_POPUP,), "What finds the masks; may be repeated.", panel="Sweep"
    )
    scopes: tuple[ScopeName, ...] = option((ScopeName.GLOBAL,), "Where they compete; may be repeated.", panel="Sweep")
    seeds: int = option(3, "Searches of each, from the seed on.", panel="Sweep", minimum=1)
    store: Path | None = option(
        None, "Where results are kept [default: the user's cache].", panel="Scale", metavar="DIR"
    )

    @property
    def fractions(self) -> tuple[Fraction, ...]:
        """The fractions kept, rising."""
        return tuple(sorted({parse_keep(keep, "--keeps") for keep in self.keeps}))

    def check(self) -> None:
        """Options that contradict one another."""
        super().check()
        ShardOptions.check(self)
        for algorithm in self.algos:
            for scope in self.scopes:
                for keep in self.fractions:
                    check_selection(algorithm.value, keep, scope.value, self.score_init, self.structure)


@dataclass(frozen=True, kw_only=True)
class TicketOptions(SpeechOptions):
    """What a verb on a ticket is told."""

    ticket: Path | None = option(
        None,
        "The ticket, or the folder of a run [default: the newest in runs/prune-run].",
        positional=True,
        metavar="TICKET",
    )


@dataclass(frozen=True, kw_only=True)
class InfoOptions(TicketOptions):
    """`vtk prune info`."""


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(TicketOptions):
    """`vtk prune verify`."""

    theta: Path | None = option(None, _THETA_HELP, panel="Generator", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class ApplyOptions(TicketOptions):
    """`vtk prune apply`."""

    theta: Path | None = option(None, _THETA_HELP, panel="Generator", metavar="FILE")
    out: Path | None = option(
        None,
        "The generator's file [default: beside the ticket, .safetensors].",
        panel="Output",
        short="-o",
        metavar="FILE",
    )


@dataclass(frozen=True, kw_only=True)
class _GeneratorVerbOptions(SpeechOptions):
    """What a verb on any generator is told."""

    model: Path | None = option(None, _GENERATOR_HELP, positional=True, metavar="MODEL")
    theta: Path | None = option(None, _THETA_HELP, panel="Generator", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class SampleOptions(_GeneratorVerbOptions):
    """`vtk prune sample`."""

    count: int = option(64, "Images.", panel="Samples", short="-n", metavar="N", minimum=1, maximum=100_000)
    columns: int | None = option(None, "Images a row [default: about square].", panel="Samples", metavar="N", minimum=1)
    seed: int = option(0, "Of the noise; the same on every machine.", panel="Samples", minimum=0, maximum=2**32 - 1)
    single: bool = option(False, "Write every image by itself too, in a folder beside the grid.", panel="Samples")
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel="Run", metavar="NAME")
    out: Path = option(Path("samples.png"), "The picture.", panel="Output", short="-o", metavar="FILE")

    def check(self) -> None:
        """The picture has a name that says so."""
        if self.out.suffix.lower() != ".png":
            raise UserError("is no PNG", f"--out {self.out}", "name a file that ends in .png")


@dataclass(frozen=True, kw_only=True)
class ExportVerbOptions(_GeneratorVerbOptions):
    """`vtk prune export`."""

    form: tuple[FormName, ...] = option(
        (FormName.SAFETENSORS,),
        "safetensors (all weights), csr (sparse rows), ternary (2 bits a weight), torch-prune, onnx; may be repeated.",
        panel="Export",
    )
    out: Path | None = option(
        None,
        "The file; its suffix becomes the form's [default: beside the model].",
        panel="Output",
        short="-o",
        metavar="FILE",
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(EmbedderOptions):
    """`vtk prune evaluate`."""

    model: Path | None = option(None, _GENERATOR_HELP, positional=True, metavar="MODEL")
    theta: Path | None = option(None, _THETA_HELP, panel="Generator", metavar="FILE")


SCOPES: dict[ScopeName, Scope] = {ScopeName.LAYER: "layer", ScopeName.GLOBAL: "global"}
