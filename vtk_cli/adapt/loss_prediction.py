"""The module that predicts the loss of an image from the network's maps (Learning Loss, arXiv 1905.03677, Section 3.2).

Every input is averaged over its cells, passes a linear layer and ReLU; together they give one number an image. Only
its order among the images of the same state of the network means anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vtk_cli.adapt.networks import Answer, DomainNetwork

Inputs = Literal["stages", "stages+embed"]
"""The maps of the stages, as published; or with them the embedding and the class probabilities, which is ours."""


class LossPredictor(nn.Module):
    """The loss prediction module.

    Args:
        channels: of the maps of the stages.
        width: of what each input becomes.
        further: lengths of further inputs; `stages+embed` has those of the embedding and of the probabilities.
    """

    def __init__(self, channels: Sequence[int], width: int, further: Sequence[int] = ()) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(length, width) for length in (*channels, *further))
        self.linear = nn.Linear(width * len(self.branches), 1)
        self._has_further = bool(further)

    def forward(self, answer: Answer) -> Tensor:
        """The predicted losses (B,), in fp32. No gradient reaches the network: the inputs are detached."""
        seen = [stage.detach().float().mean(dim=(2, 3)) for stage in answer.stages]
        if self._has_further:
            seen += [answer.embedding.detach().float(), answer.logits.detach().float().softmax(dim=1)]
        parts = [torch.relu(branch(each)) for branch, each in zip(self.branches, seen, strict=True)]
        predicted: Tensor = self.linear(torch.cat(parts, dim=1)).float().squeeze(1)
        return predicted


def predictor_for(network: DomainNetwork, inputs: Inputs = "stages+embed", width: int | None = None) -> LossPredictor:
    """A loss predictor for a network, with random weights from torch's global generator.

    Args:
        network: whose losses it is to predict.
        inputs: see `Inputs`.
        width: `usual_width` if None.
    """
    further = (network.width, network.classes) if inputs == "stages+embed" else ()
    return LossPredictor(network.stage_channels, width or usual_width(network.stage_channels), further)


def usual_width(channels: Sequence[int]) -> int:
    """512 for ResNet-50 and wider, 128 for ResNet-18 and -34 and their like, 32 for networks of digits."""
    widest = max(channels)
    return 512 if widest >= 1024 else 128 if widest >= 128 else 32
