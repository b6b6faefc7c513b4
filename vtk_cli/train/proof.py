"""`vtk proof train`: with few labels a masked sub-branch teaches more than a longer schedule (arXiv 2306.11339).

A small vision transformer on the embedded digits, from several seeds: plain, with the sub-branch, plain for as much
compute, and with the parts of the idea apart. A second setting has more images and a shorter schedule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.engine.loop import Clock, fit
from vtk_cli.engine.pieces.result_folders import ResultFolders
from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.engine.processes.distributed import World
from vtk_cli.files import cache_folder, content_key
from vtk_cli.models.accuracy import Evaluation
from vtk_cli.models.evaluation import evaluate
from vtk_cli.reports.curves import Points, draw_points
from vtk_cli.reports.evidence import Claim, Proof
from vtk_cli.reports.page import Table
from vtk_cli.train.losses import soft_cross_entropy
from vtk_cli.train.objective import Objective
from vtk_cli.train.options import TrainOptions
from vtk_cli.train.preparation import Training, open_data, prepare
from vtk_cli.train.proof_points import (
    PointResults,
    point_claims,
    point_table,
    prove_points,
    robustness_not_claimed,
)
from vtk_cli.train.recipes import RECIPES
from vtk_cli.train.sub.model import SubModel

_VERSION = 1
"""Raised when what is measured changes, so that kept results are not taken for it."""


@dataclass(frozen=True)
class Setting:
    """What all arms of a comparison share."""

    name: str
    images_per_class: int
    epochs: int
    shift: int


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Args:
        name: for tables.
        sub: what the sub-branch is taught by; `none`: plain training; `alone`: only the masked forward is trained, on
            the label.
        longer: epochs over those of the setting.
    """

    name: str
    sub: Literal["none", "relaxed", "label", "alone"] = "none"
    longer: float = 1.0


FEW = Setting("10 images a class, 300 epochs", 10, 300, 1)
SHORT = Setting("20 images a class, 150 epochs", 20, 150, 3)
PLAIN, SUB, LONGER = Arm("plain"), Arm("sub-branch", "relaxed"), Arm("plain, 1.5x the epochs", longer=1.5)
ALONE, LABELS = Arm("main branch masked", "alone"), Arm("sub-branch taught by labels", "label")
ARMS = (PLAIN, SUB, LONGER, ALONE, LABELS)


@dataclass(frozen=True)
class Result:
    """What a training came to, on the 360 validation digits.

    Args:
        top1: accuracy, in [0, 1].
        nll: mean negative log-likelihood, in nats.
        masked_top1: accuracy when half of the tokens are left out.
        seconds: of training.
    """

    top1: float
    nll: float
    masked_top1: float
    seconds: float


def prove(seeds: Sequence[int], *, smallest: bool, plots: Path, device: torch.device, console: Console) -> Proof:
    """Train every arm from every seed (finished ones are kept in the cache) and judge the claims."""
    settings = _settings(smallest=smallest)
    results, points = work(seeds, smallest=smallest, device=device, console=console)
    few, short = results.values()
    return Proof(
        name="train",
        title="With few labels a masked sub-branch is worth more than more epochs (AugMask, arXiv 2306.11339)",
        setting=(
            "A ViT of 3 blocks, 64 wide, on 16 patches of the embedded digits; AdamW 2e-3, batches of 50, shifts;"
            f" 360 validation images; seeds {', '.join(map(str, seeds))}. The sub-branch sees half of the tokens."
        ),
        tables=[
            *(_table(setting, results[setting.name], seeds) for setting in settings),
            point_table(points, seeds),
        ],
        claims=[*_claims(few), *point_claims(points)],
        not_claimed=(
            "That it is worth more than more epochs with more images: in the second table it has"
            f" {_mean(short[SUB.name]):.1%} against {_mean(short[LONGER.name]):.1%}.",
            "That relaxed targets beat labels in the sub-branch at this scale:"
            f" {_mean(few[SUB.name]):.1%} against {_mean(few[LABELS.name]):.1%}.",
            robustness_not_claimed(points),
        ),
        pictures=[_draw(few, plots)],
        data={
            "results": {
                setting: {arm: [vars(one) for one in each] for arm, each in arms.items()}
                for setting, arms in results.items()
            },
            "points": points.as_json(),
        },
    )


def work(
    seeds: Sequence[int], *, smallest: bool, device: torch.device, console: Console, share: Share = WHOLE
) -> tuple[dict[str, dict[str, list[Result]]], PointResults]:
    """All trainings, those of `share` first: of every arm by setting and name, and with the point loss."""
    settings = _settings(smallest=smallest)
    pieces = [_Piece(setting, arm, seed) for seed in seeds for setting in settings for arm in ARMS]
    found = ResultFolders(cache_folder() / "proof-train").through(
        pieces,
        key=lambda piece: piece.key(device),
        compute=lambda piece, folder: vars(_train(piece, folder, device, console)),
        share=share,
        name=lambda piece: f"{piece.arm.name}, {piece.setting.name}, from seed {piece.seed}",
    )
    results: dict[str, dict[str, list[Result]]] = {one.name: {arm.name: [] for arm in ARMS} for one in settings}
    for piece, result in zip(pieces, found, strict=True):
        results[piece.setting.name][piece.arm.name].append(Result(**result))
    return results, prove_points(seeds, smallest=smallest, device=device, console=console, share=share)


def _settings(*, smallest: bool) -> list[Setting]:
    return [replace(one, epochs=2) for one in (FEW, SHORT)] if smallest else [FEW, SHORT]


@dataclass(frozen=True)
class _Piece:
    setting: Setting
    arm: Arm
    seed: int

    @property
    def options(self) -> TrainOptions:
        return options_of(self.setting, self.arm, self.seed)

    def key(self, device: torch.device) -> str:
        about = {"alone": self.arm.sub == "alone", "device": str(device), "version": _VERSION}
        return content_key({**self.options.as_config(), **about})


def options_of(setting: Setting, arm: Arm, seed: int) -> TrainOptions:
    """The command line that trains `arm`; `alone` differs from `label` in its loss only."""
    target = "relaxed" if arm.sub == "relaxed" else "label"
    values: dict[str, Any] = {
        **RECIPES["digits"],
        "images_per_class": setting.images_per_class,
        "epochs": round(setting.epochs * arm.longer),
        "shift": setting.shift,
        "batch_size": 50,
        "sub": "none" if arm.sub == "none" else "mask",
        "sub_target": target,
        "seed": seed,
    }
    return TrainOptions(**values)


def _train(piece: _Piece, folder: Path, device: torch.device, console: Console) -> Result:
    options, arm = piece.options, piece.arm
    training = prepare(options, open_data(options, console), World(0, 1, 0, device), console)
    loss = MaskedAlone(training.objective, training.classifier.sub) if arm.sub == "alone" else training.objective
    result = fit(
        training.classifier,
        loss,
        training.batches,
        training.optimizer,
        plan=training.plan,
        device=device,
        seed=options.seed,
        scheduler=training.scheduler,
        evaluate=None,
        checkpoints=folder / "checkpoints",
        metrics=folder / "metrics.jsonl",
        console=console,
        description=f"{arm.name}, seed {options.seed}",
    )
    whole, masked = _measured(training, result.model), _measured(training, _HalfSeen(training, options.seed))
    return Result(whole.top1, whole.nll, masked.top1, result.train_seconds)


class MaskedAlone:
    """The baseline that masks the only forward there is, and teaches it the label."""

    def __init__(self, objective: Objective, sub: SubModel | None) -> None:
        if sub is None:
            raise ValueError("there is no sub-model to train alone")
        self._objective, self._sub = objective, sub

    def __call__(self, model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Iterator[Tensor]:
        """Yield the loss of the masked forward."""
        _, images, targets = batch
        draw = self._sub.draw(len(images), clock.seed, clock.step, images.device)
        logits, _ = model(self._objective.normalised(images), draw)
        yield soft_cross_entropy(logits, nn.functional.one_hot(targets, logits.shape[1]).float())


class _HalfSeen(nn.Module):
    """A trained network that sees half of each image's tokens."""

    def __init__(self, training: Training, seed: int) -> None:
        super().__init__()
        self._classifier, self._seed, self._batch = training.classifier, seed, 0
        options = TrainOptions(**{**RECIPES["digits"], "sub": "mask"})
        self._sub = (
            training.classifier.sub
            or prepare(options, training.data, training.world, Console(quiet=True)).classifier.sub
        )

    def forward(self, images: Tensor) -> Tensor:
        if self._sub is None:
            raise ValueError("there is no sub-model")
        self._batch += 1
        draw = self._sub.draw(len(images), self._seed, self._batch, images.device)
        return self._sub.logits(self._classifier.network, images, draw)


def _measured(training: Training, model: nn.Module) -> Evaluation:
    if training.validation is None:
        raise ValueError("digits have validation images")
    found = evaluate(model, training.validation, pixels=training.eval_pixels, device=training.world.device)
    if not isinstance(found, Evaluation):
        raise TypeError("digits have one label each")
    return found


def _mean(results: Sequence[Result]) -> float:
    return mean(one.top1 for one in results)


def _table(setting: Setting, results: Mapping[str, Sequence[Result]], seeds: Sequence[int]) -> Table:
    rows = []
    for arm, each in results.items():
        top1 = [100 * one.top1 for one in each]
        spread = f" ({stdev(top1):.1f})" if len(top1) > 1 else ""
        rows.append(
            (
                arm,
                *(f"{value:.1f}" for value in top1),
                f"{mean(top1):.1f}{spread}",
                f"{mean(one.nll for one in each):.2f}",
                f"{100 * mean(one.masked_top1 for one in each):.1f}",
            )
        )
    columns = ("arm", *(f"seed {seed}" for seed in seeds), "mean (sd)", "NLL", "with half the tokens")
    return Table(columns, rows, caption=f"Accuracy in %, {setting.name}, shifts of {setting.shift} px")


def _claims(results: Mapping[str, Sequence[Result]]) -> list[Claim]:
    plain, sub, longer = ([100 * one.top1 for one in results[arm.name]] for arm in (PLAIN, SUB, LONGER))
    gain = mean(sub) - mean(longer)
    above = sum(one > other for one, other in zip(sub, plain, strict=True))
    smallest = min(one - other for one, other in zip(sub, plain, strict=True))
    return [
        Claim(
            "with few labels the sub-branch beats as much compute spent on more epochs",
            "at least 5 points, on average",
            f"{gain:+.1f} points",
            gain >= 5,
        ),
        Claim(
            "it beats plain training",
            "every seed",
            f"{above} of {len(plain)} seeds; smallest gain {smallest:+.1f} points",
            above == len(plain),
        ),
    ]


def _draw(results: Mapping[str, Sequence[Result]], plots: Path) -> Path:
    rows = [
        Points(name, np.array([100 * one.top1 for one in each]), ours=name == SUB.name)
        for name, each in results.items()
    ]
    title = "Accuracy on 360 digits, trained on 100"
    return draw_points(plots / "arms", rows, title=title, x_label="top-1, %").png
