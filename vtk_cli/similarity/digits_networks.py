"""Networks trained here, on the embedded digits: what is compared when no pretrained weights or images are at hand.

Either the real timm graph of the name at 32 pixels, or (`--quick`) a stand-in with the layout of the name at a fraction
of its width. Each is trained once with noise augmentation, without which networks on smooth digits flip under random
noise and every transfer looks like similarity, and cached under a key of everything that shaped it.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.data.digits import load_digits_split
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.loop import Clock, Plan, fit
from vtk_cli.engine.seeds import preserved_rng, seed_everything
from vtk_cli.errors import UserError
from vtk_cli.files import cache_folder, content_key, lock, read_sealed, sha256_file, write_sealed
from vtk_cli.models.described_weights import save_described
from vtk_cli.models.weights import state_sha256
from vtk_cli.models.zoo import PixelConfig, network_metadata
from vtk_cli.similarity.networks import PixelModel
from vtk_kernels import uniform

SIDE = 32
CLASSES = 10
PIXELS = PixelConfig(input_size=SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop_pct=1.0)
"""The preprocessing of every network trained here."""
NARROW = (16, 32, 64, 128)
"""Widths of a small ResNet's stages, a quarter of the published ones; the stem stays as it is."""
NOISE = 0.25
"""Half-width of the largest noise added in training, in [0, 1] pixel units."""

_FORMAT = 2
_CARD, _WEIGHTS = "card.json", "model.safetensors"
_AUGMENTATION_DOMAIN = 3
_LARGE = 60e6
"""Parameters above which a network without batch norm learns the digits in half the epochs, at a lower rate."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on the digits: AdamW, linear warm-up over the first tenth, cosine to 0, clip at 1."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.05


@dataclass(frozen=True)
class DigitsNetwork:
    """A network to be trained on the digits: which graph, how, and from which seed.

    Args:
        label: what it is called in results.
        timm_name: the timm model.
        model_args: what `timm.create_model` gets besides.
        recipe: the training.
        seed: of the initial weights, the order and the noise.
    """

    label: str
    timm_name: str
    model_args: dict[str, Any]
    recipe: Recipe
    seed: int

    @property
    def key(self) -> str:
        """What the trained weights are cached under: all that shapes them, and torch's version."""
        torch_version = ".".join(torch.__version__.split(".")[:2])
        shaping = {name: value for name, value in asdict(self).items() if name != "label"}
        return content_key({"format": _FORMAT, "torch": torch_version, "timm": timm.__version__, **shaping})

    def build(self) -> nn.Module:
        """The untrained network: (B, 3, 32, 32) normalised -> (B, 10). Draws from torch's global generator."""
        net: nn.Module = timm.create_model(self.timm_name, num_classes=CLASSES, **self.model_args)
        return net


def full_size(label: str, timm_name: str, seed: int) -> DigitsNetwork:
    """The real timm graph of a name, at 32 pixels and with a head of 10 classes.

    Raises:
        UserError: the architecture does not run on 32 x 32 images.
    """
    for model_args in ({}, {"img_size": SIDE}):
        graph = _graph_at_digits_size(timm_name, model_args)
        if graph is not None:
            return DigitsNetwork(label, timm_name, model_args, _recipe(graph), seed)
    raise UserError(
        f"{timm_name} does not run on {SIDE} x {SIDE} images, so it cannot be trained on the embedded digits",
        fix="give pretrained weights and your images with --data DIR, or choose another network",
    )


def stand_in(label: str, timm_name: str, seed: int) -> DigitsNetwork:
    """The small stand-in of a ResNet or ViT name: the same kind of block, few and narrow.

    A ResNet keeps its stem, its block and its depths at stage widths 16/32/64/128; a ViT or DeiT becomes patch 8,
    dim 192, 4 blocks, 3 heads.

    Raises:
        UserError: the name is of neither family.
    """
    family = timm.models.model_entrypoint(timm_name).__module__.rpartition(".")[2]
    if family == "resnet":
        model_args: dict[str, Any] = {"channels": NARROW}
        return DigitsNetwork(label, timm_name, model_args, Recipe(8, 64, 2e-3), seed)
    if family in {"vision_transformer", "deit"}:
        model_args = {"img_size": SIDE, "patch_size": 8, "embed_dim": 192, "depth": 4, "num_heads": 3}
        return DigitsNetwork(label, timm_name, model_args, Recipe(12, 32, 1e-3), seed)
    raise UserError(
        f"there is no small stand-in for {timm_name}",
        "--quick",
        "stand-ins exist for ResNet, ViT and DeiT names; leave --quick out to train the real network",
    )


def trained(
    network: DigitsNetwork,
    device: torch.device,
    console: Console,
    checkpoint_seconds: float = 120.0,
    *,
    wait: bool = True,
) -> PixelModel:
    """The trained network: from the cache, or trained now; a training that was stopped goes on where it was.

    Args:
        network: what to train.
        device: where to train and to put it.
        console: shows the progress.
        checkpoint_seconds: how often the state of the training is saved.
        wait: for another process that is training it.

    Raises:
        Busy: without `wait`, another process is training it.
        JobError: the loss became infinite, or the disk is full.
        Preempted: a signal stopped the training; its state is saved.
    """
    folder = _folder(network)
    with lock(folder / "lock", wait=wait, busy="another process is training this network"), preserved_rng():
        seed_everything(network.seed)
        net = network.build()
        if not _load(net, network, folder, console):
            plan = Plan(network.recipe.epochs, clip_norm=1.0, checkpoint_seconds=checkpoint_seconds)
            _train(net.to(device), network, plan, folder=folder, device=device, console=console)
            _save(net, network, folder)
    return _pixel_model(net.eval()).to(device)


def ensure_trained(
    network: DigitsNetwork,
    device: torch.device,
    console: Console,
    checkpoint_seconds: float = 120.0,
    *,
    wait: bool = True,
) -> str:
    """The SHA-256 of the trained weights; trains the network as `trained` does if that has not been done."""
    if not is_trained(network):
        trained(network, device, console, checkpoint_seconds, wait=wait)
    return str(_card(_folder(network))["weights_sha256"])


def is_trained(network: DigitsNetwork) -> bool:
    """Whether the trained weights are in the cache."""
    return bool(_card(_folder(network)))


def parameter_count(network: DigitsNetwork) -> int:
    """How many weights the network has; builds it on the meta device, which costs no memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in network.build().parameters())


def _folder(network: DigitsNetwork) -> Path:
    return cache_folder() / "digits-networks" / network.key


def _card(folder: Path) -> dict[str, Any]:
    """What is written last, beside finished weights: the network, the weights' checksum. Empty if absent or torn."""
    return read_sealed(folder / _CARD) or {}


def add_noise(pixels: Tensor, sample_numbers: Tensor, seed: int) -> Tensor:
    """x + c U(-1, 1) a pixel with c ~ U(0, 0.25) an image, clamped to [0, 1].

    Args:
        pixels: (B, 3, H, W) in [0, 1].
        sample_numbers: (B,) int64; the noise depends on (seed, number) alone.
        seed: of the noise.
    """
    count = pixels[0].numel()
    numbers = uniform(sample_numbers.to(pixels.device), count + 1, seed=seed, domain=_AUGMENTATION_DOMAIN)
    strength = NOISE * numbers[:, -1].view(-1, 1, 1, 1)
    return (pixels + strength * (2 * numbers[:, :count].view(pixels.shape) - 1)).clamp(0, 1)


def _pixel_model(net: nn.Module) -> PixelModel:
    return PixelModel(net, PIXELS.input_size, PIXELS.mean, PIXELS.std, PIXELS.interpolation)


def _graph_at_digits_size(timm_name: str, model_args: dict[str, Any]) -> nn.Module | None:
    """The network on the meta device if two 32 x 32 images pass through it, else None; costs no memory."""
    try:
        with torch.device("meta"), torch.no_grad():
            net: nn.Module = timm.create_model(timm_name, num_classes=CLASSES, **model_args).eval()
            logits = net(torch.zeros(2, 3, SIDE, SIDE))
    except (AssertionError, RuntimeError, TypeError, ValueError):
        return None  # timm's architectures refuse a size in as many ways
    return net if logits.shape == (2, CLASSES) else None


def _recipe(graph: nn.Module) -> Recipe:
    if any(isinstance(module, nn.BatchNorm2d) for module in graph.modules()):
        return Recipe(epochs=6, batch_size=64, lr=1e-3)
    if sum(parameter.numel() for parameter in graph.parameters()) > _LARGE:
        return Recipe(epochs=4, batch_size=64, lr=2e-4)
    return Recipe(epochs=8, batch_size=64, lr=5e-4)


def _train(
    net: nn.Module, network: DigitsNetwork, plan: Plan, *, folder: Path, device: torch.device, console: Console
) -> None:
    digits, recipe = load_digits_split("train"), network.recipe
    images, labels = torch.from_numpy(digits.images).to(device), torch.from_numpy(digits.labels).to(device)
    batches = TensorBatches(images, labels, batch_size=recipe.batch_size, seed=network.seed)
    model = _pixel_model(net)

    def loss(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        indices, images, labels = batch
        sample_numbers = clock.epoch * len(digits) + indices
        return F.cross_entropy(model(add_noise(images.float() / 255, sample_numbers, network.seed)), labels)

    updates = plan.epochs * batches.steps_per_epoch
    optimizer = create_optimizer_v2(net, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=updates,
        warmup_t=updates // 10,
        warmup_lr_init=recipe.lr / max(updates // 10, 1),
        t_in_epochs=False,
    )
    fit(
        model.to(device),
        loss,
        batches,
        optimizer,
        plan=plan,
        device=device,
        seed=network.seed,
        scheduler=scheduler,
        evaluate=None,
        checkpoints=folder / "checkpoints",
        metrics=folder / "metrics.jsonl",
        console=console,
        description=f"training {network.label} on digits",
    )


def _load(net: nn.Module, network: DigitsNetwork, folder: Path, console: Console) -> bool:
    """Load the cached weights into `net`; False where there are none or a file is not what was written."""
    card, weights = _card(folder), folder / _WEIGHTS
    if not card:
        if (folder / _CARD).exists():
            console.warn(f"{folder / _CARD}: damaged; training {network.label} again")
        return False
    if not weights.exists() or sha256_file(weights) != card["file_sha256"]:
        console.warn(f"{weights}: damaged; training {network.label} again")
        return False
    net.load_state_dict(load_file(weights))
    return True


def _save(net: nn.Module, network: DigitsNetwork, folder: Path) -> None:
    weights = folder / _WEIGHTS
    # With this metadata the file can be named alone.
    save_described(weights, net.state_dict(), network_metadata(network.timm_name, PIXELS, network.model_args))
    # The weights' own checksum as well: safetensors may write the same weights as different bytes.
    checksums = {"weights_sha256": state_sha256(net), "file_sha256": sha256_file(weights)}
    write_sealed(folder / _CARD, {**asdict(network), **checksums})
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # a finished training's state: three times its weights
