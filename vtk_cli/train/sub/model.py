"""What the ways of dropping have in common: a draw made outside the network, and a forward that obeys it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vtk_cli.train.sub.ratio import SubRatio, kept_count
from vtk_kernels import random_keep


class SubDraw(NamedTuple):
    """What one forward of the sub-model drops; made before it, so that a recomputed forward drops the same.

    Args:
        ratio: the share that is dropped.
        keep: (B, K) int64, the tokens or blocks that stay, in row-major order of the image; None where a rate is all
            there is to say.
    """

    ratio: float
    keep: Tensor | None

    @property
    def kept(self) -> Tensor:
        """`keep`, where something was drawn."""
        if self.keep is None:
            raise ValueError("the draw of another way of dropping")
        return self.keep


class SubModel(nn.Module):
    """A way of dropping, fitted to one network. It never changes what a forward without a draw computes.

    The network is given with each call and not held, so that its parameters are counted once.

    Args:
        ratio: the share to drop.
        parts: tokens or blocks of an image among which is drawn; 0 if nothing is drawn.
        name: for people, e.g. `token`.
    """

    parts_name: ClassVar[str] = "parts"
    """What is drawn among, for people."""

    def __init__(self, ratio: SubRatio, parts: int, name: str) -> None:
        super().__init__()
        self.ratio, self.parts, self.name = ratio, parts, name

    def draw(self, batch: int, seed: int, step: int, device: torch.device, progress: float = 0.0) -> SubDraw:
        """Draw what the sub-model drops from a batch; the same for the same seed and step.

        Args:
            batch: samples.
            seed: 0 to 2^64 - 1.
            step: the update.
            device: of the images.
            progress: of the training, in [0, 1], for a ratio that changes.
        """
        ratio = self.ratio.at(progress)
        if not self.parts:
            return SubDraw(ratio, None)
        kept = kept_count(self.parts, ratio)
        return SubDraw(ratio, random_keep(batch, self.parts, kept, seed=seed, step=step, device=device))

    def logits(self, network: nn.Module, images: Tensor, draw: SubDraw) -> Tensor:
        """(B, C): the network's logits of images (B, 3, H, W), with what `draw` says dropped."""
        with self.applied(network, draw):
            logits: Tensor = network(self.masked(images, draw))
        return logits

    def features(self, network: Any, images: Tensor, draw: SubDraw) -> Tensor:
        """As the network's `forward_features`, with what `draw` says dropped."""
        with self.applied(network, draw):
            features: Tensor = network.forward_features(self.masked(images, draw))
        return features

    def masked(self, images: Tensor, draw: SubDraw) -> Tensor:  # noqa: ARG002
        """The images as the network gets them."""
        return images

    @contextmanager
    def applied(self, network: nn.Module, draw: SubDraw) -> Iterator[None]:  # noqa: ARG002
        """Inside, the network drops what `draw` says; afterwards it is as before, whatever happened."""
        yield
