"""The network whose features generators of the embedded digits are matched by: a small classifier, trained here.

It sees the train split alone. What measures the generators afterwards has to be another network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.prune.digits_training import DigitsTraining, Trained, trained_on_digits

DIGITS = "digits-features"
WIDTHS, STRIDES = (16, 32, 64), (1, 2, 2)
CLASSES = 10
SEED = 10_001
"""Of the weights and the order; apart from the seeds that people give their runs."""
EPOCHS = 12


class DigitsFeatures(nn.Module):
    """(B, C, S, S) in [-1, 1] -> the outputs of the three ReLUs; `classify` makes logits of the last."""

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        inputs = (channels, *WIDTHS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs[number], width, 3, stride, padding=1, bias=False)
            for number, (width, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in WIDTHS)
        for stride in STRIDES:
            side = -(-side // stride)
        self.head = nn.Linear(WIDTHS[-1] * side * side, CLASSES)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, C, S, S) -> (B, 16, S, S), (B, 32, S/2, S/2), (B, 64, S/4, S/4)."""
        outputs: list[Tensor] = []
        x = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
            outputs.append(x)
        return outputs

    def classify(self, outputs: list[Tensor]) -> Tensor:
        """What `forward` returned -> logits (B, 10)."""
        logits: Tensor = self.head(outputs[-1].flatten(1))
        return logits


def trained_digits_features(
    side: int, channels: int, device: torch.device, console: Console
) -> Trained[DigitsFeatures]:
    """The network for digits of `side` x `side` pixels: from the cache, or trained now (seconds).

    Raises:
        JobError: the disk is full.
        Preempted: a signal stopped the training; it goes on where it was.
    """
    return trained_on_digits(
        lambda: DigitsFeatures(side, channels),
        lambda network, images: network.classify(network(images)),
        DigitsTraining(DIGITS, f"widths {WIDTHS}, strides {STRIDES}", side, channels, SEED, EPOCHS),
        device,
        console,
    )
