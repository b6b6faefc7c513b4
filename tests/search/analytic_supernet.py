"""A supernet whose cross-entropy is 0.5 |w|^2, and a trained-looking one with images to score on."""

from __future__ import annotations

import torch
from torch import nn

from tests.models.spaces.small_spaces import randomise, small_shape
from vtk_cli.models.spaces.catalog import SPACES
from vtk_cli.models.spaces.supernet import Supernet
from vtk_cli.search.scores.scorer import Images, Scorer
from vtk_cli.search.scores.settings import ScoreSettings

CHAIN = SPACES["chain-a"]


class Bowl(Supernet):
    """A loss of 0.5 |w - c|^2 over the weights of the path: 0 and log(exp(q) - 1) are logits of a loss of q."""

    def __init__(self, size=10_000, *, centre=0.0):
        super().__init__(CHAIN, CHAIN.shape("supernet", 2))
        self.shared = nn.Parameter(torch.zeros(size))
        self.blocks = nn.ParameterDict({f"{g}_{c}": torch.zeros(5) for g in range(3) for c in range(4)})
        self.centre, self.forwards = centre, 0

    def forward(self, images, genes):
        self.forwards += 1
        weights = torch.cat([self.shared, *(self.blocks[f"{g}_{c}"] for g, c in enumerate(genes))])
        loss = 0.5 * (weights - self.centre).double().square().sum()
        logits = torch.stack([torch.zeros_like(loss), torch.log(torch.expm1(loss))])
        return logits.expand(len(images), 2)

    def choice_of(self, name):
        return tuple(map(int, name.removeprefix("blocks.").split("_"))) if name.startswith("blocks.") else None

    def stand_alone_state(self, genes):
        raise NotImplementedError


def bowl_scorer(bowl, **settings):
    images = Images(torch.zeros(4, 1, 2, 2), torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64))
    return Scorer(bowl, None, images, ScoreSettings(**settings))


def scored_images(space, calibration=24, count=21, classes=7, resolution=16):
    generator = torch.Generator().manual_seed(1)
    shape = (space.input_channels, resolution, resolution)
    return Images(
        torch.randn(calibration, *shape, generator=generator),
        torch.randn(count, *shape, generator=generator),
        torch.randint(classes, (count,), generator=generator),
    )


def small_scorer(name="chain-a", initial=True, **settings):
    """A scorer of a small supernet with random weights; its batches are small."""
    space = SPACES[name]
    shape = small_shape(space)
    supernet = randomise(space.supernet(shape))
    state = randomise(space.supernet(shape), seed=5).state_dict() if initial else None
    images = scored_images(space, resolution=shape.resolution)
    return Scorer(supernet, state, images, ScoreSettings(**{"batch_size": 8, "calibration_batch": 8, **settings}))
