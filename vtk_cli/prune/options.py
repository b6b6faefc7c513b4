"""The options of a search for a ticket, in groups that verbs share. Recipes (`recipes.py`) set the same fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal

from vtk_cli.data.options import DIGITS
from vtk_cli.engine.options import FaultOptions
from vtk_cli.errors import UserError
from vtk_cli.options import RunOptions, option
from vtk_cli.prune.generators.catalog import GENERATORS, check_generator
from vtk_cli.prune.keeping import AlgorithmName, ScoreInit, parse_keep
from vtk_cli.prune.metrics.catalog import DIGITS as DIGITS_CNN
from vtk_cli.prune.metrics.catalog import EMBEDDERS, INCEPTION, Resize
from vtk_cli.prune.recipes import RECIPES

MASKED_ALGORITHMS = ("edge-popup", "gem-miner", "random")
"""Those that leave the weights as they are."""


def _complete_generator(incomplete: str) -> list[str]:
    return [name for name in GENERATORS if name.startswith(incomplete)]


def _complete_embedder(incomplete: str) -> list[str]:
    return [name for name in EMBEDDERS if name.startswith(incomplete)]


def _complete_recipe(incomplete: str) -> list[str]:
    return [name for name in RECIPES if name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class ImageOptions(RunOptions):
    """The real images."""

    data: str = option(
        DIGITS,
        "A folder of images (any depth; CelebA, FFHQ, CIFAR-10 batches, LSUN), or digits.",
        positional=True,
        metavar="DATA",
    )
    eval_data: str | None = option(
        None, "Images to measure on [default: those that the data sets apart, or a share].", panel="Data", metavar="DIR"
    )
    holdout: float = option(
        0.2, "The share to hold out where the data sets none apart.", panel="Data", above=0, maximum=0.9
    )

    @property
    def data_name(self) -> str:
        """The data in a few letters, for file names."""
        return Path(self.data).name or self.data


@dataclass(frozen=True, kw_only=True)
class EmbedderOptions(ImageOptions):
    """What generated images are measured with."""

    eval_embedder: str | None = option(
        None,
        "What embeds images for the distances: inception (FID; needs --inception), digits-cnn, or a timm name [default:"
        " digits-cnn on digits, else inception].",
        panel="Metrics",
        metavar="NAME",
        complete=_complete_embedder,
    )
    inception: Path | None = option(
        None,
        "Inception's weights of published FIDs, pt_inception-2015-12-05-6726825d.pth of pytorch-fid.",
        panel="Metrics",
        metavar="FILE",
    )
    resize: Resize = option(
        "clean",
        "How images come to the embedder's size: clean (bicubic, antialiased) or legacy (bilinear, as pytorch-fid).",
        panel="Metrics",
    )
    samples: int = option(10_000, "Images to generate for the metrics.", panel="Metrics", metavar="N", minimum=2)
    neighbours: int = option(
        3, "k of precision, recall, density and coverage.", panel="Metrics", metavar="K", minimum=1
    )
    allow_fallback: bool = option(
        False, "Measure FD(digits-cnn), which is no FID, where Inception's weights are missing.", panel="Metrics"
    )
    offline: bool = option(False, "Look for published weights on this machine only.", panel="Metrics")

    @property
    def embedder(self) -> str:
        """Its name, the default in place of none."""
        return self.eval_embedder or (DIGITS_CNN if self.data == DIGITS else INCEPTION)


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions(ImageOptions):
    """The generator and its weights before the search."""

    gen: str = option("sngan", "The generator.", panel="Generator", metavar="NAME", complete=_complete_generator)
    image_size: int = option(64, "Side of its images, a power of two.", panel="Generator", metavar="PX")
    channels: int = option(3, "Of its images: 3, or 1 for grey.", panel="Generator", minimum=1, maximum=3)
    nz: int | None = option(
        None, "Length of its noise [default: the generator's own].", panel="Generator", metavar="N", minimum=1
    )
    ngf: int | None = option(
        None, "Its width [default: the generator's own].", panel="Generator", metavar="N", minimum=1
    )
    theta: Path | None = option(
        None,
        "Select from these weights instead of random ones: a generator that vtk wrote, a run, a published checkpoint.",
        panel="Generator",
        metavar="FILE",
    )
    weight_init: Literal["signed-constant", "kaiming-normal", "normal", "gaussian10"] = option(
        "signed-constant",
        "The random weights; for signed constants a ticket needs their seed alone.",
        panel="Generator",
    )
    scale_fan: bool = option(False, "Count in the fan only the weights that will be kept.", panel="Generator")


@dataclass(frozen=True, kw_only=True)
class SelectionOptions(GeneratorOptions):
    """Which weights are kept, and how they are found."""

    algo: Literal["edge-popup", "gem-miner", "imp", "magnitude", "dense", "random", "sparse"] = option(
        "edge-popup",
        "How: edge-popup and gem-miner search on frozen weights; dense, sparse (random mask), imp and magnitude train"
        " them; random does neither.",
        panel="Search",
    )
    keep: str = option("0.1", "The fraction of weights kept, in (0, 1].", panel="Search", metavar="FRACTION")
    scope: Literal["layer", "global"] = option(
        "layer", "That fraction of every layer, or of all weights together.", panel="Search"
    )
    structure: Literal["none", "2:4"] = option(
        "none", "2:4: two of every four consecutive weights (with --keep 0.5).", panel="Search"
    )
    score_init: Literal["uniform", "kaiming"] = option("uniform", "The first scores of edge-popup.", panel="Search")
    freeze_first: bool = option(False, "Leave the first layer dense and random.", panel="Search")
    freeze_last: bool = option(False, "Leave the last layer dense and random.", panel="Search")
    rounds: int = option(5, "imp: how often the smallest weights are dropped.", panel="Search", minimum=1)
    rewind: int = option(0, "imp: set the others back to those after so many steps.", panel="Search", minimum=0)

    @property
    def kept(self) -> Fraction:
        """The fraction exactly as written."""
        return parse_keep(self.keep)


@dataclass(frozen=True, kw_only=True)
class MatchingOptions(SelectionOptions, FaultOptions):
    """What the generated images are to have in common with the real ones, and how that is reached."""

    extractor: str = option(
        "vgg19-bn",
        "Whose features are matched: vgg19-bn, digits-features, or a timm name; NAME=FILE gives the weights.",
        panel="Matching",
        metavar="NAME",
    )
    extractor_layers: tuple[int, ...] = option(
        (), "Only these of its layers, from 0; may be repeated [default: all].", panel="Matching", metavar="N"
    )
    extractor_mode: Literal["eval", "train"] = option(
        "eval", "train: batch normalisation uses each batch's statistics, as the published code does.", panel="Matching"
    )
    feature_norm: Literal["auto", "layer", "none"] = option(
        "auto", "layer: every layer counts alike; auto: none for vgg19-bn, else layer.", panel="Matching"
    )
    moment_avg: Literal["auto", "ama", "ema", "none"] = option(
        "auto",
        "How the differences of moments are averaged over the steps; auto: ema below 50,000 steps, else ama.",
        panel="Matching",
    )
    moment_rate: float | None = option(
        None, "Its rate [default: 0.97 for ema, 1e-5 for ama].", panel="Matching", metavar="RATE", above=0
    )
    steps: int = option(300_000, "Updates.", panel="Training", minimum=1)
    batch: int = option(
        64, "Images a step.", panel="Training", minimum=2, advice="a batch of one has no variance: give at least 2"
    )
    lr: float = option(1e-3, "Adam's learning rate.", panel="Training", above=0)
    weights_lr: float | None = option(
        None,
        "Where weights are trained (dense, sparse, imp, magnitude, such baselines) [default: --lr].",
        panel="Training",
        metavar="LR",
        above=0,
    )
    weight_decay: float = option(0.0, "Of what is trained: scores, or weights.", panel="Training", minimum=0)
    schedule: Literal["cosine", "constant", "cosine-10"] = option(
        "cosine",
        "Of the learning rate: cosine to 0, constant, or cosine-10, which falls and rises every 20 steps.",
        panel="Training",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("fp32", "Arithmetic.", panel="Training")
    every: int = option(
        5_000, "Write metrics and samples after so many steps.", panel="Training", metavar="STEPS", minimum=1
    )
    noise_seed: int | None = option(
        None, "Of the noise in training [default: from --seed].", panel="Training", metavar="N", minimum=0
    )
    checkpoint_seconds: float = option(120.0, "Save the state so often.", panel="Training", metavar="S", minimum=0)

    def lr_of(self, algorithm: AlgorithmName) -> float:
        """Scores and weights differ in their scale, and so do the rates that do well."""
        return self.lr if algorithm in MASKED_ALGORITHMS or self.weights_lr is None else self.weights_lr

    @property
    def rate(self) -> float:
        """Of the moving average."""
        if self.moment_rate is not None:
            return self.moment_rate
        return 1e-5 if self.averaging == "ama" else 0.97

    @property
    def averaging(self) -> Literal["ama", "ema", "none"]:
        """How the differences are averaged, `auto` decided."""
        if self.moment_avg != "auto":
            return self.moment_avg
        return "ema" if self.steps < 50_000 else "ama"

    @property
    def normalisation(self) -> Literal["layer", "none"]:
        """How features are scaled, `auto` decided."""
        if self.feature_norm != "auto":
            return self.feature_norm
        return "none" if self.extractor.partition("=")[0] == "vgg19-bn" else "layer"


@dataclass(frozen=True, kw_only=True)
class TrialOptions(MatchingOptions, EmbedderOptions):
    """All that shapes a search and what is measured at its end."""

    recipe: str | None = option(
        None,
        "Set options to those of a published search, or for a data set; see vtk prune recipes.",
        panel="Training",
        metavar="NAME",
        complete=_complete_recipe,
    )

    recipe_option: ClassVar[str] = "recipe"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES

    @classmethod
    def default_recipe(cls, given: Mapping[str, Any]) -> str:
        """`digits` on digits, else `sngan-celeba`, whatever the images."""
        return "digits" if given.get("data") in {None, DIGITS} else "sngan-celeba"

    def check(self) -> None:
        """Options that contradict one another."""
        check_generator(self.gen, self.image_size)
        check_selection(self.algo, self.kept, self.scope, self.score_init, self.structure)
        if self.averaging == "ema" and self.rate >= 1:
            raise UserError(f"{self.rate:g} is no rate of an ema", "--moment-rate", "give a number below 1")
        if self.theta is not None and self.scale_fan:
            raise UserError("the weights are given and not drawn", "--scale-fan", "leave it out")


def check_selection(
    algorithm: AlgorithmName, keep: Fraction, scope: str, score_init: ScoreInit, structure: str
) -> None:
    """What cannot be searched for, told before torch is imported.

    Raises:
        UserError: `2:4` does not keep one half, or scores on scales of their own meet one threshold.
    """
    if structure == "2:4" and keep != Fraction(1, 2):
        raise UserError(f"2:4 keeps one half of the weights, not {float(keep):g}", "--structure", "give --keep 0.5")
    if algorithm == "edge-popup" and score_init == "kaiming" and scope == "global":
        what = "kaiming scores are on another scale in every layer, and one threshold would empty whole layers"
        raise UserError(what, "--score-init", "give --score-init uniform, or --scope layer")
