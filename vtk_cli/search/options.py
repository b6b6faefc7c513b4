"""All options of `vtk search run` and of its stages. Recipes (`recipes.py`) set those of the supernet's training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from vtk_cli.data.options import DIGITS
from vtk_cli.engine.options import FaultOptions
from vtk_cli.engine.pieces.shard_options import ShardOptions
from vtk_cli.errors import UserError
from vtk_cli.models.spaces.catalog import SPACES, space_named
from vtk_cli.models.spaces.cost import Bin, Limits
from vtk_cli.options import RunOptions, flag_name, fraction, option
from vtk_cli.search.evolution_settings import EvolutionSettings
from vtk_cli.search.image_options import ImageOptions
from vtk_cli.search.judgement import Judgement
from vtk_cli.search.recipes import RECIPES
from vtk_cli.search.scores.combination import combination
from vtk_cli.search.scores.settings import ScoreSettings

Score = Literal["flatness", "loss", "accuracy", "angle", "accuracy+flatness", "angle+flatness", "angle+accuracy"]

_OVERRULED = ("draws", "noise", "common_noise", "noise_scale", "subtract_l0", "bn", "bn_images", "score_batch_size")
"""What `--official-quirks` sets."""
_MILLIONS = {"k": 1e3, "m": 1e6, "g": 1e9}


def count_of(text: str) -> float:
    """Read `600M`, `0.6G` or `600000000`.

    Raises:
        ValueError: it is no positive number.
    """
    number, unit = (text[:-1], text[-1].lower()) if text and text[-1].lower() in _MILLIONS else (text, "")
    try:
        value = float(number) * _MILLIONS.get(unit, 1.0)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{text!r} is not a number such as 600M, 0.6G or 600000000")
    return value


def _complete_space(incomplete: str) -> list[str]:
    return [name for name in SPACES if name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class SpaceOptions(RunOptions):
    """Among which architectures."""

    space: str | None = option(
        None,
        "darts, nasbench201, shufflenetv2, mobilenet, digits-mini, chain-a or chain-b [default: digits-mini on digits,"
        " else darts].",
        panel="Space",
        metavar="NAME",
        complete=_complete_space,
    )
    width: int | None = option(
        None, "Channels of the supernet [default: the space's own].", panel="Space", metavar="C", minimum=1
    )
    cells: int | None = option(
        None, "Cells of the supernet [default: the space's own].", panel="Space", metavar="N", minimum=1
    )


@dataclass(frozen=True, kw_only=True)
class SupernetTrainingOptions(FaultOptions, RunOptions):
    """How the weights that all architectures share are trained."""

    recipe: str | None = option(
        None, "A published training of a supernet [default: the space's own].", panel="Supernet", metavar="NAME"
    )
    sampler: Literal["uniform", "fair", "flops-uniform"] = option(
        "uniform",
        "The path of a step: any (SPOS), every choice of every layer once (FairNAS), or of a drawn cost.",
        panel="Supernet",
    )
    flops_bins: tuple[str, ...] = option(
        (),
        "Bins of --sampler flops-uniform, LOW-HIGH as in 290M-300M; may be repeated [default: those of SPOS, 290M to"
        " 360M, for shufflenetv2, else ten between the least and the greatest].",
        panel="Supernet",
        metavar="LOW-HIGH",
    )
    epochs: int = option(200, "Passes over the training half.", panel="Supernet", minimum=1)
    lr: float = option(0.025, "Learning rate.", panel="Supernet", above=0)
    min_lr: float = option(0.001, "Learning rate at the end.", panel="Supernet", minimum=0)
    schedule: Literal["cosine", "linear"] = option("cosine", "How the learning rate falls.", panel="Supernet")
    schedule_on: Literal["updates", "epochs"] = option(
        "epochs", "The learning rate changes with every update, or every epoch.", panel="Supernet"
    )
    momentum: float = option(0.9, "Momentum of SGD.", panel="Supernet", minimum=0, maximum=0.9999)
    nesterov: bool = option(False, "Nesterov's momentum.", panel="Supernet")
    weight_decay: float = option(3e-4, "Weight decay.", panel="Supernet", minimum=0)
    decay_on: Literal["all", "weights"] = option(
        "all", "Weight decay on all parameters, or on convolutions and classifier alone.", panel="Supernet"
    )
    clip_norm: float | None = option(None, "Largest 2-norm of the gradient.", panel="Supernet", metavar="X", above=0)
    clip_value: float | None = option(None, "Largest entry of the gradient.", panel="Supernet", metavar="X", above=0)
    smoothing: float = option(0.0, "Label smoothing.", panel="Supernet", minimum=0, maximum=0.9999)
    sam: float | None = option(
        None, "Sharpness-aware steps of this radius (arXiv 2010.01412).", panel="Supernet", metavar="RHO", above=0
    )
    labels: Literal["true", "random"] = option(
        "true", "Train on the labels, or on random ones (RLNAS, for the angle).", panel="Supernet"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Arithmetic of training; auto: bf16 on a GPU. Scores are computed in fp32.", panel="Supernet"
    )
    checkpoint_seconds: float = option(
        120.0, "Save the state of a training so often.", panel="Supernet", metavar="S", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(RunOptions):
    """What an architecture is judged by."""

    score: Score = option(
        "flatness",
        "flatness of the loss around the shared weights (GeNAS), loss, accuracy, angle (RLNAS), or a weighted sum.",
        panel="Score",
    )
    gamma: float | None = option(
        None, "Weight of a sum's second score [default: 16 for angle+flatness, else 1].", panel="Score", minimum=0
    )
    combine: Literal["sum", "rank"] = option(
        "sum", "Add two scores, or their ranks among the candidates.", panel="Score"
    )
    sigma: tuple[float, ...] = option(
        (0.001, 0.003, 0.006), "Deviations of the noise on the weights, ascending; repeat it.", panel="Score"
    )
    draws: int = option(3, "Draws of the noise, averaged.", panel="Score", minimum=1)
    noise: Literal["cumulative", "direct"] = option(
        "cumulative", "Each level's noise on top of the last one's, or each on the trained weights.", panel="Score"
    )
    common_noise: bool = option(True, "All architectures see the same noise on the weights they share.", panel="Score")
    noise_scale: Literal["absolute", "filter"] = option(
        "absolute", "The deviation is meant absolutely, or times each filter's norm.", panel="Score"
    )
    subtract_l0: bool = option(False, "Slopes of the loss alone, without its depth.", panel="Score")
    bn: Literal["cumulative", "ema14"] = option(
        "cumulative",
        "Batch-norm statistics of each architecture: the exact mean over calibration batches, or the running average.",
        panel="Score",
    )
    bn_images: int = option(850, "Training images to calibrate batch norm with.", panel="Score", minimum=2)
    val_images: int | None = option(
        None, "Score on so many images of the scoring half [default: all].", panel="Score", metavar="N", minimum=1
    )
    score_batch_size: int = option(512, "Images at a time while scoring.", panel="Score", minimum=1)
    official_quirks: bool = option(
        False, "Score and search as the released code does, mistakes included.", panel="Score"
    )

    @property
    def settings(self) -> ScoreSettings:
        """How architectures are measured.

        Raises:
            UserError: the noise levels make no curve.
        """
        if self.official_quirks:
            own = {one.name: one.default for one in fields(ScoreOptions)}
            changed = [name for name in _OVERRULED if getattr(self, name) != own[name]]
            if changed:
                flags = " ".join(f"--{flag_name(name)}" for name in changed)
                raise UserError("has values of its own for it", f"--official-quirks {flags}", "leave one out")
            return replace(
                ScoreSettings.official(seed=self.seed, accuracy="accuracy" in self.score), sigmas=tuple(self.sigma)
            )
        return ScoreSettings(
            sigmas=tuple(self.sigma),
            draws=self.draws,
            noise=self.noise,
            common_noise=self.common_noise,
            scale=self.noise_scale,
            bn=self.bn,
            calibration_images=self.bn_images,
            subtract_l0=self.subtract_l0,
            batch_size=self.score_batch_size,
            seed=self.seed,
        )

    @property
    def judgement(self) -> Judgement:
        """The score, and how it is measured."""
        settings = self.settings
        score = combination(self.score, settings, gamma=self.gamma, combine=self.combine)
        return Judgement(self.score, score, settings, self.val_images)


@dataclass(frozen=True, kw_only=True)
class LimitOptions(RunOptions):
    """What an architecture may cost."""

    max_flops: float | None = option(
        None, "Multiply-accumulates at most, as in 600M.", panel="Limits", metavar="N", parse=count_of
    )
    min_flops: float | None = option(
        None, "Multiply-accumulates at least.", panel="Limits", metavar="N", parse=count_of
    )
    max_params: float | None = option(
        None, "Parameters at most, as in 5M.", panel="Limits", metavar="N", parse=count_of
    )
    max_latency: float | None = option(
        None, "Milliseconds a forward pass of one image may take on this device.", panel="Limits", metavar="MS", above=0
    )
    form: str | None = option(
        None,
        "The network that an architecture becomes, whose cost is limited: a form of the space (darts: cifar, imagenet)"
        " [default: the first].",
        panel="Limits",
        metavar="FORM",
    )

    @property
    def limits(self) -> Limits:
        """Of multiply-accumulates and parameters."""
        return Limits(self.max_flops, self.min_flops, self.max_params)


@dataclass(frozen=True, kw_only=True)
class EvolutionOptions(RunOptions):
    """How the best is looked for."""

    population: int = option(50, "Architectures a generation.", panel="Evolution", minimum=1)
    generations: int = option(20, "Generations.", panel="Evolution", minimum=1)
    parents: int = option(10, "The best so many have children.", panel="Evolution", minimum=1)
    mutations: int = option(25, "Children by mutation, a generation.", panel="Evolution", minimum=0)
    crossovers: int = option(25, "Children of two parents, a generation.", panel="Evolution", minimum=0)
    mutation_prob: float = option(
        0.1, "Chance that a gene mutates.", panel="Evolution", above=0, maximum=1, parse=fraction
    )

    def evolution(self, *, official: bool, genes: int) -> EvolutionSettings:
        """How to search.

        Args:
            official: mutate the first half of the genes alone, as the released code of GeNAS does.
            genes: of an architecture.

        Raises:
            UserError: the numbers do not go together.
        """
        return EvolutionSettings(
            population=self.population,
            generations=self.generations,
            parents=self.parents,
            mutations=self.mutations,
            crossovers=self.crossovers,
            probability=self.mutation_prob,
            mutated_genes=genes // 2 if official else None,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class StoreOptions(ShardOptions):
    """Where results are kept, and how the work is spread."""

    store: Path | None = option(
        None, "Where results are kept [default: the user's cache].", panel="Scale", metavar="DIR"
    )


@dataclass(frozen=True, kw_only=True)
class SupernetOptions(ImageOptions, SpaceOptions, SupernetTrainingOptions):
    """All options of `vtk search supernet`."""

    recipe_option: ClassVar[str] = "recipe"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES

    @classmethod
    def default_recipe(cls, given: Mapping[str, Any]) -> str:
        """That of the space."""
        space = str(given.get("space") or default_space(given.get("data")))
        return space if space in RECIPES else "darts" if space in SPACES else ""

    @property
    def space_name(self) -> str:
        """The space, with the default in place of none."""
        return self.space or default_space(self.data)

    @property
    def bins(self) -> tuple[Bin, ...]:
        """Of `flops_bins`, in multiply-accumulates.

        Raises:
            UserError: one is no LOW-HIGH.
        """
        found = []
        for text in self.flops_bins:
            low, _, high = text.partition("-")
            try:
                found.append((count_of(low), count_of(high)))
            except ValueError as error:
                raise UserError(f"{text!r} is no bin", "--flops-bins", "write LOW-HIGH as in 290M-300M") from error
        return tuple(found)

    def check(self) -> None:
        """Options that contradict one another."""
        space = space_named(self.space_name)
        if self.sampler == "fair" and not space.independent:
            what = f"strict fairness needs layers that are chosen by themselves, which {space.name} has not"
            raise UserError(what, "--sampler fair", "choose a chain: shufflenetv2, mobilenet, digits-mini")
        if self.bins and self.sampler != "flops-uniform":
            raise UserError("only --sampler flops-uniform has bins", "--flops-bins", "leave it out")


def default_space(data: Any) -> str:
    """`digits-mini` for the embedded digits, else `darts`."""
    return "digits-mini" if data in {None, DIGITS} else "darts"
