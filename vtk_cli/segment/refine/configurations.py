"""The two sizes of the MaskRefineNet: the published one, and a micro one for images of about a hundred pixels."""

from __future__ import annotations

from dataclasses import dataclass

from vtk_cli.errors import UserError, nearest


@dataclass(frozen=True)
class RefineConfig:
    """How masks are refined (arXiv 2303.15062, Section 3.3 and its published settings).

    Args:
        name: of the network.
        side: S, the pixels of the square that an object is cropped to.
        sigma: of the click's Gaussian, in these pixels.
        test_scale: the side of a crop over that of the tight box of the rough mask.
        train_scales: the range that the same is drawn from in training.
        train_sizes: the range of the shorter side of a crop over S in training, before S x S are cut from its centre.
        flip: the probability of a mirrored sample.
        lr, final_lr: of Adam, which decays no weights: after a linear warm-up, and at the end of the cosine.
        batch_size: crops in a step.
        steps, warmup: of the training.
    """

    name: str
    side: int
    sigma: float
    test_scale: float
    train_scales: tuple[float, float]
    train_sizes: tuple[float, float]
    flip: float
    lr: float
    final_lr: float
    batch_size: int
    steps: int
    warmup: int

    @property
    def reach(self) -> int:
        """How many pixels from the click its Gaussian ends, along either axis: 19 for sigma 6."""
        return round(3 * self.sigma) + 1


RESNET101 = RefineConfig(
    "resnet101", 256, 6.0, 2.0, (1.0, 2.0), (0.5, 1.5), 0.5, 1e-4, 1e-6, batch_size=16, steps=200_000, warmup=2000
)
MICRO = RefineConfig(
    "micro", 48, 2.0, 1.5, (1.0, 2.0), (0.8, 1.2), 0.0, 2e-3, 2e-5, batch_size=24, steps=150, warmup=10
)
"""No flips: mirrored digits are none."""
CONFIGURATIONS = {config.name: config for config in (RESNET101, MICRO)}


def refine_config(name: str) -> RefineConfig:
    """The configuration of a name.

    Raises:
        UserError: there is none.
    """
    if name not in CONFIGURATIONS:
        fix = nearest(name, CONFIGURATIONS) or f"there are {', '.join(CONFIGURATIONS)}"
        raise UserError(f"unknown refinement network {name!r}", fix=fix)
    return CONFIGURATIONS[name]
