"""Summaries of images, their cache, and the numbers with what they were measured with."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.prune.metrics import summaries
from vtk_cli.prune.metrics.embedders import Embedder
from vtk_cli.prune.metrics.frechet import frechet_distance, gaussian_of
from vtk_cli.prune.metrics.quality import check_counts, quality
from vtk_cli.prune.metrics.summaries import real_summary, summarised

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    return tmp_path


def pixels_as_features(sha256: str = "ab" * 32, name: str = "pixels") -> Embedder:
    """Features are the four pixels; the classes are two, by the first of them."""
    return Embedder(
        name=name,
        sha256=sha256,
        resize="clean",
        side=2,
        dimension=4,
        network=nn.Flatten(),
        normalise=lambda pixels: pixels[:, :1] / 255,
        classify=lambda features: torch.stack((features[:, 0] * 0, features[:, 0] * 1e3), dim=1),
        device=torch.device("cpu"),
    )


@dataclass
class Counted:
    """Images in memory that count how often they are read."""

    pixels: Tensor
    fingerprint: str = "f"
    name: str = "counted"
    reads: int = 0

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, size: int) -> Iterator[Tensor]:
        self.reads += 1
        yield from self.pixels.split(size)


def images(count: int, seed: int = 0, low: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, 256, (count, 1, 2, 2), generator=generator).to(torch.uint8)


def test_a_summary_holds_the_gaussian_of_all_and_an_even_draw_of_some() -> None:
    pixels = images(500).sort(dim=0).values  # as the files of class after class
    found = summarised(pixels.split(33), 500, pixels_as_features(), name="x", console=QUIET, kept=100)
    features = pixels.flatten(1) / 255
    torch.testing.assert_close(found.gaussian.mean, features.double().mean(0))
    assert found.features.shape == (100, 4)
    assert {tuple(row) for row in found.features.tolist()} <= {tuple(row) for row in features.tolist()}
    for some in (found.features, found.features[:50]):
        torch.testing.assert_close(some.mean(0), features.mean(0), rtol=0.2, atol=0)


def test_batches_of_any_size_give_the_same_summary() -> None:
    pixels = images(101)
    one, other = (
        summarised(pixels.split(size), 101, pixels_as_features(), name="x", console=QUIET, kept=20) for size in (7, 101)
    )
    assert torch.equal(one.features, other.features)
    torch.testing.assert_close(one.gaussian.covariance, other.gaussian.covariance)


def test_confidence_and_class_entropy_by_hand() -> None:
    pixels = torch.tensor([0, 0, 0, 255, 255, 255], dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 2, 2)
    found = summarised([pixels], 6, pixels_as_features(), name="x", console=QUIET)
    # Black: (1/2, 1/2); white: (0, 1). Their mean is (1/4, 3/4).
    assert found.confidence == pytest.approx((0.5 + 1) / 2)
    assert found.class_entropy == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))


def test_a_single_image_has_no_statistics() -> None:
    with pytest.raises(UserError, match="at least 2"):
        summarised([images(1)], 1, pixels_as_features(), name="x", console=QUIET)


def test_real_images_are_read_once_and_again_only_when_something_changed() -> None:
    real = Counted(images(50))
    first = real_summary(real, pixels_as_features(), QUIET)
    second = real_summary(real, pixels_as_features(), QUIET)
    assert real.reads == 1
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.gaussian.covariance, second.gaussian.covariance)
    assert (first.confidence, first.class_entropy) == (second.confidence, second.class_entropy)
    real_summary(real, pixels_as_features(sha256="cd" * 32), QUIET)
    assert real.reads == 2
    real_summary(Counted(images(50), fingerprint="g"), pixels_as_features(), QUIET)
    real_summary(real, pixels_as_features(), QUIET)
    assert real.reads == 2


def test_torn_statistics_are_made_again(cache: Path) -> None:
    real = Counted(images(50))
    expected = real_summary(real, pixels_as_features(), QUIET)
    file = next((cache / "image-statistics").glob("*.npz"))
    file.write_bytes(file.read_bytes()[:-100])
    found = real_summary(real, pixels_as_features(), QUIET)
    assert real.reads == 2
    assert torch.equal(found.features, expected.features)


def test_the_numbers_say_what_they_were_measured_with() -> None:
    embedder = pixels_as_features()
    real = real_summary(Counted(images(200), name="test images"), embedder, QUIET)
    fake = summarised([images(120, seed=1, low=60)], 120, embedder, name="ticket", console=QUIET)
    found = quality(real, fake, embedder, QUIET)
    expected = frechet_distance(gaussian_of(images(200).flatten(1) / 255), fake.gaussian)
    assert found.frechet == pytest.approx(expected, rel=1e-6)
    assert found.described().startswith(
        f"FD(pixels) {expected:.4g} (clean, weights abababababababab, 120 fake, 200 real"
    )
    saved = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert saved["FD(pixels)"] == found.frechet
    assert "FID" not in saved
    wanted = ("embedder", "embedder_sha256", "resize", "real", "real_count", "fake_count", "precision", "recall", "k")
    assert set(wanted) <= set(saved)
    assert found.neighbours_count == (120, 120)
    assert found.fidelity.recall < found.fidelity.precision


def test_few_images_are_measured_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    embedder = pixels_as_features()
    real = real_summary(Counted(images(200)), embedder, QUIET)
    few = summarised([images(4)], 4, embedder, name="four", console=QUIET)
    found = quality(real, few, embedder, QUIET)
    assert math.isfinite(found.frechet)
    warning = " ".join(capsys.readouterr().err.split())
    assert "four: 4 images for 4 features" in warning
    assert "singular" in warning


def test_fewer_than_ten_thousand_images_make_an_fid_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    embedder = pixels_as_features(name="inception")
    real = real_summary(Counted(images(200)), embedder, QUIET)
    found = quality(real, real, embedder, QUIET)
    assert "FID" in found.to_json()
    assert "below 10,000 FID is too large" in " ".join(capsys.readouterr().err.split())


def test_too_few_images_are_refused_with_the_number_that_is_needed() -> None:
    embedder = pixels_as_features()
    real = real_summary(Counted(images(200)), embedder, QUIET)
    few = summarised([images(3)], 3, embedder, name="three", console=QUIET)
    with pytest.raises(UserError, match="3 generated images are too few for the statistics; at least 4 are needed"):
        quality(real, few, embedder, QUIET, k=3)
    with pytest.raises(UserError, match=r"2 real images .* at least 6 are needed, and 10,000 for FID"):
        check_counts(2, 100, "inception", k=5)
    check_counts(6, 6, "inception", k=5)


def test_two_processes_do_not_embed_the_same_images_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Counted(images(50))
    real_summary(real, pixels_as_features(), QUIET)
    monkeypatch.setattr(summaries, "_write", lambda *_: pytest.fail("it was made again"))
    real_summary(real, pixels_as_features(), QUIET)
