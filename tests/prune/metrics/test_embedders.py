"""From images to features: what is named, what is refused, what is repeated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from vtk_cli.console import Console
from vtk_cli.data.digits import load_glyphs, upscale
from vtk_cli.errors import UserError
from vtk_cli.prune import digits_training
from vtk_cli.prune.data import open_data
from vtk_cli.prune.metrics import embedders
from vtk_cli.prune.metrics.embedders import Embedder, open_embedder
from vtk_cli.prune.metrics.inception import InceptionV3
from vtk_cli.prune.metrics.quality import quality
from vtk_cli.prune.metrics.summaries import real_summary, summarised

CPU = torch.device("cpu")
QUIET = Console(quiet=True)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the module: the embedder of digits is trained once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VTK_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def digits(cache: Path) -> Embedder:
    return open_embedder("digits-cnn", image_side=16, device=CPU, console=QUIET)


def digit_images(split: str = "val", side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    glyphs = load_glyphs(split)  # type: ignore[arg-type]
    images = np.rint(upscale(glyphs.ink, side) * 255).astype(np.uint8)
    return torch.from_numpy(images)[:, None], torch.from_numpy(glyphs.labels)


def test_the_embedder_of_digits_knows_digits_it_was_not_trained_on(digits: Embedder) -> None:
    images, labels = digit_images()
    embedding = digits(images)
    assert embedding.features.shape == (len(images), 64)
    assert embedding.features.min() >= 0
    assert embedding.probabilities is not None
    assert (embedding.probabilities.argmax(1) == labels).float().mean() > 0.97
    torch.testing.assert_close(embedding.probabilities.sum(1), torch.ones(len(images)))


def test_it_is_trained_once_and_the_same_again(
    digits: Embedder, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(digits_training, "fit", lambda *_, **__: pytest.fail("it was trained again"))
    again = open_embedder("digits-cnn", image_side=16, device=CPU, console=QUIET)
    assert again.key == digits.key


def test_damaged_weights_are_made_again_the_same(digits: Embedder, cache: Path) -> None:
    weights = next((cache / "digits-cnn").glob("*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert open_embedder("digits-cnn", image_side=16, device=CPU, console=QUIET).sha256 == digits.sha256


def test_training_it_leaves_the_callers_randomness_alone(digits: Embedder) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    open_embedder("digits-cnn", image_side=16, device=CPU, console=QUIET)
    assert torch.equal(torch.rand(3), expected)


def test_colour_and_larger_images_come_to_the_same_features_where_they_show_the_same(digits: Embedder) -> None:
    images, _ = digit_images()
    images = images[:8]
    grey = digits(images).features
    torch.testing.assert_close(digits(images.expand(-1, 3, -1, -1)).features, grey)
    doubled = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (digits(doubled).features - grey).norm() < 0.3 * grey.norm()


def test_only_inception_may_be_called_fid(digits: Embedder) -> None:
    assert (digits.distance, digits.kernel_distance) == ("FD(digits-cnn)", "KD(digits-cnn)")


def test_inception_takes_what_the_two_published_tools_give_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedders, "load_inception", lambda path: InceptionV3().eval())
    black_and_white = torch.tensor([0.0, 128.0, 255.0]).view(1, 1, 1, 3)
    clean, legacy = (
        open_embedder("inception", image_side=64, inception=tmp_path / "w", resize=resize, device=CPU, console=QUIET)
        for resize in ("clean", "legacy")
    )
    assert (clean.distance, clean.kernel_distance, clean.side, clean.dimension) == ("FID", "KID", 299, 2048)
    # clean-fid: (x - 128) / 128; pytorch-fid: 2 (x / 255) - 1.
    assert clean.normalise(black_and_white)[0, 0, 0].tolist() == pytest.approx([-1, 0, 127 / 128])
    assert legacy.normalise(black_and_white)[0, 0, 0].tolist() == pytest.approx([-1, 1 / 255, 1])
    assert clean.normalise(black_and_white).shape[1] == 3
    assert clean.key != legacy.key
    assert clean(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).features.shape == (1, 2048)


def test_without_the_weights_of_inception_there_is_no_fid(digits: Embedder, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"--inception: FID needs the weights.*--allow-fallback"):
        open_embedder("inception", image_side=16, device=CPU, console=QUIET)
    fallback = open_embedder("inception", image_side=16, allow_fallback=True, device=CPU, console=QUIET)
    assert fallback.distance == "FD(digits-cnn)"
    assert "which is no FID" in " ".join(capsys.readouterr().err.split())


def test_wrong_weights_of_inception_are_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "weights.pth"
    wrong.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"weights\.pth: is not the Inception of published FIDs"):
        open_embedder("inception", image_side=16, inception=wrong, device=CPU, console=QUIET)


def test_a_timm_network_embeds_with_its_own_mean_and_deviation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "net.pth")
    embedder = open_embedder(f"resnet10t={tmp_path / 'net.pth'}", image_side=32, device=CPU, console=QUIET)
    assert embedder.distance.startswith("FD(resnet10t")
    mean = torch.tensor(network.pretrained_cfg["mean"]).view(1, 3, 1, 1)
    deviation = torch.tensor(network.pretrained_cfg["std"]).view(1, 3, 1, 1)
    images = torch.randint(0, 256, (2, 3, embedder.side, embedder.side), dtype=torch.uint8)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features((images / 255 - mean) / deviation), pre_logits=True)
    torch.testing.assert_close(embedder(images).features, expected)
    assert embedder.dimension == expected.shape[1] == 512


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="incepshun"):
        open_embedder("incepshun", image_side=16, device=CPU, console=QUIET)
    with pytest.raises(UserError, match="'nearest' is no way of resizing"):
        open_embedder("digits-cnn", image_side=16, resize="nearest", device=CPU, console=QUIET)  # type: ignore[arg-type]


def test_floating_point_images_are_refused(digits: Embedder) -> None:
    with pytest.raises(ValueError, match="8-bit"):
        digits(torch.rand(2, 1, 16, 16))
    with pytest.raises(ValueError, match="1 or 3"):
        digits(torch.zeros(2, 4, 16, 16, dtype=torch.uint8))


def test_other_real_digits_are_near_and_noise_and_one_digit_are_far(digits: Embedder) -> None:
    splits = open_data("digits", size=16, channels=1, console=QUIET)
    real, train = (real_summary(part, digits, QUIET) for part in (splits.held_out, splits.train))
    noise = torch.randint(0, 256, (400, 1, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    zeros = next(iter(splits.train.batches(1))).expand(400, -1, -1, -1)
    near, random, one = (
        quality(real, summary, digits, QUIET)
        for summary in (
            train,
            *(summarised([images], 400, digits, name="fake", console=QUIET) for images in (noise, zeros)),
        )
    )
    assert near.frechet < 0.05 * min(random.frechet, one.frechet)
    assert near.kernel.mean < 0.05 * min(random.kernel.mean, one.kernel.mean)
    assert min(near.fidelity.precision, near.fidelity.recall) > 0.8
    assert random.fidelity.precision < 0.2
    assert (one.fidelity.precision, one.fidelity.recall) == (1, 0)
    assert near.class_entropy is not None
    assert one.class_entropy is not None
    assert near.class_entropy > np.log(10) - 0.01
    assert one.class_entropy < 0.1
