"""What a training comes to before it starts: the note on its cost, and what `--dry-run` shows."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtk_cli.console import Console
from vtk_cli.engine.devices import resolve_precision
from vtk_cli.engine.processes.process_plan import process_plan
from vtk_cli.train.cost import StepCost
from vtk_cli.train.options import TrainOptions
from vtk_cli.train.preparation import Training

_WORDS = {
    "lr": "learning rate",
    "sub": "sub-branch",
    "sub_ratio": "its ratio",
    "images": "training images",
    "val_images": "validation images",
    "images_a_process": "images of a batch in each",
    "each_holds": "each holds",
    "macs": "MACs an image",
    "sub_macs": "MACs of its sub-branch",
    "step_factor": "step against plain training",
}
"""What people read where the key of the JSON object does not say it."""


def tell_cost(training: Training, cost: StepCost | None, console: Console) -> None:
    """Say how large the network is, what a step costs and where its memory goes."""
    words = [f"{_weights(training.network.module) / 1e6:.2f} M weights"]
    if cost is not None:
        words.append(f"{cost.main / 1e9:.3g} GMACs an image")
        if cost.sub is not None:
            words.append(f"{cost.sub / 1e9:.3g} in its sub-branch: a step costs {cost.factor:.2f}x a plain one")
        words.append(cost.memory)
    console.note("; ".join(words))


def show_plan(options: TrainOptions, training: Training, cost: StepCost | None, console: Console) -> None:
    """Show what would be done; nothing is written."""
    splits, points, plan = training.data.splits, training.data.points, training.plan
    sub = training.classifier.sub
    summary: dict[str, Any] = {
        "network": options.network,
        "weights_from": training.network.weights_source,
        "weights": _weights(training.network.module),
        "pixels": training.network.config.input_size,
        "data": options.data,
        "classes": len(splits.train.class_names),
        "images": len(splits.train),
        "val_images": 0 if splits.val is None else len(splits.val),
        "epochs": plan.epochs,
        "updates": -(-training.batches.steps_per_epoch // plan.accumulate) * plan.epochs,
        "lr": max(group["initial_lr"] for group in training.optimizer.param_groups),
        "precision": resolve_precision(plan.precision, training.world.device),
        **process_plan(options, training.world, options.batch_size),
        "sub": None if sub is None else f"{options.sub}: {sub.name}",
        "sub_ratio": None if sub is None else options.sub_ratio,
        **cost_summary(cost),
        "memory": None if cost is None else cost.memory,
        "images_with_points": None if points is None else int(points.present.any(dim=1).sum()),
        "out": None if options.out is None else str(options.out),
    }
    rows = [
        (_WORDS.get(name, name.replace("_", " ")), f"{value:,}" if isinstance(value, int) else _short(value))
        for name, value in summary.items()
        if value is not None and name != "out"
    ]
    console.table("Plan", ("", "value"), [*rows, ("would be written to", options.out or "a new folder in runs/train")])
    console.emit(summary)


def cost_summary(cost: StepCost | None) -> dict[str, Any]:
    """Multiply-accumulates of an image in both forwards, and a step's cost over that of plain training."""
    if cost is None:
        return {}
    return {"macs": cost.main, "sub_macs": cost.sub, "step_factor": round(cost.factor, 4)}


def _weights(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
