"""`vtk bench train`: what the engine costs against a hand-written loop, and what the sub-branch costs on a ViT."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import create_transform
from timm.optim import create_optimizer_v2
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from vtk_cli.console import Console
from vtk_cli.data.embedded import open_embedded
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.loop import fit
from vtk_cli.engine.loss_meter import LossMeter
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.timing import finish, in_turns
from vtk_cli.engine.update import Updater
from vtk_cli.reports.evidence import BenchRow
from vtk_cli.train.options import TrainOptions
from vtk_cli.train.preparation import Training, open_data, prepare
from vtk_cli.train.recipes import RECIPES

NETWORKS = (
    ("vit_tiny_patch16_224", ("img_size=32", "patch_size=8", "embed_dim=64", "depth=3", "num_heads=4")),
    ("vit_tiny_patch16_224", ("img_size=32", "patch_size=4", "depth=6")),
)
"""A network that takes less time than its images, and one that takes more."""
ENGINE_TARGET = 0.95
"""The hand-written loop's time over ours: the engine may cost 5 %."""
SUB_TARGET = 1 / 1.6
"""A plain step's time over one with the sub-branch; 1 / 1.5 by counting operations."""
_BATCH = 64


def measure(*, smallest: bool, device: torch.device, console: Console) -> list[BenchRow]:
    """Time both, side by side and in turns; the medians."""
    folder = open_embedded("digits", console).folder
    rounds = 1 if smallest else 5
    rows = [_engine_row(folder, *network, rounds=rounds, device=device) for network in NETWORKS[: 1 if smallest else 2]]
    return [*rows, _sub_row(rounds=rounds, size=32 if smallest else 224, device=device)]


def _engine_row(folder: Path, model: str, arguments: tuple[str, ...], *, rounds: int, device: torch.device) -> BenchRow:
    """An epoch of plain training on PNG files, by the engine and by a loop as one writes it by hand."""
    options = _options(data=str(folder), model=model, model_arg=arguments, sub="none", epochs=1)
    ours, theirs = in_turns(
        lambda: _by_engine(options, device), lambda: _by_hand(folder, model, options, device), rounds
    )
    images = len(ImageFolder(folder / "train"))
    width = dict(entry.split("=") for entry in arguments).get("embed_dim", "192")
    return BenchRow(
        name=f"an epoch of plain training, {images} digits, ViT {width} wide",
        ours=ours,
        theirs=theirs,
        peer="torch and timm, a loop written by hand",
        target=ENGINE_TARGET,
        device=describe_device(device),
        versions={name: version(name) for name in ("torch", "timm", "torchvision")},
        note=f"{images / ours:.0f} against {images / theirs:.0f} images/s",
    )


def _sub_row(*, rounds: int, size: int, device: torch.device) -> BenchRow:
    """A step of AugMask at ratio 0.5 on ViT-Ti/16 against a plain step."""
    arguments = () if size == 224 else (f"img_size={size}", "patch_size=4")
    common: dict[str, Any] = {"model": "vit_tiny_patch16_224", "model_arg": arguments, "img_size": size}
    with_sub, plain = (_step(_options(data="digits", sub=sub, **common), device) for sub in ("mask", "none"))
    ours, theirs = in_turns(with_sub, plain, 2 * rounds)
    return BenchRow(
        name=f"a step with the sub-branch at ratio 0.5, ViT-Ti at {size} pixels",
        ours=ours,
        theirs=theirs,
        peer="a plain step",
        target=SUB_TARGET,
        device=describe_device(device),
        versions={name: version(name) for name in ("torch", "timm")},
        note=f"{ours / theirs:.2f}x the time of a plain step",
    )


def _options(**values: Any) -> TrainOptions:
    shared = {**RECIPES["small"], "batch_size": _BATCH, "workers": 0, "precision": "fp32", "img_size": 32}
    return TrainOptions(**{**shared, **values})


def _prepared(options: TrainOptions, device: torch.device) -> Training:
    quiet = Console(quiet=True)
    return prepare(options, open_data(options, quiet), World(0, 1, 0, device), quiet)


def _by_engine(options: TrainOptions, device: torch.device) -> float:
    training = _prepared(options, device)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        fit(
            training.classifier,
            training.objective,
            training.batches,
            training.optimizer,
            plan=training.plan,
            device=device,
            seed=0,
            scheduler=training.scheduler,
            evaluate=None,
            checkpoints=None,
            metrics=Path(folder, "metrics.jsonl"),
            console=Console(quiet=True),
        )
        finish(device)
        return time.perf_counter() - start


def _by_hand(folder: Path, model: str, options: TrainOptions, device: torch.device) -> float:
    """The same images, network, optimiser and schedule as a page of torch and timm has them."""
    transform = create_transform(
        32, is_training=True, color_jitter=0.0, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    loader = DataLoader(ImageFolder(folder / "train", transform), batch_size=_BATCH, shuffle=True)
    network = timm.create_model(model, num_classes=10, **options.constructor_arguments).to(device).train()
    optimizer = create_optimizer_v2(network, "adamw", lr=options.lr, weight_decay=options.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(loader))
    start = time.perf_counter()
    for images, labels in loader:
        loss = F.cross_entropy(network(images.to(device)), labels.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    finish(device)
    return time.perf_counter() - start


def _step(options: TrainOptions, device: torch.device) -> Callable[[], float]:
    """A training step on a batch that is there already; returns its seconds."""
    options = replace(options, batch_size=8)
    training = _prepared(options, device)
    updater = Updater(
        training.classifier,
        training.objective,
        training.optimizer,
        training.scheduler,
        clip_norm=None,
        ema_decay=None,
        precision="fp32",
        seed=0,
        world=training.world,
    )
    batch = next(training.batches.epoch(0))
    updater.model.train()
    meter = LossMeter(training.world)

    def step() -> float:
        start = time.perf_counter()
        updater([batch], 0, 0, meter)
        meter.read()
        finish(device)
        return time.perf_counter() - start

    return step
