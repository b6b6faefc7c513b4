"""The embedder of the digits: a small classifier, trained here on the train split of the embedded digits.

It must differ from the network whose features a generator is searched with, in seed and in architecture: a distance
by the same network would be the search's own objective.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.data.digits import load_glyphs, upscale
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.loop import Clock, Plan, fit
from vtk_cli.engine.seeds import preserved_rng, seed_everything
from vtk_cli.files import atomic_path, cache_folder, content_key, lock, sha256_file, write_json
from vtk_cli.models.weights import state_sha256

CLASSES = 10
FEATURES = 64
WIDTHS, STRIDES = (24, 48, 64), (1, 2, 2)
SEED = 20_001
"""Of the weights and the order; apart from the seeds that people give their runs."""
EPOCHS, BATCH, LR = 12, 64, 3e-3

_FORMAT = 1


class DigitsClassifier(nn.Module):
    """(B, 1, S, S) in [-1, 1] -> 64 features (B, 64), at least 0; `classify` makes logits of them."""

    def __init__(self, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for outputs, stride in zip(WIDTHS, STRIDES, strict=True):
            layers += [
                nn.Conv2d(width, outputs, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            side, width = -(-side // stride), outputs
        self.convolutions = nn.Sequential(*layers)
        self.embedding = nn.Linear(width * side * side, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, 64)."""
        return F.relu(self.embedding(self.convolutions(images).flatten(1)))

    def classify(self, features: Tensor) -> Tensor:
        """(B, 64) -> logits (B, 10)."""
        logits: Tensor = self.head(features)
        return logits


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """The trained network in eval mode, and the SHA-256 of its weights."""

    network: DigitsClassifier
    sha256: str


def trained_classifier(side: int, device: torch.device, console: Console) -> TrainedClassifier:
    """The classifier for digits of `side` x `side` pixels: from the cache, or trained now (seconds).

    Raises:
        JobError: the disk is full.
        Preempted: a signal stopped the training; it goes on where it was.
    """
    torch_version = ".".join(torch.__version__.split(".")[:2])
    recipe = {"seed": SEED, "epochs": EPOCHS, "batch": BATCH, "lr": LR, "widths": WIDTHS, "features": FEATURES}
    key = content_key({"format": _FORMAT, "torch": torch_version, "side": side, **recipe})
    folder = cache_folder() / "digits-embedders" / key
    with lock(folder / "lock"), preserved_rng():
        seed_everything(SEED)
        network = DigitsClassifier(side)
        if not _load(network, folder, console):
            _train(network, side, folder, device, console)
            _save(network, folder)
    return TrainedClassifier(
        network.eval().requires_grad_(requires_grad=False).to(device), _card(folder)["weights_sha256"]
    )


def _train(network: DigitsClassifier, side: int, folder: Path, device: torch.device, console: Console) -> None:
    glyphs = load_glyphs("train")
    images = torch.from_numpy(upscale(glyphs.ink, side)).float()[:, None] * 2 - 1
    batches = TensorBatches(images.to(device), torch.from_numpy(glyphs.labels).to(device), batch_size=BATCH, seed=SEED)

    def loss(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        _, pixels, labels = batch
        generator = torch.Generator().manual_seed(clock.seed)
        down, right = torch.randint(-1, 2, (2,), generator=generator).tolist()
        return F.cross_entropy(network.classify(model(pixels.roll((down, right), dims=(2, 3)))), labels)

    updates = EPOCHS * batches.steps_per_epoch
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    warmup = updates * 3 // 10
    scheduler = CosineLRScheduler(
        optimizer, t_initial=updates, warmup_t=warmup, warmup_lr_init=LR / 25, t_in_epochs=False
    )
    fit(
        network.to(device),
        loss,
        batches,
        optimizer,
        plan=Plan(EPOCHS),
        device=device,
        seed=SEED,
        scheduler=scheduler,
        evaluate=None,
        checkpoints=folder / "checkpoints",
        metrics=None,
        console=console,
        description="training the embedder of digits",
    )


def _card(folder: Path) -> dict[str, str]:
    path = folder / "card.json"
    card: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return card


def _load(network: DigitsClassifier, folder: Path, console: Console) -> bool:
    """Load the cached weights; False where there are none or the file is not what was written."""
    card, weights = _card(folder), folder / "model.safetensors"
    if not card:
        return False
    if not weights.exists() or sha256_file(weights) != card["file_sha256"]:
        console.warn(f"{weights}: damaged; training the embedder of digits again")
        return False
    network.load_state_dict(load_file(weights))
    return True


def _save(network: DigitsClassifier, folder: Path) -> None:
    weights = folder / "model.safetensors"
    with atomic_path(weights) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, temporary)
    write_json(folder / "card.json", {"weights_sha256": state_sha256(network), "file_sha256": sha256_file(weights)})
