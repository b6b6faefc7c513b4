"""What `vtk proof search` trains and scores: the networks of one space, on digits that no two parts share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.engine.loop import Plan, fit
from vtk_cli.engine.optimisation import LearningRates, build_schedule
from vtk_cli.engine.pieces.results import Result
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.engine.update import Clock
from vtk_cli.files import content_key
from vtk_cli.models.spaces.catalog import space_named
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import SUPERNET, Space
from vtk_cli.search.halves import Halves
from vtk_cli.search.images import (
    SearchImages,
    calibration_tensors,
    open_search_images,
    scoring_tensors,
    training_batches,
)
from vtk_cli.search.options import SupernetOptions
from vtk_cli.search.recipes import RECIPES
from vtk_cli.search.samplers import UniformSampler
from vtk_cli.search.scores.combination import combination
from vtk_cli.search.scores.scorer import Images, Scorer
from vtk_cli.search.scores.settings import ScoreSettings
from vtk_cli.search.scores.values import metrics_of
from vtk_cli.search.supernet_training import PathObjective, sgd

_VERSION = 1
"""Raised when what is measured changes, so that kept results are not taken for it."""
SPACES = ("chain-a", "chain-b")
TRUTH_SEEDS = (100, 101, 102)
TRAINED, SCORED = 300, 500
_ALONE_EPOCHS = 20

PAPER, MID, BIG = (0.001, 0.003, 0.006), (0.01, 0.03, 0.06), (0.03, 0.09, 0.18)
SETTINGS: Mapping[str, ScoreSettings] = {
    "flatness, sigmas of the paper": ScoreSettings(sigmas=PAPER),
    "flatness, sigmas x 10": ScoreSettings(sigmas=MID),
    "flatness, sigmas x 10, noise of its own": ScoreSettings(sigmas=MID, common_noise=False),
    "flatness, sigmas x 30": ScoreSettings(sigmas=BIG),
}
MID_NAME, PAPER_NAME, ANGLE, LOSS = "flatness, sigmas x 10", "flatness, sigmas of the paper", "angle", "loss"


@dataclass(frozen=True)
class Scale:
    """How much is computed.

    Args:
        supernet_epochs: of a supernet's training.
        alone_epochs: of a network's own.
        truth_seeds: that every network is trained from.
        networks: of each space; None: all.
        resamples: of the bootstrap.
    """

    supernet_epochs: int = 200
    alone_epochs: int = _ALONE_EPOCHS
    truth_seeds: tuple[int, ...] = TRUTH_SEEDS
    networks: int | None = None
    resamples: int = 1000


class Lab:
    """Trains and scores the networks of one space.

    Args:
        space: whose.
        images: in halves, to train and to score on.
        test: images and labels that nothing else sees, on the device.
        scale: how much.
        world: this process.
    """

    def __init__(self, space: Space, images: SearchImages, test: tuple[Tensor, Tensor], scale: Scale, world: World):
        self.space, self.images, self.test, self.scale, self.world = space, images, test, scale, world
        self.options = SupernetOptions(space=space.name, **RECIPES[space.name])
        self.shape = space.shape(SUPERNET, images.classes)
        self.shape_alone = space.shape(space.alone, images.classes)
        self._quiet = Console(quiet=True)

    @classmethod
    def of(cls, name: str, scale: Scale, device: torch.device) -> Lab:
        """On digits of 16 pixels: 300 to train on, 500 to score on, 997 for the truth."""
        quiet, space = Console(quiet=True), space_named(name)
        options = SupernetOptions(space=name, **RECIPES[name])
        opened = open_search_images(options, size=16, channels=1, console=quiet)
        order = np.random.default_rng(0).permutation(len(opened.splits.train)).tolist()
        train, valid = order[:TRAINED], order[TRAINED : TRAINED + SCORED]
        images = replace(opened, halves=Halves(tuple(sorted(train)), tuple(sorted(valid))))
        rest = replace(opened, halves=Halves((), tuple(sorted(order[TRAINED + SCORED :]))))
        if (val := opened.splits.val) is None:
            raise ValueError("digits have validation images")
        others = replace(opened, splits=replace(opened.splits, train=val), halves=Halves((), tuple(range(len(val)))))
        parts = [scoring_tensors(one, device=device, limit=None, console=quiet) for one in (rest, others)]
        test = torch.cat([seen[:] for seen, _ in parts]), torch.cat([labels for _, labels in parts])
        return cls(space, images, test, scale, World(0, 1, 0, device))

    def key(self, kind: str, what: list[Any]) -> str:
        """For the store."""
        return content_key([kind, self.space.name, what, self.world.device.type, _VERSION])

    def alone(self, genes: Genes, seed: int) -> float:
        """The accuracy in percent of a network that is trained by itself."""
        seed_everything(seed)
        network = self.space.network(genes, self.shape_alone).to(self.world.device)
        self._fit(network, _cross_entropy, seed, self.scale.alone_epochs)
        images, labels = self.test
        with torch.inference_mode():
            right = (network.eval()(images).argmax(dim=1) == labels).float().mean()
        return 100 * float(right)

    def scores(self, seed: int, genes: Sequence[Genes]) -> Result:
        """Every score of every network, with the weights of one supernet: name -> values; larger is better."""
        seed_everything(seed)
        supernet = self.space.supernet(self.shape).to(self.world.device)
        initial = {name: value.clone() for name, value in supernet.state_dict().items()}
        objective = PathObjective(UniformSampler(self.space), seed=seed)
        self._fit(supernet, objective, seed, self.scale.supernet_epochs)
        device = self.world.device
        calibration, _ = calibration_tensors(self.images, device=device, limit=TRAINED, console=self._quiet)
        seen, labels = scoring_tensors(self.images, device=device, limit=None, console=self._quiet)
        images = Images(calibration[:], seen, labels)
        found: dict[str, list[float]] = {}
        for name, settings in SETTINGS.items():
            scorer = Scorer(supernet, initial, images, replace(settings, seed=seed))
            needs = {"clean", "noise", "angle"} if name == PAPER_NAME else {"noise"}
            measured = [scorer.measure(one, needs) for one in genes]  # type: ignore[arg-type]  # of literals
            found |= _scores(name, measured, settings)
        return found

    def _fit(self, network: nn.Module, loss: Any, seed: int, epochs: int) -> None:
        options, images = self.options, replace(self.images, seed=seed)
        batches = training_batches(images, options, world=self.world, console=self._quiet)
        optimizer = sgd(network, lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay)
        fit(
            network,
            loss,
            batches,
            optimizer,
            plan=Plan(epochs=epochs, clip_norm=options.clip_norm),
            device=self.world.device,
            seed=seed,
            scheduler=build_schedule(
                optimizer,
                "cosine",
                rates=LearningRates(options.lr),
                epochs=epochs,
                updates_per_epoch=batches.steps_per_epoch,
                on_updates=True,
            ),
            evaluate=None,
            checkpoints=None,
            metrics=None,
            console=self._quiet,
        )


def _cross_entropy(model: nn.Module, batch: tuple[Tensor, ...], _clock: Clock) -> Tensor:
    _, images, targets = batch
    return F.cross_entropy(model(images), targets)


def _scores(name: str, measured: Sequence[Mapping[str, Any]], settings: ScoreSettings) -> dict[str, list[float]]:
    metrics = [metrics_of(one, settings) for one in measured]
    found = {name: [one["flatness"] for one in metrics]}
    if name in {PAPER_NAME, MID_NAME}:
        alone = replace(settings, subtract_l0=True)
        found[name.replace("flatness", "slopes alone")] = [metrics_of(one, alone)["flatness"] for one in measured]
    if name == PAPER_NAME:
        found |= {
            LOSS: [-one["loss"] if math.isfinite(one["loss"]) else -1e9 for one in metrics],
            "accuracy": [one["accuracy"] for one in metrics],
            ANGLE: [one["angle"] for one in metrics],
            "angle + 16 flatness": combination("angle+flatness", settings).scores(metrics),
        }
    return found
