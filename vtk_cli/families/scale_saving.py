"""What a checkpoint takes from a training: one save, against the share of the time between two that it may take."""

from __future__ import annotations

import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from timm import create_model
from torch import Tensor, nn

from vtk_cli.engine.checkpoint import save_checkpoint
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.loss_meter import LossMeter
from vtk_cli.engine.optimisation import build_optimizer, parameter_groups
from vtk_cli.engine.plan import Plan
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.timing import seconds_of
from vtk_cli.engine.update import Clock, Updater
from vtk_cli.files import disk_errors
from vtk_cli.reports.evidence import BenchRow
from vtk_cli.train.options import TrainOptions

SHARE = 0.02
"""Of the time, that saving may take."""

_NETWORKS = {"smallest": TrainOptions().network, "ViT-B": "vit_base_patch16_224"}


def saving_row(name: str, device: torch.device, *, saves: int) -> BenchRow:
    """The median save of a network's state with AdamW's, in the current folder, as the engine does it.

    Args:
        name: `smallest`, what `vtk train` trains where no network is named, or `ViT-B`.
        device: where the network is.
        saves: how many are timed, after one that is not.
    """
    updater = _updated(name, device)
    between = Plan(epochs=1).checkpoint_seconds
    weights = sum(parameter.numel() for parameter in updater.model.parameters())
    with disk_errors(Path.cwd()), tempfile.TemporaryDirectory(prefix=".vtk-bench-", dir=Path.cwd()) as folder:
        save = partial(_save, updater, Path(folder))
        taken = [seconds_of(partial(save, step), device) for step in range(saves + 1)][1:]
        size = max(file.stat().st_size for file in Path(folder).iterdir())
    seconds = median(taken)
    return BenchRow(
        name=f"one save of {weights / 1e6:.3g} M weights with their AdamW",
        ours=seconds,
        theirs=between * SHARE / (1 - SHARE),
        peer=f"{SHARE:.0%} of the time, saving every {between:.0f} s",
        target=1.0,
        device=describe_device(device),
        versions={"torch": version("torch")},
        note=f"{size / 1e6:,.1f} MB; {seconds / (between + seconds):.2%} of the time is lost",
    )


def _save(updater: Updater, folder: Path, step: int) -> None:
    updater.require_finite_weights(step)
    save_checkpoint(folder, step, {"updater": updater.state_dict()})


def _updated(name: str, device: torch.device) -> Updater:
    """A network after its first update, which makes the optimiser's state; on small images, which do not matter."""
    options = TrainOptions()
    arguments = options.constructor_arguments if name == "smallest" else {"img_size": 32}
    network = create_model(_NETWORKS[name], num_classes=10, **arguments)
    world = World(0, 1, 0, device)
    updater = Updater(
        network,
        _loss,
        build_optimizer(parameter_groups(network, network, weight_decay=0.05), "adamw", lr=1e-3),
        None,
        clip_norm=None,
        ema_decay=None,
        precision="fp32",
        seed=0,
        world=world,
    )
    updater([(torch.arange(2), torch.zeros(2, 3, 32, 32))], 0, 0, LossMeter(world))
    return updater


def _loss(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:  # noqa: ARG001 - no matter when
    logits: Tensor = model(batch[1])
    return logits.square().mean()
