"""Forward passes over the images: what every network answers, clean and under random noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.engine.devices import Precision, autocast
from vtk_cli.engine.pieces.turns import WHOLE, Share, in_turns
from vtk_cli.errors import UserError
from vtk_cli.files import content_key
from vtk_cli.similarity.attack import Attack, noisy
from vtk_cli.similarity.images import ImageSet, View
from vtk_cli.similarity.members import Member, Pool
from vtk_cli.similarity.networks import as_function
from vtk_cli.similarity.store import Store

CODE_VERSION = 1
"""Raised when stored numbers would change; part of every key."""


@dataclass(frozen=True)
class Settings:
    """How networks are attacked and scored.

    Args:
        attack: the attack.
        batch_size: images at a time; changes speed and memory, not results.
        attack_precision, precision: `fp32` or `bf16`, of the attack and of the scoring.
        protocol: `canonical` (one crop for all networks) or `paper` (each network its own).
        keep_images: `auto`, `yes` or `no`: whether adversarial images stay in the store.
    """

    attack: Attack
    batch_size: int
    attack_precision: Precision = "fp32"
    precision: Precision = "fp32"
    protocol: str = "canonical"
    keep_images: str = "auto"


@dataclass(frozen=True)
class Comparison:
    """N networks on n images, with the labels settled and the clean answers known.

    Args:
        members: the networks.
        images: the images.
        labels: (n,) int64; -1 where networks that were to agree do not.
        logits: (N, n, C) float32 on the clean images.
        noisy_wrong: (N, n) bool; wrong on the image plus eps times random signs.
    """

    members: Sequence[Member]
    images: ImageSet
    labels: Tensor
    logits: NDArray[np.float32]
    noisy_wrong: NDArray[np.bool_]

    @property
    def names(self) -> tuple[str, ...]:
        """The N labels."""
        return tuple(member.label for member in self.members)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N, n): network i is right on the clean image."""
        right: NDArray[np.bool_] = self.logits.argmax(axis=2) == self.labels.numpy()
        return right


@dataclass(frozen=True)
class _Answers:
    """What a network says: (n, C) logits of clean images, (n,) classes of noisy ones, and whether it varies."""

    logits: NDArray[np.float32]
    under_noise: NDArray[np.int64]
    is_random: bool


@dataclass(frozen=True)
class Passes:
    """Runs networks over images; what the store has is not run again.

    Args:
        pool: hands out networks.
        store: where answers are kept.
        settings: how networks are attacked and scored.
        device: of the computation.
        console: told of progress and of surprises.
        check: called between batches; raises when the process is asked to stop.
        share: with which pieces of the work to begin, and whether to make any.
    """

    pool: Pool
    store: Store
    settings: Settings
    device: torch.device
    console: Console
    check: Callable[[], None]
    share: Share = WHOLE

    def compare(self, members: Sequence[Member], images: ImageSet) -> Comparison:
        """The clean and the noisy pass of every network, and the labels.

        Raises:
            UserError: logits are not finite, class counts differ, or networks that are to agree on labels never do; the
                share makes nothing, and answers are missing.
        """
        with self.console.progress("clean and noisy images", len(members)) as progress:
            answers = in_turns(
                members,
                found=lambda member: self._known_answers(member, images),
                make=lambda member: self._answers(member, images),
                share=self.share,
                check=self.check,
                heard=lambda _member, _answers: progress.advance(),
                name=lambda member: member.label,
                what="networks' answers to clean and noisy images",
            )
        _require_same_classes(members, images, [one.logits.shape[1] for one in answers])
        for member, one in zip(members, answers, strict=True):
            if one.is_random:
                self.console.warn(f"{member.label} answers the same images differently each time; so do its scores")
        logits = np.stack([one.logits for one in answers])
        labels = images.labels if images.labels is not None else _agreed(logits)
        predictions = np.stack([one.under_noise for one in answers])
        return Comparison(members, images, labels, logits, predictions != labels.numpy())

    def view(self, member: Member) -> View:
        """How `member` sees an image under the protocol."""
        if self.settings.protocol == "paper":
            return View(member.pixels.input_size, member.pixels.crop_pct, member.pixels.interpolation)
        return self.canonical_view

    @property
    def canonical_view(self) -> View:
        """The one crop for all networks: as large as the largest input among them."""
        return View(self.pool.largest)

    def logits(
        self,
        member: Member,
        pixels: Tensor,
        *,
        batches: int | None = None,
        change: Callable[[Tensor, slice], Tensor] | None = None,
    ) -> NDArray[np.float32]:
        """Logits of `member` on 8-bit images.

        Args:
            member: the network.
            pixels: (n, 3, H, W) uint8.
            batches: only the first so many.
            change: applied to the [0, 1] pixels of a batch first; also gets which of the n images they are.

        Returns:
            (n, C) float32.

        Raises:
            UserError: a logit is NaN or infinite.
        """
        answers = []
        with as_function(self.pool.network(member)) as network, torch.no_grad():
            for number, batch in enumerate(in_batches(len(pixels), self.settings.batch_size)[:batches], start=1):
                self.check()
                images = pixels[batch].to(self.device).float() / 255
                if change is not None:
                    images = change(images, batch)
                with autocast(self.device, self.settings.precision):
                    answers.append(network(images).float().cpu())
                _require_finite(answers[-1], member, number)
        return torch.cat(answers).numpy() if answers else np.zeros((0, member.classes), dtype=np.float32)

    def _known_answers(self, member: Member, images: ImageSet) -> _Answers | None:
        """From the store; None where not all of them are there."""
        clean = self.store.arrays("clean", self._key(member, images))
        noise = None if clean is None else self.store.arrays("noise", self._noise_key(member, images))
        if clean is None or noise is None:
            return None
        return _Answers(clean["logits"], noise["predictions"], is_random="again" in clean)

    def _answers(self, member: Member, images: ImageSet) -> _Answers:
        """Made now, as far as the store has them not; `Busy` if another process is at it."""
        with self.store.working_on(self._noise_key(member, images)):
            clean, noise = self._clean(member, images), self._noise(member, images)
            return _Answers(clean["logits"], noise["predictions"], is_random="again" in clean)

    def _clean(self, member: Member, images: ImageSet) -> dict[str, NDArray[Any]]:
        key = self._key(member, images)
        stored = self.store.arrays("clean", key)
        if stored is None:
            pixels = images.pixels(self.view(member))
            logits = self.logits(member, pixels)
            again = self.logits(member, pixels, batches=1)
            stored = {"logits": logits}
            if not np.array_equal(logits[: len(again)], again):
                stored["again"] = again
            self.store.save_arrays("clean", key, stored)
        return stored

    def _noise(self, member: Member, images: ImageSet) -> dict[str, NDArray[Any]]:
        key, eps, seed = self._noise_key(member, images), self.settings.attack.eps, self.settings.attack.seed
        stored = self.store.arrays("noise", key)
        if stored is None:

            def add(pixels: Tensor, batch: slice) -> Tensor:
                return noisy(pixels, eps, seed, images.numbers[batch])

            logits = self.logits(member, images.pixels(self.view(member)), change=add)
            stored = {"predictions": logits.argmax(axis=1)}
            self.store.save_arrays("noise", key, stored)
        return stored

    def _key(self, member: Member, images: ImageSet) -> str:
        view = asdict(self.view(member))
        return content_key([CODE_VERSION, member.key, view, images.fingerprint, self.settings.precision])

    def _noise_key(self, member: Member, images: ImageSet) -> str:
        attack = self.settings.attack
        return content_key({"clean": self._key(member, images), "eps": attack.eps, "seed": attack.seed})


def in_batches(count: int, size: int) -> list[slice]:
    """`count` items as slices of at most `size`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _require_finite(logits: Tensor, member: Member, batch: int) -> None:
    broken = int((~logits.isfinite()).any(dim=1).sum())
    if broken:
        raise UserError(
            f"gives NaN or infinite logits on {broken} of the {len(logits)} images of batch {batch}",
            member.label,
            "check its weights and its normalisation",
        )


def _require_same_classes(members: Sequence[Member], images: ImageSet, counts: Sequence[int]) -> None:
    for member, count in zip(members, counts, strict=True):
        if count != counts[0]:
            raise UserError(
                f"{members[0].label} has {counts[0]} classes, {member.label} has {count}",
                fix="compare networks that tell the same classes apart",
            )
        if images.classes is not None and images.classes > count:
            raise UserError(
                f"{images.classes} classes of images, but {member.label} has {count}",
                images.name,
                "give --class-map FILE.json with {folder: class index}",
            )


def _agreed(logits: NDArray[np.float32]) -> Tensor:
    """The class on which all networks agree, (n,); -1, which nobody predicts, where they do not."""
    predictions = logits.argmax(axis=2)
    agree = (predictions == predictions[0]).all(axis=0)
    if not agree.any():
        raise UserError("the networks agree on no image", "--labels agree", "give labelled images")
    return torch.from_numpy(np.where(agree, predictions[0], -1))
