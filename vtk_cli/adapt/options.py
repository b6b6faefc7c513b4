"""The options of an adaptation, in groups. Presets (`recipes.py`) set the same fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from vtk_cli.adapt.method import Method, SourceTraining
from vtk_cli.adapt.query.catalog import STRATEGIES, QuerySettings, parse_strategy
from vtk_cli.adapt.recipes import PRESETS, RecipeName
from vtk_cli.engine.options import FaultOptions
from vtk_cli.errors import UserError
from vtk_cli.options import RunOptions, option

EMBEDDED = ("digits", "digits-m")


def _complete_domain(incomplete: str) -> list[str]:
    return [name for name in EMBEDDED if name.startswith(incomplete)]


def complete_query(incomplete: str) -> list[str]:
    """The strategies that begin so."""
    return [name for name in STRATEGIES if name.startswith(incomplete)]


def _complete_preset(incomplete: str) -> list[str]:
    return [name for name in PRESETS if name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class DomainOptions(RunOptions):
    """The two domains."""

    source: str | None = option(
        None,
        "The labelled domain: class folders, a list of `path label` lines, a CSV file, digits or digits-m"
        " [default: digits; none with --model].",
        panel="Data",
        metavar="SOURCE",
        complete=_complete_domain,
    )
    target: str | None = option(
        None,
        "The domain to move to, with or without labels: a folder, a list, a CSV file, digits or digits-m"
        " [default: digits-m for embedded sources].",
        panel="Data",
        metavar="TARGET",
        complete=_complete_domain,
    )
    target_test: str | None = option(
        None, "Labelled images of the target to measure on, none of them in the pool.", panel="Data", metavar="DATA"
    )
    root: Path | None = option(None, "What the paths in lists are relative to.", panel="Data", metavar="DIR")
    ignore_target_labels: bool = option(
        False, "Take the target's images at any depth of its folder, whatever the folders mean.", panel="Data"
    )

    @property
    def source_name(self) -> str | None:
        """The source, the default resolved; None: only its classifier is there."""
        if self.source is not None or getattr(self, "model", None) is not None:
            return self.source
        return EMBEDDED[0]

    @property
    def target_name(self) -> str:
        """The target, the default resolved.

        Raises:
            UserError: there is none for such a source.
        """
        if self.target is not None:
            return self.target
        if self.source_name in {*EMBEDDED, None} and getattr(self, "model", None) is None:
            return EMBEDDED[1]
        raise UserError("which images is the classifier to move to?", "--target", "give a folder, a list or a CSV file")


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(DomainOptions):
    """The network and its training on the source."""

    model: Path | None = option(
        None,
        "Start from a classifier of the source: a source.safetensors of vtk adapt, or a folder of FE.pt and CLS.pt, or"
        " of SHOT's three files.",
        panel="Network",
        metavar="CKPT",
    )
    classes: Path | None = option(
        None, "The class names of --model, one a line, where it does not know them.", panel="Network", metavar="FILE"
    )
    net: str = option("resnet50", "A timm network, or digits-cnn.", panel="Network", metavar="NAME")
    weights: str = option(
        "pretrained", "What it starts from: pretrained, scratch, or a weight file.", panel="Network", metavar="W"
    )
    size: int | None = option(None, "Side of its images [default: its own].", panel="Network", metavar="PX", minimum=8)
    width: int | None = option(
        None,
        "Length of the embedding [default: 256, digits-cnn 64].",
        panel="Network",
        metavar="N",
        minimum=2,
    )
    dsbn: bool = option(True, "A batch normalisation for each domain (arXiv 1906.03950).", panel="Network")
    target_bn_init: Literal["adabn", "source", "pretrained"] = option(
        "adabn",
        "What the target's begins with: the source's with statistics of the target, the source's, or what it was before"
        " the source (as published).",
        panel="Network",
    )
    offline: bool = option(False, "Look for published weights on this machine only.", panel="Network")
    source_epochs: int = option(20, "Passes over the source.", panel="Source", metavar="N", minimum=1)
    source_batch: int = option(64, "Images in a batch.", panel="Source", metavar="N", minimum=2)
    source_lr: float = option(1e-3, "Learning rate at the start.", panel="Source", metavar="LR", above=0)
    smoothing: float = option(0.1, "Of the labels.", panel="Source", minimum=0, maximum=0.99)
    holdout: float = option(0.1, "Share of the source to measure on.", panel="Source", minimum=0, maximum=0.9)
    source_keep: Literal["last", "best"] = option(
        "last", "The weights at the end, or those that did best on the hold-out.", panel="Source"
    )


@dataclass(frozen=True, kw_only=True)
class StageOptions(NetworkOptions, FaultOptions):
    """The stages on the target."""

    recipe: RecipeName = option("sequential", "How to train; see vtk adapt recipes.", panel="Training")
    lr: float = option(1e-3, "Learning rate of the network at the start of a stage.", panel="Training", above=0)
    predictor_lr: float = option(1e-2, "Of the loss predictor.", panel="Training", metavar="LR", above=0)
    discriminator_lr: float = option(1e-2, "Of the discriminator.", panel="Training", metavar="LR", above=0)
    batch: int = option(64, "Images in a batch.", panel="Training", metavar="N", minimum=2)
    train_head: bool = option(
        False, "Let the classifier learn; as published it stays that of the source.", panel="Training"
    )
    lpm_inputs: Literal["stages", "stages+embed"] = option(
        "stages+embed", "What the loss predictor sees; as published stages.", panel="Training"
    )
    lpm_width: int | None = option(
        None, "Width of its layers [default: by network].", panel="Training", metavar="N", minimum=1
    )
    lpm_weight: float = option(1.0, "Of its loss; 0: it does not learn.", panel="Training", metavar="W", minimum=0)
    rank_loss: Literal["hinge", "bce"] = option("hinge", "Its loss.", panel="Training")
    pl_weight: float = option(0.3, "Of the pseudo labels' loss.", panel="Training", metavar="W", minimum=0)
    pl_refresh: int | None = option(
        None,
        "How often a stage makes pseudo labels [default: 15, 4 above 20,000 images].",
        panel="Training",
        metavar="N",
        minimum=1,
    )
    pl_keep: float = option(
        1.0, "Share of each class whose pseudo labels count: the lowest predicted losses.", panel="Training", above=0,
        maximum=1,
    )  # fmt: skip
    pl_late: bool = option(False, "Wait with them until they were made twice (VisDA).", panel="Training")
    im_weight: float = option(1.0, "Of information maximisation.", panel="Training", metavar="W", minimum=0)
    im_prior: Literal["uniform", "L", "none"] = option(
        "uniform",
        "What it draws the mean prediction to: all classes alike, their shares in the labels.",
        panel="Training",
    )
    replay: float = option(
        1.0,
        "Weight of labelled images while others are learnt; 0: they are forgotten, as published.",
        panel="Training",
        metavar="W",
        minimum=0,
    )
    replay_batch: int = option(32, "The most of them in a batch.", panel="Training", metavar="N", minimum=1)
    uda: Literal["im", "mcc", "none"] = option("im", "What is learnt before there is any label.", panel="Training")
    adv: float | None = option(
        None,
        "Weight of the discriminator's loss [default: 1 of tl-ada, else 0].",
        panel="Training",
        metavar="W",
        minimum=0,
    )
    stage1_batch: int | None = option(
        None,
        "Labelled images in a batch [default: as many as a round asks for].",
        panel="Training",
        metavar="N",
        minimum=2,
    )
    stage1_max_passes: int = option(40, "Over them, at most.", panel="Training", metavar="N", minimum=1)
    stage1_steps: int | None = option(None, "Updates, in place of the rule.", panel="Training", metavar="N", minimum=1)
    stage2_steps: int | None = option(
        None, "Updates on unlabelled images, in place of --passes.", panel="Training", metavar="N", minimum=1
    )
    passes: float = option(2.0, "Over the longer of target and source, in stage 2.", panel="Training", above=0)
    first_passes: float = option(2.0, "The same before there is any label.", panel="Training", above=0)
    joint_steps: int | None = option(
        None, "Updates a round of recipe joint [default: as stage 2].", panel="Training", metavar="N", minimum=1
    )
    joint_lr: float | None = option(None, "Of recipe joint [default: --lr].", panel="Training", metavar="LR", above=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("fp32", "Arithmetic.", panel="Training")
    workers: int = option(0, "Processes that read images.", panel="Training", metavar="N", minimum=0)
    checkpoint_seconds: float = option(
        300.0, "Save the state of a stage so often.", panel="Training", metavar="S", minimum=0
    )

    @property
    def method(self) -> Method:
        """The settings of the stages for the recipe."""
        joint = self.recipe == "joint"
        stage1 = self.stage1_steps
        if self.recipe == "labelled" and stage1 is not None and self.stage2_steps is not None:
            stage1 += self.stage2_steps  # as long as both stages together
        return Method(
            lr=self.joint_lr or self.lr if joint else self.lr,
            predictor_lr=self.predictor_lr,
            discriminator_lr=self.discriminator_lr,
            train_head=self.train_head or joint,
            lpm_inputs=self.lpm_inputs,
            lpm_width=self.lpm_width,
            lpm_weight=self.lpm_weight,
            rank_loss=self.rank_loss,
            pl_weight=self.pl_weight,
            pl_refreshes=self.pl_refresh,
            pl_keep=self.pl_keep,
            pl_late=self.pl_late,
            im_weight=self.im_weight,
            im_prior=self.im_prior,
            replay=self.replay,
            replay_batch=self.replay_batch,
            uda=self.uda,
            adversarial=self.adversarial,
            batch_size=self.batch,
            labelled_batch=self.stage1_batch,
            labelled_max_passes=self.stage1_max_passes,
            labelled_steps=stage1,
            unlabelled_steps=self.stage2_steps,
            passes=self.passes,
            first_passes=self.first_passes,
            joint_steps=self.joint_steps,
        )

    @property
    def adversarial(self) -> float:
        """The weight of the discriminator's loss, the default resolved."""
        if self.adv is not None:
            return self.adv
        return 1.0 if self.recipe == "tl-ada" else 0.0

    @property
    def source_training(self) -> SourceTraining:
        """The settings of the training on the source."""
        return SourceTraining(
            epochs=self.source_epochs,
            batch_size=self.source_batch,
            lr=self.source_lr,
            smoothing=self.smoothing,
            holdout=self.holdout,
            keep=self.source_keep,
        )


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(StageOptions):
    """All that shapes a run."""

    budget: str = option("5%", "Labels in all: 5% of the pool, or 40 images.", panel="Labels", metavar="N|N%")
    rounds: int = option(5, "Rounds that they are asked for in.", panel="Labels", metavar="N", minimum=1)
    per_round: str | None = option(
        None, "Labels a round, 1% or 25, in place of --budget.", panel="Labels", metavar="N|N%"
    )
    query: str = option(
        "loss",
        "Which images to ask about: loss, random, entropy, margin, confidence, coreset, badge, clue, energy, sdm, las,"
        " loss-diverse, aada; or shares, loss:0.5,random:0.5.",
        panel="Labels",
        metavar="NAME",
        complete=complete_query,
    )
    query_order: Literal["high", "low"] = option(
        "high", "loss: the highest predicted losses, or the lowest.", panel="Labels"
    )
    temperature: float = option(1.0, "clue: of its entropies; 0.1 for Office and DomainNet.", panel="Labels", above=0)
    las_candidates: int = option(
        10, "las: clusters (1 + N) times what is asked for.", panel="Labels", metavar="N", minimum=0
    )
    dedup: float | None = option(
        None, "Ask about one only of images whose embeddings have this cosine.", panel="Labels", above=0, maximum=1
    )
    class_quota: int | None = option(
        None, "Ask about at most N images of a predicted class a round.", panel="Labels", metavar="N", minimum=1
    )
    audit: int = option(
        0, "Random images to label once and to measure on only, apart from the budget.", panel="Labels", metavar="N",
        minimum=0,
    )  # fmt: skip
    preset: str | None = option(
        None,
        "Set options to those of a benchmark; see vtk adapt recipes.",
        panel="Training",
        metavar="NAME",
        complete=_complete_preset,
    )

    recipe_option: ClassVar[str] = "preset"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    @classmethod
    def default_recipe(cls, given: Mapping[str, Any]) -> str:
        """`digits` for embedded digits, else `office31`."""
        embedded = given.get("source") in {None, *EMBEDDED} and given.get("target") in {None, *EMBEDDED}
        return "digits" if embedded and not given.get("model") else "office31"

    @property
    def query_settings(self) -> QuerySettings:
        """What the strategies are told."""
        return QuerySettings(self.query_order, self.temperature, las_candidates=self.las_candidates)

    @property
    def name(self) -> str:
        """The run in a few letters, for file names."""
        source = "model" if self.source_name is None else Path(self.source_name).stem
        return f"{source}-{Path(self.target_name).stem}"

    def check(self) -> None:
        """Options that contradict one another."""
        parse_strategy(self.query, recipe=self.recipe)
        if self.model is not None and self.source is None and self.recipe in {"joint", "tl-ada"}:
            what = f"the recipe {self.recipe} learns from the source"
            raise UserError(what, "--model", "give --source too, or --recipe sequential")
        if self.adversarial > 0 and self.recipe != "tl-ada":
            raise UserError(f"the recipe {self.recipe} has no discriminator", "--adv", "give --recipe tl-ada")
        if self.target_bn_init == "pretrained" and not self.dsbn:
            what = "the target has no layers of its own to leave as they were"
            raise UserError(what, "--target-bn-init pretrained", "choose adabn or source, or keep --dsbn")
        if self.source_keep == "best" and not self.holdout:
            raise UserError("there is nothing to tell the best weights by", "--source-keep", "hold out a share")
        if self.classes is not None and self.model is None:
            raise UserError("the source names its classes", "--classes", "leave it out")
