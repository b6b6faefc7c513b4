"""How architectures are measured and scored. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, Self

from vtk_cli.errors import UserError
from vtk_cli.files import content_key

Measurement = Literal["clean", "noise", "angle"]
"""A pass over the images with the trained weights, passes with noise on them, the angle they have turned by."""

_RECALIBRATION = ("bn", "calibration_images", "calibration_batch", "fixed_calibration")
_PASS = ("batch_size", "loss_mean", "accuracy_calibration_images", *_RECALIBRATION)
_NOISE = ("sigmas", "draws", "noise", "common_noise", "scale", "seed")
_FIELDS: dict[Measurement, tuple[str, ...]] = {"clean": _PASS, "noise": _PASS + _NOISE, "angle": ("official_angle",)}


@dataclass(frozen=True)
class ScoreSettings:
    """How architectures are measured and scored.

    Args:
        sigmas: deviations of the noise on the weights, above 0 and ascending.
        draws: of the noise; the flatness is the mean of theirs.
        noise: `cumulative`, w_t = w_{t-1} + (s_t - s_{t-1}) e_t as released, or `direct`, w_t = w* + s_t e_t.
        common_noise: whether all architectures see the same noise on the weights that they share.
        scale: `absolute` noise, or that of each `filter` times the filter's norm (the noise of an entry of a vector
            times its absolute value).
        bn: `cumulative`, the mean of the statistics of the calibration batches; `ema14`, a running average with
            momentum 0.1 from (0, 1), as released: of 14 batches 23 % of the start are left.
        calibration_images: of the training half.
        calibration_batch: images in a calibration batch, nearly: batches are equally large.
        fixed_calibration: whether all architectures see the same calibration images; otherwise each draws its own.
        accuracy_calibration_images: recalibrate with so many for the accuracy, and again for the rest; None: once.
        subtract_l0: flatness of the slopes alone: the first is |L_1 - L_0| / s_1 in place of |L_1| / s_1.
        batch_size: images of a forward pass.
        loss_mean: the mean loss over `images`, or over `batches` whose means count equally, as released.
        official_angle: take the beta of DARTS' dilated convolutions from their gamma, as released.
        seed: of the noise and of drawn calibration images.

    Raises:
        UserError: a value is out of range.
    """

    sigmas: tuple[float, ...] = (0.001, 0.003, 0.006)
    draws: int = 3
    noise: Literal["cumulative", "direct"] = "cumulative"
    common_noise: bool = True
    scale: Literal["absolute", "filter"] = "absolute"
    bn: Literal["cumulative", "ema14"] = "cumulative"
    calibration_images: int = 850
    calibration_batch: int = 64
    fixed_calibration: bool = True
    accuracy_calibration_images: int | None = None
    subtract_l0: bool = False
    batch_size: int = 512
    loss_mean: Literal["images", "batches"] = "images"
    official_angle: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        sigmas = self.sigmas
        if not sigmas or not sigmas[0] > 0 or any(not low < high for low, high in pairwise(sigmas)):
            listed = ", ".join(f"{sigma:g}" for sigma in sigmas) or "none"
            what = f"sigmas must be positive and strictly increasing, got {listed}"
            raise UserError(what, "--sigma", "give e.g. 0.001 0.003 0.006")
        for name, least in (("draws", 1), ("batch_size", 1), ("calibration_images", 2), ("calibration_batch", 2)):
            if getattr(self, name) < least:
                raise UserError(f"{name.replace('_', ' ')} must be at least {least}, not {getattr(self, name)}")
        own = self.accuracy_calibration_images
        if own is not None and own < 2:
            raise UserError(f"accuracy calibration images must be at least 2, not {own}")

    @classmethod
    def official(cls, *, seed: int = 0, accuracy: bool = False) -> Self:
        """As the released code of arXiv 2305.08611 measures, mistakes included; only the seed is under control.

        Args:
            seed: of the noise, which the released code draws without one.
            accuracy: whether accuracy is part of the score; it then calibrates with 15,000 images.
        """
        return cls(
            draws=1,
            common_noise=False,
            bn="ema14",
            calibration_images=14 * 64,
            fixed_calibration=False,
            accuracy_calibration_images=235 * 64 if accuracy else None,
            batch_size=64,
            loss_mean="batches",
            official_angle=True,
            seed=seed,
        )

    def shaping(self, measurement: Measurement) -> dict[str, Any]:
        """The fields that shape a measurement; others change only what is computed from it."""
        known, fields = asdict(self), {*_FIELDS[measurement]}
        if "fixed_calibration" in fields and not self.fixed_calibration:
            fields.add("seed")
        return {name: value for name, value in known.items() if name in fields}

    def key(self, measurement: Measurement) -> str:
        """A short key for a measurement with these settings, to store it under with architecture, weights and data."""
        return content_key({"measurement": measurement, "settings": self.shaping(measurement)})
