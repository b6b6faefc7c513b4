"""Classifiers of the digits: trained once, the same from the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.data.digits import load_glyphs, upscale
from vtk_cli.prune import digits_training
from vtk_cli.prune.digits_training import DigitsTraining, Trained, trained_on_digits

TRAINING = DigitsTraining("linear", "one layer", side=8, channels=3, seed=4, epochs=4)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    return tmp_path


class Linear(nn.Module):
    """Logits of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 64, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.flatten(1))
        return logits


def train(training: DigitsTraining = TRAINING) -> Trained[Linear]:
    return trained_on_digits(Linear, lambda network, images: network(images), training, CPU, Console(quiet=True))


def test_it_learns_digits_that_it_does_not_see() -> None:
    glyphs = load_glyphs("val")
    images = torch.from_numpy(upscale(glyphs.ink, 8)).float()[:, None].expand(-1, 3, -1, -1) * 2 - 1
    found = train()
    assert (found.network(images).argmax(1) == torch.from_numpy(glyphs.labels)).float().mean() > 0.6
    assert not found.network.training
    assert not any(parameter.requires_grad for parameter in found.network.parameters())


def test_the_cache_gives_what_the_training_gave(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train()
    assert not list(cache.rglob("checkpoints"))
    monkeypatch.setattr(digits_training, "fit", lambda *_, **__: pytest.fail("it was trained again"))
    again = train()
    assert again.sha256 == first.sha256
    assert torch.equal(again.network.layer.weight, first.network.layer.weight)


def test_the_same_training_gives_the_same_weights_on_any_machines_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train()
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "other"))
    assert train().sha256 == first.sha256


def test_whatever_shapes_the_weights_changes_the_key() -> None:
    others = [replace(TRAINING, seed=5), replace(TRAINING, side=16), replace(TRAINING, architecture="two layers")]
    assert len({TRAINING.key, *(other.key for other in others)}) == 4
