"""Two small domains of coloured stripes, and a network that is trained on the first."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from vtk_cli.adapt.circumstances import Circumstances
from vtk_cli.adapt.images import MemoryImages
from vtk_cli.adapt.learner import Learner, build_learner
from vtk_cli.adapt.method import Method, SourceTraining
from vtk_cli.adapt.networks import DomainNetwork, build_network
from vtk_cli.adapt.source_stage import begin_target, train_source
from vtk_cli.adapt.stages import Labelled
from vtk_cli.console import Console

CLASSES, SIDE = 3, 16
QUIET = Console(quiet=True)
SHORT = Method(
    lr=0.01,
    predictor_lr=0.05,
    batch_size=16,
    labelled_steps=4,
    unlabelled_steps=8,
    joint_steps=4,
    pl_refreshes=3,
    replay_batch=4,
)


@dataclass(frozen=True, eq=False)
class Domain:
    """Images with their labels, which only the test knows."""

    images: MemoryImages
    labels: Tensor

    def labelled(self, rows: tuple[int, ...]) -> Labelled:
        """The rows with their labels."""
        return Labelled(rows, self.labels[list(rows)])


def domain(count: int, seed: int, *, shade: float = 0.0, noise: float = 20.0) -> Domain:
    """Stripes across, down or both ways; `shade` makes them brighter, noise hides them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    labels = labels[torch.randperm(count, generator=generator)]
    across = (torch.arange(SIDE) // 2 % 2).float()
    patterns = torch.stack((across.expand(SIDE, SIDE), across.expand(SIDE, SIDE).T, across[:, None] * across))
    images = 60 + shade + 120 * patterns[labels][:, None].expand(-1, 3, -1, -1)
    images = images + noise * torch.randn(images.shape, generator=generator)
    return Domain(MemoryImages(images.clamp(0, 255).to(torch.uint8), shift=1), labels)


SOURCE_DOMAIN = domain(48, 1)
TARGET_DOMAIN = domain(40, 2, shade=70.0, noise=45.0)


def here(checkpoint_steps: int | None = None) -> Circumstances:
    """On the CPU, with nothing shown."""
    return Circumstances(torch.device("cpu"), 0, QUIET, checkpoint_steps=checkpoint_steps, scoring_batch=16)


@cache
def _trained(*, domain_norm: bool) -> DomainNetwork:
    torch.manual_seed(0)
    network = build_network("digits-cnn", classes=CLASSES, console=QUIET, size=SIDE, domain_norm=domain_norm)
    training = SourceTraining(epochs=6, batch_size=16, lr=0.05, holdout=0.0)
    train_source(
        network, SOURCE_DOMAIN.images, SOURCE_DOMAIN.labels, training=training, place=None, circumstances=here()
    )
    begin_target(network, TARGET_DOMAIN.images, circumstances=here())
    return network


def trained(*, domain_norm: bool = True) -> DomainNetwork:
    """A copy of a network that knows the source."""
    return copy.deepcopy(_trained(domain_norm=domain_norm))


def learner(method: Method = SHORT, *, domain_norm: bool = True) -> Learner:
    """One of that network."""
    return build_learner(trained(domain_norm=domain_norm), method, seed=0, device=torch.device("cpu"))


def changed(method: Method = SHORT, **settings: object) -> Method:
    """A method with other settings."""
    return replace(method, **settings)  # type: ignore[arg-type]
