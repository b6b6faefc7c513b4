"""Mixup and cutmix (arXiv 1710.09412, 1905.04899) of images, targets and the points that belong to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from timm.data.mixup import Mixup, mixup_target
from torch import Tensor

from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import preserved_sample_rng, sample_rng, sample_seed, start_sample_rng
from vtk_cli.train.mirrored import Mirrored


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
    """timm's `Mixup`, repeatable, for batches of any size and with points, over the batch of all processes.

    Sample i of B is mixed with sample B - 1 - i. Where B is odd, the one in the middle stays as it is.

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
        self._mixes, self._is_one_draw = mixup_alpha > 0 or cutmix_alpha > 0, mode == "batch"

    def __call__(
        self,
        images: Tensor,
        targets: Tensor,
        points: Tensor | None = None,
        present: Tensor | None = None,
        *,
        seed: int,
        world: World | None = None,
    ) -> Mixed:
        """Mix a batch.

        Args:
            images: (B, 3, H, W), floating, of this process; may be changed in place.
            targets: (B,) int64, or (B, C) multi-hot.
            points: (B, P, 2) in fractions of the image.
            present: (B, P) bool, given where points are.
            seed: of the draws, the same in every process; nothing else is drawn from or changed.
            world: the processes that share the batch equally; None for a single one.
        """
        dense = self._dense(targets)
        if not self._mixes:
            own, alone = torch.ones(len(images), 1, 1, 1, device=images.device), Mirrored(len(images))
            return Mixed(images, dense, None if points is None else _mixed_points(points, present, own, alone))
        mirrored = Mirrored(len(images), world)
        pairs, labels = mirrored.pairs(images), mirrored.pairs(targets)
        mixed, mixed_labels = self._mix(pairs, labels, seed, mirrored.first)
        whole = Mixed(mirrored.mine(mixed, images), mirrored.mine(mixed_labels, dense), None)
        if points is None:
            return whole
        said = self._own_share(pairs, labels, seed, mirrored.first)
        own = mirrored.mine(said, torch.ones_like(images[:, :1]))
        return replace(whole, points=_mixed_points(points, present, own, mirrored))

    def _mix(self, pairs: Tensor, targets: Tensor, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Mix pairs (2m, ...), in place where one draw is for all; `first` is the number of the first pair."""
        if self._is_one_draw:
            with sample_rng(seed):
                mixed: tuple[Tensor, Tensor] = self._mixup(pairs, targets)
            return mixed
        dense = self._dense(targets)
        images = torch.empty_like(pairs)
        with preserved_sample_rng():
            for number in range(len(pairs) // 2):
                pair = [number, len(pairs) - 1 - number]
                start_sample_rng(sample_seed(seed, first + number, 0))
                images[pair], dense[pair] = self._mixup(pairs[pair], targets[pair])
        return images, dense

    def _own_share(self, pairs: Tensor, targets: Tensor, seed: int, first: int) -> Tensor:
        """(2m, 1, H, W) in [0, 1]: how much of each pixel is the sample's own.

        Read off by mixing images that say whose they are: ones in the first half, zeros in the second, where every
        partner is of the other half.
        """
        half = len(pairs) // 2
        ones = torch.ones(len(pairs), 1, *pairs.shape[2:], device=pairs.device)
        ones[half:] = 0
        said, _ = self._mix(ones, targets, seed, first)
        return torch.cat((said[:half], 1 - said[half:]))

    def _dense(self, targets: Tensor) -> Tensor:
        dense: Tensor = mixup_target(targets, self._classes, 1.0, self._smoothing, self._multi_label)
        return dense


def _mixed_points(points: Tensor, present: Tensor | None, own: Tensor, mirrored: Mirrored) -> MixedPoints:
    """The points that can be seen in the mixture; `own` (B, 1, H, W) is each pixel's share of the sample itself.

    An image that is its own alone hides the points of its partner, whoever that is.
    """
    if present is None:
        raise ValueError("points without the knowledge of which are present")
    both = torch.stack((points, _of_partners(points, mirrored)), dim=1)
    height, width = own.shape[2:]
    column = (both[..., 0] * width).long().clamp(0, width - 1)
    row = (both[..., 1] * height).long().clamp(0, height - 1)
    sample = torch.arange(len(points), device=points.device)[:, None]
    here = own[:, 0]
    visible = torch.stack((here[sample, row[:, 0], column[:, 0]] > 0, here[sample, row[:, 1], column[:, 1]] < 1), dim=1)
    share = own.mean(dim=(1, 2, 3))
    known = torch.stack((present, _of_partners(present.to(torch.uint8), mirrored).bool()), dim=1)
    return MixedPoints(both, (known & visible).to(torch.float32), torch.stack((share, 1 - share), dim=1))


def _of_partners(rows: Tensor, mirrored: Mirrored) -> Tensor:
    return mirrored.mine(mirrored.pairs(rows).flip(0), rows)
