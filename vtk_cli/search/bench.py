"""`vtk bench search`: what a score and a supernet's step cost beside the bare passes that they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.loss_meter import LossMeter
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.timing import in_turns, seconds_of
from vtk_cli.engine.update import Updater
from vtk_cli.models.spaces.catalog import SPACES
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import SUPERNET, Space
from vtk_cli.models.spaces.supernet import Supernet
from vtk_cli.reports.evidence import BenchRow
from vtk_cli.search.recalibration import recalibrate
from vtk_cli.search.samplers import Path
from vtk_cli.search.scores.scorer import Images, Scorer
from vtk_cli.search.scores.settings import ScoreSettings
from vtk_cli.search.supernet_training import PathObjective, sgd

SCORE_TARGET, STEP_TARGET = 1 / 1.15, 0.9
"""A score may cost 15 % over its bare passes, a step of a supernet 11 % over that of its path alone."""
_BATCH = 32
_SCORED = {"chain-a": 512, "nasbench201": 32}
"""Images to score on; as many calibrate batch normalisation as make a batch of it."""


def measure(*, smallest: bool, device: torch.device, console: Console) -> list[BenchRow]:  # noqa: ARG001 - has nothing to say
    """Time both, in turns; the medians."""
    rounds = 1 if smallest else 5
    names = ("chain-a",) if smallest else ("chain-a", "nasbench201")
    rows = [_score_row(SPACES[name], rounds, device) for name in names]
    return [*rows, *(_step_row(SPACES[name], 3 * rounds, device) for name in names)]


def _score_row(space: Space, rounds: int, device: torch.device) -> BenchRow:
    supernet, images, labels = _supernet(space, device), *_images(space, _SCORED[space.name], device)
    genes = space.sample(np.random.default_rng(0))
    settings = ScoreSettings(calibration_images=_BATCH, batch_size=_BATCH)
    scorer = Scorer(supernet, None, Images(images[:_BATCH], images, labels), settings)
    passes = 1 + settings.draws * len(settings.sigmas)

    @torch.no_grad()
    def bare() -> None:
        recalibrate(supernet, genes, [images[:_BATCH]])
        for _ in range(passes):
            losses = [
                F.cross_entropy(supernet(part, genes), label)
                for part, label in zip(images.split(_BATCH), labels.split(_BATCH), strict=True)
            ]
            float(torch.stack(losses).mean())

    ours, theirs = in_turns(
        lambda: seconds_of(lambda: scorer.measure(genes, {"noise"}), device),
        lambda: seconds_of(bare, device),
        rounds,
    )
    return BenchRow(
        name=f"flatness of a network of {space.name}, {passes} passes over {len(images)} images",
        ours=ours,
        theirs=theirs,
        peer="the same passes without noise",
        target=SCORE_TARGET,
        device=describe_device(device),
        versions={"torch": version("torch")},
        note=f"{60 / ours:.0f} candidates a minute, {ours / theirs:.2f}x the bare passes",
    )


def _step_row(space: Space, rounds: int, device: torch.device) -> BenchRow:
    """An update of a supernet along one path, against a hand-written one of the network of that path alone."""
    supernet, images, labels = _supernet(space, device), *_images(space, _BATCH, device)
    genes = space.sample(np.random.default_rng(0))
    updater = Updater(
        supernet.train(),
        PathObjective(OnePath(genes), seed=0),
        sgd(supernet, lr=0.025),
        None,
        clip_norm=5.0,
        ema_decay=None,
        precision="fp32",
        seed=0,
        world=World(0, 1, 0, device),
    )
    meter, batch = LossMeter(World(0, 1, 0, device)), (torch.arange(_BATCH), images, labels)
    alone = space.network(genes, supernet.stand_alone_shape).to(device).train()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.025, momentum=0.9)

    def step() -> None:
        updater([batch], 0, 0, meter)
        meter.read()

    def by_hand() -> None:
        loss = F.cross_entropy(alone(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(alone.parameters(), 5.0)
        optimizer.step()
        float(loss.detach())

    ours, theirs = in_turns(lambda: seconds_of(step, device), lambda: seconds_of(by_hand, device), rounds)
    return BenchRow(
        name=f"a step of the supernet of {space.name}, {_BATCH} images",
        ours=ours,
        theirs=theirs,
        peer="a step of that path's network alone, by hand",
        target=STEP_TARGET,
        device=describe_device(device),
        versions={"torch": version("torch")},
        note=f"{sum(one.numel() for one in supernet.parameters()):,} shared weights",
    )


@dataclass(frozen=True)
class OnePath:
    """The same path in every step."""

    genes: Genes

    def paths(self, seed: int) -> list[Path]:  # noqa: ARG002 - nothing is drawn
        """See `PathSampler`."""
        return [Path(self.genes)]


def _supernet(space: Space, device: torch.device) -> Supernet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return space.supernet(space.shape(SUPERNET, 10)).to(device)


def _images(space: Space, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator, side = torch.Generator().manual_seed(0), space.forms[SUPERNET].resolution
    images = torch.randn(count, space.input_channels, side, side, generator=generator)
    return images.to(device), torch.randint(10, (count,), generator=generator).to(device)
