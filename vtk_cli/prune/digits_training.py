"""Small classifiers of the embedded digits, trained here in seconds and cached.

One gives the features that digits are made by, another one measures what was made. They see the train split alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import load_file
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.data.digits import load_glyphs, upscale
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.loop import Clock, Plan, fit
from vtk_cli.engine.seeds import preserved_rng, seed_everything
from vtk_cli.files import cache_folder, content_key, lock, read_sealed, sha256_file, write_sealed
from vtk_cli.models.described_weights import save_described
from vtk_cli.models.weights import state_sha256

Classifier = TypeVar("Classifier", bound=nn.Module)

_FORMAT = 1
_CARD, _WEIGHTS = "card.json", "model.safetensors"


@dataclass(frozen=True)
class DigitsTraining:
    """How a classifier is trained: Adam, warm-up over three tenths of the updates, cosine to 0, rolls by a pixel.

    Args:
        name: of the folder in the cache, and of the progress.
        architecture: what tells the network from others of the same name.
        side: of the digits, in pixels.
        channels: 1, or 3 equal ones.
        seed: of the weights, the order and the rolls.
        epochs: passes over the 1,437 train digits.
        batch_size: digits in a batch.
        lr: the largest learning rate.
    """

    name: str
    architecture: str
    side: int
    channels: int
    seed: int
    epochs: int = 12
    batch_size: int = 64
    lr: float = 3e-3

    @property
    def key(self) -> str:
        """What the weights are cached under: all that shapes them, and torch's version."""
        torch_version = ".".join(torch.__version__.split(".")[:2])
        return content_key({"format": _FORMAT, "torch": torch_version, **asdict(self)})


@dataclass(frozen=True, eq=False)
class Trained(Generic[Classifier]):
    """The trained network, frozen and in eval mode, and the SHA-256 of its weights."""

    network: Classifier
    sha256: str


def trained_on_digits(
    build: Callable[[], Classifier],
    logits: Callable[[Classifier, Tensor], Tensor],
    training: DigitsTraining,
    device: torch.device,
    console: Console,
) -> Trained[Classifier]:
    """The classifier: from the cache, or trained now.

    Args:
        build: the untrained network; draws from torch's global generator.
        logits: of the network on digits (B, C, S, S) in [-1, 1]: (B, 10).
        training: how.
        device: where to train and to put it.
        console: shows the progress.

    Raises:
        JobError: the disk is full.
        Preempted: a signal stopped the training; it goes on where it was.
    """
    folder = cache_folder() / training.name / training.key
    with lock(folder / "lock"), preserved_rng():
        seed_everything(training.seed)
        network = build()
        if not _load(network, folder, console):
            _train(network, logits, training, folder, device=device, console=console)
            _save(network, folder)
    frozen = network.eval().requires_grad_(requires_grad=False).to(device)
    return Trained(frozen, _card(folder)["weights_sha256"])


def _train(
    network: Classifier,
    logits: Callable[[Classifier, Tensor], Tensor],
    training: DigitsTraining,
    folder: Path,
    *,
    device: torch.device,
    console: Console,
) -> None:
    glyphs = load_glyphs("train")
    grey = torch.from_numpy(upscale(glyphs.ink, training.side)).float()[:, None] * 2 - 1
    images = grey.repeat(1, training.channels, 1, 1).to(device)
    labels = torch.from_numpy(glyphs.labels).to(device)
    batches = TensorBatches(images, labels, batch_size=training.batch_size, seed=training.seed)

    def loss(_: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        _indices, pixels, targets = batch
        generator = torch.Generator().manual_seed(clock.seed)
        down, right = torch.randint(-1, 2, (2,), generator=generator).tolist()
        return F.cross_entropy(logits(network, pixels.roll((down, right), dims=(2, 3))), targets)

    updates = training.epochs * batches.steps_per_epoch
    optimizer = torch.optim.Adam(network.parameters(), lr=training.lr)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=updates,
        warmup_t=updates * 3 // 10,
        warmup_lr_init=training.lr / 25,
        t_in_epochs=False,
    )
    fit(
        network.to(device),
        loss,
        batches,
        optimizer,
        plan=Plan(training.epochs),
        device=device,
        seed=training.seed,
        scheduler=scheduler,
        evaluate=None,
        checkpoints=folder / "checkpoints",
        metrics=None,
        console=console,
        description=f"training {training.name}",
    )


def _card(folder: Path) -> dict[str, Any]:
    return read_sealed(folder / _CARD) or {}


def _load(network: nn.Module, folder: Path, console: Console) -> bool:
    """Load the cached weights; False where there are none or a file is not what was written."""
    card, weights = _card(folder), folder / _WEIGHTS
    if not card:
        if (folder / _CARD).exists():
            console.warn(f"{folder / _CARD}: damaged; training the network again")
        return False
    if not weights.exists() or sha256_file(weights) != card["file_sha256"]:
        console.warn(f"{weights}: damaged; training it again")
        return False
    network.load_state_dict(load_file(weights))
    return True


def _save(network: nn.Module, folder: Path) -> None:
    """Write the weights, then the card, last of all; then the state of the training goes."""
    weights = folder / _WEIGHTS
    save_described(weights, network.state_dict(), {})
    write_sealed(folder / _CARD, {"weights_sha256": state_sha256(network), "file_sha256": sha256_file(weights)})
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
