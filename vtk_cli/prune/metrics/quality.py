"""How good a generator's images are, in numbers that say what they were measured with and on how many images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.prune.metrics.catalog import INCEPTION
from vtk_cli.prune.metrics.embedders import Embedder
from vtk_cli.prune.metrics.frechet import frechet_distance
from vtk_cli.prune.metrics.kernel import KernelDistance, kernel_distance
from vtk_cli.prune.metrics.neighbours import NEIGHBOURS, Fidelity, fidelity
from vtk_cli.prune.metrics.summaries import Summary

COMPARABLE = 10_000
"""Below so many images an FID is too large by much (arXiv 1911.07023); published ones have 50,000."""

SHOWN_DIGITS = 16
"""Of a SHA-256, where a person reads it."""

WEAKNESS = (
    "Means and variances of features can be matched by images that no one would take for real: with a weak extractor"
    " precision stays low while recall is high."
)
"""To be said beside the numbers of a generator that was searched by moment matching."""


@dataclass(frozen=True)
class Quality:
    """Distances between fake and real images.

    Args:
        embedder: what made the features.
        sha256: of its weights.
        resize: how images came to its size.
        distance_name, kernel_name: what the two distances may be called: `FID` and `KID` for Inception alone.
        real, fake: what the two sets are called.
        real_count, fake_count: how many images they have.
        neighbours_count: how many of each the nearest neighbours were looked for among: (real, fake).
        frechet: the Frechet distance.
        kernel: the kernel distance.
        fidelity: precision, recall, density and coverage.
        confidence, class_entropy: what the embedder says of the fakes; None where it is no classifier.
    """

    embedder: str
    sha256: str
    resize: str
    distance_name: str
    kernel_name: str
    real: str
    fake: str
    real_count: int
    fake_count: int
    neighbours_count: tuple[int, int]
    frechet: float
    kernel: KernelDistance
    fidelity: Fidelity
    confidence: float | None
    class_entropy: float | None

    def described(self) -> str:
        """The Frechet distance with all that it depends on, in a line."""
        return (
            f"{self.distance_name} {self.frechet:.4g} ({self.resize}, weights {self.sha256[:SHOWN_DIGITS]},"
            f" {self.fake_count} fake, {self.real_count} real: {self.real})"
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, for reports."""
        kernel, shares = self.kernel, self.fidelity
        return {
            "embedder": self.embedder,
            "embedder_sha256": self.sha256,
            "resize": self.resize,
            "quantised": "uint8",
            "real": self.real,
            "real_count": self.real_count,
            "fake": self.fake,
            "fake_count": self.fake_count,
            self.distance_name: self.frechet,
            self.kernel_name: {"mean": kernel.mean, "std": kernel.std, "subsets": kernel.subsets, "size": kernel.size},
            "precision": shares.precision,
            "recall": shares.recall,
            "density": shares.density,
            "coverage": shares.coverage,
            "k": shares.k,
            "neighbours_count": list(self.neighbours_count),
            "confidence": self.confidence,
            "class_entropy": self.class_entropy,
        }


def quality(
    real: Summary, fake: Summary, embedder: Embedder, console: Console | None, *, k: int = NEIGHBOURS, seed: int = 0
) -> Quality:
    """Compare fake images with real ones.

    The nearest neighbours are looked for among as many real as fake images: the shares depend on the numbers.

    Args:
        real, fake: both by `embedder`.
        embedder: what made their features.
        console: told where there are too few images for the number to be compared with others; None: nobody is.
        k: which neighbour a ball reaches to.
        seed: of the subsets of the kernel distance.

    Raises:
        UserError: there are too few images; it says how many are needed.
    """
    check_counts(len(real.features), len(fake.features), embedder.name, k)
    if console is not None:
        _warn_of_bias(real, fake, embedder, console)
    count = min(len(real.features), len(fake.features))
    return Quality(
        embedder=embedder.name,
        sha256=embedder.sha256,
        resize=embedder.resize,
        distance_name=embedder.distance,
        kernel_name=embedder.kernel_distance,
        real=real.name,
        fake=fake.name,
        real_count=real.count,
        fake_count=fake.count,
        neighbours_count=(count, count),
        frechet=frechet_distance(real.gaussian, fake.gaussian),
        kernel=kernel_distance(real.features, fake.features, seed=seed),
        fidelity=fidelity(real.features[:count], fake.features[:count], k),
        confidence=fake.confidence,
        class_entropy=fake.class_entropy,
    )


def check_counts(real: int, fake: int, embedder: str, k: int = NEIGHBOURS) -> None:
    """Refuse numbers of images that no statistics can be made of, before any work.

    Raises:
        UserError: there are too few; it says how many are needed.
    """
    needed = max(2, k + 1)
    for count, what in ((real, "real"), (fake, "generated")):
        if count < needed:
            fix = f"at least {needed} are needed" + (f", and {COMPARABLE:,} for FID" if embedder == INCEPTION else "")
            raise UserError(f"{count} {what} images are too few for the statistics", fix=fix)


def _warn_of_bias(real: Summary, fake: Summary, embedder: Embedder, console: Console) -> None:
    few = min((real, fake), key=lambda summary: summary.count)
    if few.gaussian.is_singular:
        console.warn(
            f"{few.name}: {few.count} images for {embedder.dimension} features; the covariance is singular and"
            f" {embedder.distance} too large; more than {embedder.dimension} are needed"
        )
    elif embedder.name == INCEPTION and few.count < COMPARABLE:
        console.warn(
            f"{few.name}: {few.count} images; below {COMPARABLE:,} {embedder.distance} is too large, compare it only at"
            " equal numbers; the kernel distance is not biased"
        )
