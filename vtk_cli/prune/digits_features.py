"""The network whose features generators of the embedded digits are matched by: a small classifier, trained here.

It sees the train split alone. What measures the generators afterwards has to be another network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from vtk_cli.console import Console
from vtk_cli.data.digits import load_glyphs, upscale
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.loop import Clock, Plan, fit
from vtk_cli.engine.seeds import preserved_rng, seed_everything
from vtk_cli.files import atomic_path, cache_folder, content_key, lock, sha256_file, write_json
from vtk_cli.models.weights import state_sha256

DIGITS = "digits-features"
WIDTHS, STRIDES = (16, 32, 64), (1, 2, 2)
CLASSES = 10
SEED = 10_001
"""Of the weights and the order; apart from the seeds that people give their runs."""
EPOCHS, BATCH, LR = 12, 64, 3e-3

_FORMAT = 1


class DigitsFeatures(nn.Module):
    """(B, C, S, S) in [-1, 1] -> the outputs of the three ReLUs; `classify` makes logits of the last."""

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        inputs = (channels, *WIDTHS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs[number], width, 3, stride, padding=1, bias=False)
            for number, (width, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in WIDTHS)
        for stride in STRIDES:
            side = -(-side // stride)
        self.head = nn.Linear(WIDTHS[-1] * side * side, CLASSES)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, C, S, S) -> (B, 16, S, S), (B, 32, S/2, S/2), (B, 64, S/4, S/4)."""
        outputs: list[Tensor] = []
        x = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
            outputs.append(x)
        return outputs

    def classify(self, outputs: list[Tensor]) -> Tensor:
        """What `forward` returned -> logits (B, 10)."""
        logits: Tensor = self.head(outputs[-1].flatten(1))
        return logits


@dataclass(frozen=True, eq=False)
class TrainedFeatures:
    """The trained network in eval mode, and the SHA-256 of its weights."""

    network: DigitsFeatures
    sha256: str


def trained_digits_features(side: int, channels: int, device: torch.device, console: Console) -> TrainedFeatures:
    """The network for digits of `side` x `side` pixels: from the cache, or trained now (seconds).

    Raises:
        JobError: the disk is full.
        Preempted: a signal stopped the training; it goes on where it was.
    """
    torch_version = ".".join(torch.__version__.split(".")[:2])
    recipe = {"seed": SEED, "epochs": EPOCHS, "batch": BATCH, "lr": LR, "widths": WIDTHS}
    key = content_key({"format": _FORMAT, "torch": torch_version, "side": side, "channels": channels, **recipe})
    folder = cache_folder() / "digits-features" / key
    with lock(folder / "lock"), preserved_rng():
        seed_everything(SEED)
        network = DigitsFeatures(side, channels)
        if not _load(network, folder, console):
            _train(network, side, channels, folder, device=device, console=console)
            _save(network, folder)
    return TrainedFeatures(network.eval().to(device), _card(folder)["weights_sha256"])


class _OneCycle:
    """torch's one-cycle schedule (arXiv 1708.07120), which steps by updates, as the training loop asks for it."""

    def __init__(self, optimizer: torch.optim.Optimizer, updates: int) -> None:
        self._schedule = OneCycleLR(optimizer, LR, total_steps=updates + 1)
        self.state_dict, self.load_state_dict = self._schedule.state_dict, self._schedule.load_state_dict

    def step(self, epoch: int) -> None:
        """Nothing happens between epochs."""

    def step_update(self, num_updates: int) -> None:  # noqa: ARG002
        """One update was made."""
        self._schedule.step()


def _train(
    network: DigitsFeatures, side: int, channels: int, folder: Path, *, device: torch.device, console: Console
) -> None:
    glyphs = load_glyphs("train")
    grey = torch.from_numpy(upscale(glyphs.ink, side)).float()[:, None] * 2 - 1
    images, labels = grey.repeat(1, channels, 1, 1).to(device), torch.from_numpy(glyphs.labels).to(device)
    batches = TensorBatches(images, labels, batch_size=BATCH, seed=SEED)

    def loss(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        _, pixels, labels = batch
        generator = torch.Generator().manual_seed(clock.seed)
        down, right = torch.randint(-1, 2, (2,), generator=generator).tolist()
        return F.cross_entropy(network.classify(model(pixels.roll((down, right), dims=(2, 3)))), labels)

    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    fit(
        network.to(device),
        loss,
        batches,
        optimizer,
        plan=Plan(EPOCHS),
        device=device,
        seed=SEED,
        scheduler=_OneCycle(optimizer, EPOCHS * batches.steps_per_epoch),
        evaluate=None,
        checkpoints=folder / "checkpoints",
        metrics=None,
        console=console,
        description="training the features of digits",
    )


def _card(folder: Path) -> dict[str, str]:
    path = folder / "card.json"
    card: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return card


def _load(network: DigitsFeatures, folder: Path, console: Console) -> bool:
    """Load the cached weights; False where there are none or the file is not what was written."""
    card, weights = _card(folder), folder / "model.safetensors"
    if not card:
        return False
    if not weights.exists() or sha256_file(weights) != card["file_sha256"]:
        console.warn(f"{weights}: damaged; training the features of digits again")
        return False
    network.load_state_dict(load_file(weights))
    return True


def _save(network: DigitsFeatures, folder: Path) -> None:
    weights = folder / "model.safetensors"
    with atomic_path(weights) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, temporary)
    write_json(folder / "card.json", {"weights_sha256": state_sha256(network), "file_sha256": sha256_file(weights)})
