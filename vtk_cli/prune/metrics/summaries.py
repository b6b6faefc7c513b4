"""What is kept of a set of images: the Gaussian of all their features, a part of the features, what classifiers say.

Of real images it is cached under what decides it: the content of the images, the embedder's weights and its
preprocessing. Names decide nothing.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.files import atomic_path, cache_folder, content_key, disk_errors, lock
from vtk_cli.prune.metrics.embedders import Embedder, Embedding
from vtk_cli.prune.metrics.frechet import Gaussian, GaussianMeter

KEPT = 10_000
"""Features kept for the distances that need them one by one; the Gaussian is of all."""
BATCH = 64

_FORMAT = 1
_SEED = 0


class Images(Protocol):
    """Images that can be read again, in batches."""

    @property
    def name(self) -> str:
        """What they are called in results."""

    @property
    def fingerprint(self) -> str:
        """Other images, another fingerprint."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterable[Tensor]:
        """(B, C, H, W) uint8."""


@dataclass(frozen=True, eq=False)
class Summary:
    """What is kept of N images.

    Args:
        name: what they are called in results.
        gaussian: of all their features.
        features: (K, D) float32, K at most `KEPT`: those of images drawn evenly, in the order of the draw, so that the
            first few are drawn evenly too.
        confidence: the mean probability of the likeliest class, in 0..1; None where the embedder is no classifier.
        class_entropy: of the mean probabilities, in nats, log(classes) where all are equally frequent; None likewise.
    """

    name: str
    gaussian: Gaussian
    features: Tensor
    confidence: float | None
    class_entropy: float | None

    @property
    def count(self) -> int:
        """How many images there were, N."""
        return self.gaussian.count


class _ClassMeter:
    """Confidence and class entropy, image by image."""

    def __init__(self) -> None:
        self._count, self._confidence = 0, 0.0
        self._probabilities = torch.zeros((), dtype=torch.float64)

    def update(self, probabilities: Tensor) -> None:
        self._count += len(probabilities)
        self._confidence += float(probabilities.double().amax(dim=1).sum())
        self._probabilities = self._probabilities + probabilities.double().sum(dim=0)

    def values(self) -> tuple[float, float] | tuple[None, None]:
        if not self._count:
            return None, None
        return self._confidence / self._count, float(torch.special.entr(self._probabilities / self._count).sum())


def summarised(
    batches: Iterable[Tensor], count: int, embedder: Embedder, *, name: str, console: Console, kept: int = KEPT
) -> Summary:
    """Embed images and keep what the distances need.

    Args:
        batches: (B, C, H, W) uint8, `count` images in all.
        count: how many, at least 2.
        embedder: makes the features.
        name: what the images are called in results.
        console: shows the progress.
        kept: features to keep.

    Raises:
        UserError: there are fewer than two images.
        ValueError: `batches` holds another number than `count`.
    """
    with console.progress(f"embedding {name} with {embedder.name}", count) as progress:

        def embedded() -> Iterator[Embedding]:
            for images in batches:
                yield embedder(images)
                progress.advance(len(images))

        return summary_of(embedded(), count, name=name, kept=kept)


def summary_of(embeddings: Iterable[Embedding], count: int, *, name: str, kept: int = KEPT) -> Summary:
    """What is kept of images that are embedded, batch by batch; arguments and errors as those of `summarised`."""
    if count < 2:
        raise UserError(f"{count} image(s) have no covariance", name, "give at least 2, and for FID 10,000 or more")
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(_SEED))[:kept]
    chosen = torch.zeros(count, dtype=torch.bool).index_fill_(0, drawn, value=True)
    meter, classes, features, seen = GaussianMeter(), _ClassMeter(), [], 0
    for embedding in embeddings:
        meter.update(embedding.features)
        if embedding.probabilities is not None:
            classes.update(embedding.probabilities)
        size = len(embedding.features)
        features.append(embedding.features[chosen[seen : seen + size]])
        seen += size
    if seen != count:
        raise ValueError(f"{seen} images where {count} were announced")
    confidence, entropy = classes.values()
    ranks = drawn.argsort().argsort()  # of the drawn images in the order in which they came
    return Summary(name, meter.value(), torch.cat(features)[ranks], confidence, entropy)


def real_summary(images: Images, embedder: Embedder, console: Console, *, kept: int = KEPT) -> Summary:
    """The summary of real images: from the cache, or made now and cached.

    Raises:
        UserError: there are fewer than two images.
        JobError: the disk is full.
    """
    key = content_key({"format": _FORMAT, "images": images.fingerprint, "embedder": embedder.key, "kept": kept})
    path = cache_folder() / "image-statistics" / f"{key}.npz"
    with lock(path.with_suffix(".lock")):
        cached = _read(path, images.name)
        if cached is not None and cached.count == len(images):
            return cached
        made = summarised(images.batches(BATCH), len(images), embedder, name=images.name, console=console, kept=kept)
        _write(path, made)
    return made


def _write(path: Path, summary: Summary) -> None:
    scores = (summary.confidence, summary.class_entropy)
    arrays: dict[str, NDArray[Any]] = {
        "count": np.array(summary.count),
        "mean": summary.gaussian.mean.numpy(),
        "covariance": summary.gaussian.covariance.numpy(),
        "features": summary.features.numpy(),
        "scores": np.array([score for score in scores if score is not None]),
    }
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def _read(path: Path, name: str) -> Summary | None:
    """What `_write` wrote; None where there is nothing or it is torn."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        mean, covariance = (torch.from_numpy(arrays[key]) for key in ("mean", "covariance"))
        scores = arrays["scores"].tolist()
        confidence, entropy = scores or (None, None)
        gaussian = Gaussian(int(arrays["count"]), mean, covariance)
        return Summary(name, gaussian, torch.from_numpy(arrays["features"]), confidence, entropy)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile):
        with disk_errors(path):
            path.unlink(missing_ok=True)
        return None
