"""The settings of the stages. Nothing heavy is imported here.

Defaults: TL-ADA (doi 10.1016/j.neunet.2023.02.004) as its authors released it, but for the replay of labelled images,
the further inputs of the loss predictor and the first statistics of the target, which are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Literal

from vtk_cli.errors import UserError

_REFRESHES, _REFRESHES_OF_MANY, _MANY = 15, 4, 20_000


@dataclass(frozen=True)
class SourceTraining:
    """The training on the source.

    Args:
        epochs: passes over what is trained on.
        batch_size: images in a batch.
        lr: of the whole network at the start.
        smoothing: of the labels, in [0, 1).
        holdout: share of the source that is kept to measure on, in [0, 1).
        holdout_seed: of which images that is.
        keep: the weights at the end, or those that did best on the hold-out.
        momentum, weight_decay: of SGD with Nesterov's momentum.
    """

    epochs: int = 20
    batch_size: int = 64
    lr: float = 1e-3
    smoothing: float = 0.1
    holdout: float = 0.1
    holdout_seed: int = 2020
    keep: Literal["last", "best"] = "last"
    momentum: float = 0.9
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        _require("epochs", self.epochs, self.epochs >= 1, "at least 1")
        _require("batch_size", self.batch_size, self.batch_size >= 2, "at least 2")
        _require("lr", self.lr, self.lr > 0, "above 0")
        _require("smoothing", self.smoothing, 0 <= self.smoothing < 1, "in [0, 1)")
        _require("holdout", self.holdout, 0 <= self.holdout < 1, "in [0, 1)")
        if self.keep == "best" and not self.holdout:
            raise UserError("there is nothing to tell the best weights by", "keep", "hold out a share of the source")


@dataclass(frozen=True)
class Method:
    """The adaptation.

    Args:
        lr, predictor_lr, discriminator_lr: at the start of every stage: of the network, of the loss predictor, of the
            discriminator.
        momentum, weight_decay: of SGD with Nesterov's momentum.
        train_head: let the classifier learn, which else stays that of the source.
        lpm_inputs: what the loss predictor sees.
        lpm_width: of its inputs' layers; None: what is usual for the network.
        rank_loss: of the loss predictor: the hinge, or cross-entropy.
        margin: of the hinge.
        lpm_weight: of the loss predictor's loss; 0: it does not learn.
        pl_weight: of the pseudo labels' cross-entropy.
        pl_refreshes: how often in a stage pseudo labels are made; a stage's length is divided by it, rounded down.
            None: 15, and 4 of more than 20,000 images.
        pl_keep: the share of each predicted class whose pseudo labels are used: those with the lowest predicted losses.
        pl_late: leave pseudo labels out until they were made for the second time (VisDA).
        im_weight: of information maximisation.
        im_prior: what the mean prediction is drawn to: all classes alike, their shares among the labels; `none`: free.
        replay: weight of the cross-entropy of labelled images while others are learnt; 0: they are forgotten.
        replay_batch: the most of them in a batch.
        uda: what is learnt before there is any label: information maximisation, minimum class confusion in its place,
            or nothing.
        adversarial: weight of the discriminator's loss for the network (TL-ADA); 0: no discriminator.
        batch_size: of unlabelled and of source images.
        labelled_batch: of the labelled stage; None: as many as a round asks for, but no more than `batch_size`.
        passes: over the longer of target and source in the unlabelled stage of a round.
        first_passes: the same, before there is any label.
        epochs: the number called E in the length of the labelled stage, (E + round) (batches + images a round).
        labelled_max_passes: over the labelled images, at most.
        labelled_steps, unlabelled_steps: updates of the stages, in place of the rules above.
        joint_steps: updates of the joint baseline in a round; None: `passes` over the longer of target and source.
        joint_lr: of the joint baseline; None: `lr`.
    """

    lr: float = 1e-3
    predictor_lr: float = 1e-2
    discriminator_lr: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 1e-3
    train_head: bool = False
    lpm_inputs: Literal["stages", "stages+embed"] = "stages+embed"
    lpm_width: int | None = None
    rank_loss: Literal["hinge", "bce"] = "hinge"
    margin: float = 1.0
    lpm_weight: float = 1.0
    pl_weight: float = 0.3
    pl_refreshes: int | None = None
    pl_keep: float = 1.0
    pl_late: bool = False
    im_weight: float = 1.0
    im_prior: Literal["uniform", "L", "none"] = "uniform"
    replay: float = 1.0
    replay_batch: int = 32
    uda: Literal["im", "mcc", "none"] = "im"
    adversarial: float = 0.0
    batch_size: int = 64
    labelled_batch: int | None = None
    passes: float = 2.0
    first_passes: float = 2.0
    epochs: int = 1
    labelled_max_passes: int = 40
    labelled_steps: int | None = None
    unlabelled_steps: int | None = None
    joint_steps: int | None = None
    joint_lr: float | None = None

    def __post_init__(self) -> None:
        for name in ("lr", "predictor_lr", "discriminator_lr", "margin", "passes", "first_passes"):
            _require(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        for name in ("lpm_weight", "pl_weight", "im_weight", "replay", "adversarial"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        for name in ("replay_batch", "epochs", "labelled_max_passes"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in (
            "labelled_steps",
            "unlabelled_steps",
            "joint_steps",
            "lpm_width",
            "labelled_batch",
            "pl_refreshes",
        ):
            value = getattr(self, name)
            _require(name, value, value is None or value >= 1, "at least 1")
        _require("batch_size", self.batch_size, self.batch_size >= 2, "at least 2")
        _require("pl_keep", self.pl_keep, 0 < self.pl_keep <= 1, "in (0, 1]")
        _require("joint_lr", self.joint_lr, self.joint_lr is None or self.joint_lr > 0, "above 0")

    def labelled_length(self, batches: int, asked: int, round_number: int) -> int:
        """Updates of the labelled stage.

        Args:
            batches: in a pass over the labelled images.
            asked: images that the round asked for.
            round_number: from 1.
        """
        if self.labelled_steps is not None:
            return self.labelled_steps
        return min((self.epochs + round_number) * (batches + asked), self.labelled_max_passes * batches)

    def unlabelled_length(self, target_batches: int, source_batches: int, round_number: int) -> int:
        """Updates of the unlabelled stage.

        Args:
            target_batches: in a pass over the images without label.
            source_batches: in a pass over the source; 0 without one.
            round_number: 0 before there is any label.
        """
        if self.unlabelled_steps is not None:
            return self.unlabelled_steps
        passes = self.passes if round_number else self.first_passes
        return max(1, floor(passes * max(target_batches, source_batches)))

    def joint_length(self, target_batches: int, source_batches: int) -> int:
        """Updates of the joint baseline in a round."""
        if self.joint_steps is not None:
            return self.joint_steps
        return max(1, floor(self.passes * max(target_batches, source_batches)))

    def refresh_interval(self, steps: int, images: int) -> int:
        """Updates between two makings of pseudo labels, of so many images in a stage of so many updates."""
        usual = _REFRESHES if images <= _MANY else _REFRESHES_OF_MANY
        return max(1, steps // (self.pl_refreshes or usual))


def learning_rate(lr: float, progress: float) -> float:
    """The rate at `progress` through a stage, 0 to 1: lr (1 + 10 p)^-0.75 (DANN, arXiv 1505.07818, Section 5.2.2)."""
    return float(lr * (1.0 + 10.0 * progress) ** -0.75)


def _require(name: str, value: object, holds: bool, range_: str) -> None:
    if not holds:
        raise UserError(f"{name} must be {range_}, not {value}")
