"""The embedder of the digits: a small classifier, trained here on the train split of the embedded digits.

It must differ from the network whose features a generator is searched with, in seed and in architecture: a distance
by the same network would be the search's own objective.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.prune.digits_training import DigitsTraining, Trained, trained_on_digits
from vtk_cli.prune.metrics.catalog import DIGITS

CLASSES = 10
FEATURES = 64
WIDTHS, STRIDES = (24, 48, 64), (1, 2, 2)
SEED = 20_001
"""Apart from the seeds that people give their runs, and from the other network's."""


class DigitsClassifier(nn.Module):
    """(B, 1, S, S) in [-1, 1] -> 64 features (B, 64), at least 0; `classify` makes logits of them."""

    def __init__(self, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for outputs, stride in zip(WIDTHS, STRIDES, strict=True):
            layers += [
                nn.Conv2d(width, outputs, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            side, width = -(-side // stride), outputs
        self.convolutions = nn.Sequential(*layers)
        self.embedding = nn.Linear(width * side * side, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, 64)."""
        return F.relu(self.embedding(self.convolutions(images).flatten(1)))

    def classify(self, features: Tensor) -> Tensor:
        """(B, 64) -> logits (B, 10)."""
        logits: Tensor = self.head(features)
        return logits


def trained_classifier(side: int, device: torch.device, console: Console) -> Trained[DigitsClassifier]:
    """The classifier for digits of `side` x `side` pixels: from the cache, or trained now (seconds).

    Raises:
        JobError: the disk is full.
        Preempted: a signal stopped the training; it goes on where it was.
    """
    return trained_on_digits(
        lambda: DigitsClassifier(side),
        lambda network, images: network.classify(network(images)),
        DigitsTraining(DIGITS, f"widths {WIDTHS}, strides {STRIDES}, {FEATURES} features", side, 1, SEED),
        device,
        console,
    )
