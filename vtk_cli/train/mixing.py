"""Mixup and cutmix (arXiv 1710.09412, 1905.04899) of images, targets and the points that belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from timm.data.mixup import Mixup, mixup_target
from torch import Tensor

from vtk_cli.engine.seeds import sample_rng


@dataclass(frozen=True)
class MixedPoints:
    """The points of each sample and of the one that it was mixed with.

    Args:
        points: (B, 2, P, 2), its own and its partner's, in fractions of the image.
        present: (B, 2, P) of zeros and ones; a point that the other image covers is absent.
        share: (B, 2), the coefficients of the two in the mixture; their sum is 1.
    """

    points: Tensor
    present: Tensor
    share: Tensor


@dataclass(frozen=True)
class Mixed:
    """A mixed batch.

    Args:
        images: (B, 3, H, W).
        targets: (B, C) float32, dense.
        points: None where none were given.
    """

    images: Tensor
    targets: Tensor
    points: MixedPoints | None


class Mixer:
    """timm's `Mixup`, repeatable, for batches of any size and with points.

    Sample i of B is mixed with sample B - 1 - i. Where B is odd, the last sample stays as it is.

    Args:
        classes: C.
        mixup_alpha, cutmix_alpha: of the Beta distributions; 0 leaves that way of mixing out.
        prob: of a batch (pair, element) to be mixed.
        switch_prob: of cutmix where both are on.
        mode: what shares a coefficient: the batch, a pair, or each element has its own.
        smoothing: of the labels; of several labels a sample, towards 0.5.
        multi_label: targets are (B, C) multi-hot, not (B,) classes.
    """

    def __init__(
        self,
        classes: int,
        *,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: Literal["batch", "pair", "elem"] = "batch",
        smoothing: float = 0.0,
        multi_label: bool = False,
    ) -> None:
        self._classes, self._smoothing, self._multi_label = classes, smoothing, multi_label
        self._mixup = Mixup(
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            prob=prob,
            switch_prob=switch_prob,
            mode=mode,
            label_smoothing=smoothing,
            num_classes=classes,
            multi_label=multi_label,
        )
        self._mixes = mixup_alpha > 0 or cutmix_alpha > 0

    def __call__(
        self,
        images: Tensor,
        targets: Tensor,
        points: Tensor | None = None,
        present: Tensor | None = None,
        *,
        seed: int,
    ) -> Mixed:
        """Mix a batch.

        Args:
            images: (B, 3, H, W), floating; may be changed in place.
            targets: (B,) int64, or (B, C) multi-hot.
            points: (B, P, 2) in fractions of the image.
            present: (B, P) bool, given where points are.
            seed: of the draws; nothing else is drawn from or changed.
        """
        even = len(images) - len(images) % 2 if self._mixes else 0
        dense = self._dense(targets)
        if even:
            mixed, dense[:even] = self._mix(images[:even], targets[:even], seed)
            images = mixed if even == len(images) else torch.cat((mixed, images[even:]))
        if points is None or present is None:
            return Mixed(images, dense, None)
        own = torch.ones(len(images), 1, *(images.shape[2:] if even else (1, 1)), device=images.device)
        if even:
            own[:even] = self._own_share(own[:even], targets[:even], seed)
        return Mixed(images, dense, _mixed_points(points, present, own, even))

    def _mix(self, images: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        with sample_rng(seed):
            mixed: tuple[Tensor, Tensor] = self._mixup(images, targets)
        return mixed

    def _own_share(self, ones: Tensor, targets: Tensor, seed: int) -> Tensor:
        """(B, 1, H, W) in [0, 1]: how much of each pixel is the sample's own.

        Read off by mixing images that say whose they are: ones in the first half, zeros in the second, where every
        partner is of the other half.
        """
        half = len(ones) // 2
        ones[half:] = 0
        said, _ = self._mix(ones, targets, seed)
        return torch.cat((said[:half], 1 - said[half:]))

    def _dense(self, targets: Tensor) -> Tensor:
        dense: Tensor = mixup_target(targets, self._classes, 1.0, self._smoothing, self._multi_label)
        return dense


def _mixed_points(points: Tensor, present: Tensor, own: Tensor, even: int) -> MixedPoints:
    """The points that can be seen in the mixture; `own` (B, 1, H, W) is each pixel's share of the sample itself."""
    partner = torch.arange(len(points), device=points.device)
    partner[:even] = partner[:even].flip(0)
    both = torch.stack((points, points[partner]), dim=1)
    height, width = own.shape[2:]
    column = (both[..., 0] * width).long().clamp(0, width - 1)
    row = (both[..., 1] * height).long().clamp(0, height - 1)
    sample = torch.arange(len(points), device=points.device)[:, None]
    here = own[:, 0]
    visible = torch.stack((here[sample, row[:, 0], column[:, 0]] > 0, here[sample, row[:, 1], column[:, 1]] < 1), dim=1)
    share = own.mean(dim=(1, 2, 3))
    known = torch.stack((present, present[partner]), dim=1)
    return MixedPoints(both, (known & visible).to(torch.float32), torch.stack((share, 1 - share), dim=1))
