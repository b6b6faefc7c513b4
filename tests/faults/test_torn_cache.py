"""What is kept to be found again, torn or with a byte that was flipped: made anew, never believed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.cases import held
from vtk_cli.console import Console
from vtk_cli.engine.pieces.result_folders import ResultFolders
from vtk_cli.engine.pieces.results import ResultStore
from vtk_cli.models.weights import state_sha256
from vtk_cli.prune import digits_training
from vtk_cli.prune.digits_training import DigitsTraining, trained_on_digits
from vtk_cli.prune.extractors import Extractor, Preprocessing
from vtk_cli.prune.moments import cached_moments
from vtk_cli.similarity import digits_networks
from vtk_cli.similarity.digits_networks import DigitsNetwork, Recipe
from vtk_cli.similarity.store import Store

CPU, QUIET = torch.device("cpu"), Console(quiet=True)
SEED, FLIPS = 12, 32
ANEW = "made anew; the same result"
KEY = "k" * 20
RESULT = {"name": "a", "score": 1.25, "rounds": [{"acc": 0.5, "n": 3}, {"acc": None, "n": 4}], "none": []}


def torn(content: bytes, flips: int = FLIPS) -> list[bytes]:
    """Cut at every 1/16, to nothing too, and with a byte flipped at some places."""
    draw, found = random.Random(SEED), [content[: part * len(content) // 16] for part in range(16)]  # noqa: S311
    for _ in range(flips):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= draw.randrange(1, 256)
        found.append(bytes(changed))
    return found


def test_a_torn_result_is_none(tmp_path: Path) -> None:
    """Search scores, sweep pieces, proofs: with every byte flipped, in three ways."""
    store, folders = ResultStore(tmp_path / "store"), ResultFolders(tmp_path / "folders")
    store.put(KEY, RESULT)
    folders.through([KEY], key=str, compute=lambda _piece, _folder: RESULT)
    for get, file in (
        (store.get, store.folder / KEY[:2] / f"{KEY}.json"),
        (folders.get, folders.place(KEY) / "result.json"),
    ):
        content = file.read_bytes()
        assert get(KEY) == RESULT
        every = [
            content[:place] + bytes([byte ^ bits]) + content[place + 1 :]
            for place, byte in enumerate(content)
            for bits in (1, 4, 32)
        ]
        for harmed in [*torn(content, flips=0), *every]:
            file.write_bytes(harmed)
            assert get(KEY) in (None, RESULT), harmed  # a space for a line's end changes nothing
        (again,) = folders.through([KEY], key=str, compute=lambda _piece, _folder: RESULT)
        assert again == RESULT
        held(
            "faults",
            "kept results (search scores, sweep pieces, proofs) torn, every byte flipped",
            ANEW,
            16 + len(every),
        )


def test_torn_rows_and_images_of_the_similarity_are_none(tmp_path: Path) -> None:
    store, draw = Store(tmp_path), np.random.default_rng(SEED)
    row = {f"net{number}": draw.random(40) < 0.5 for number in range(3)}
    images = {"images": draw.integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)}
    store.save_row(KEY, row)
    store.save_arrays("adversarial", KEY, images)
    for kind, expected in (("rows", store.arrays("rows", KEY)), ("adversarial", images)):
        assert expected is not None
        file = tmp_path / kind / f"{KEY}.npz"
        content = file.read_bytes()
        for harmed in torn(content, flips=2000):
            file.write_bytes(harmed)
            found = store.arrays(kind, KEY)
            assert found is None or found.keys() == expected.keys()
            assert found is None or all(np.array_equal(found[name], expected[name]) for name in expected)
        held("faults", f"similarity's {kind} torn, bytes flipped", ANEW, 2016)


@pytest.mark.parametrize("name", ["card.json", "model.safetensors"])
def test_torn_digits_networks_of_the_similarity_are_trained_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    network = DigitsNetwork(
        "tiny", "resnet18", {"channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1)}, Recipe(1, 64, 2e-3), seed=0
    )
    expected = digits_networks.ensure_trained(network, CPU, QUIET)
    (file,) = tmp_path.rglob(name)
    tried = torn(file.read_bytes())
    trainings: list[int] = []
    monkeypatch.setattr(digits_networks, "_train", _as_it_was(digits_networks._train, trainings, tmp_path))
    for harmed in tried:
        file.write_bytes(harmed)
        assert name != "card.json" or not digits_networks.is_trained(network)
        assert state_sha256(digits_networks.trained(network, CPU, QUIET).net) == expected
        assert digits_networks.ensure_trained(network, CPU, QUIET) == expected
    assert len(trainings) == len(tried)
    assert digits_networks.is_trained(network)
    held("faults", "digits networks of the similarity: weights and card torn", ANEW, len(tried))


def _as_it_was(train: Callable[..., None], calls: list[int], cache: Path) -> Callable[..., None]:
    """The training, made once; from then on its weights are loaded from a file."""
    kept = cache / "kept.pt"

    def trained(net: nn.Module, *arguments: object, **options: object) -> None:
        calls.append(1)
        if kept.exists():
            net.load_state_dict(torch.load(kept, weights_only=True))
            return
        train(net, *arguments, **options)
        torch.save(net.state_dict(), kept)

    return trained


class Linear(nn.Module):
    """Logits of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 64, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.flatten(1))
        return logits


@pytest.mark.parametrize("name", ["card.json", "model.safetensors"])
def test_torn_digits_networks_of_the_pruning_are_trained_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    training = DigitsTraining("linear", "one layer", side=8, channels=3, seed=4, epochs=1)

    def sha256() -> str:
        found = trained_on_digits(Linear, lambda network, images: network(images), training, CPU, QUIET)
        assert found.sha256 == state_sha256(found.network)
        return found.sha256

    expected = sha256()
    (file,) = tmp_path.rglob(name)
    tried = torn(file.read_bytes())
    trainings: list[int] = []
    monkeypatch.setattr(digits_training, "_train", _as_it_was(digits_training._train, trainings, tmp_path))
    for harmed in tried:
        file.write_bytes(harmed)
        assert sha256() == expected
    assert len(trainings) == len(tried)
    assert sha256() == expected
    assert len(trainings) == len(tried)
    held("faults", "digits networks of the pruning: weights and card torn", ANEW, len(tried))


class Means(nn.Module):
    """The means over the channels."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images.mean(dim=1)]


def test_torn_moments_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    half = (0.5, 0.5, 0.5)
    extractor = Extractor("means", Means(), Preprocessing(half, half), {})
    images = torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(SEED))
    expected = cached_moments(extractor, [images], {}, CPU)
    (file,) = tmp_path.rglob("*.safetensors")
    tried = torn(file.read_bytes(), flips=500)
    for harmed in tried:
        file.write_bytes(harmed)
        found = cached_moments(extractor, [images], {}, CPU)
        assert found.count == expected.count
        assert torch.equal(found.means[0], expected.means[0])
        assert torch.equal(found.variances[0], expected.variances[0])
    held("faults", "moments of the pruning torn, bytes flipped", ANEW, len(tried))
