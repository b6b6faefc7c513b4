"""What a training comes to before it starts: what `--dry-run` shows."""

from __future__ import annotations

from vtk_cli.console import Console
from vtk_cli.detect.network import parameter_count
from vtk_cli.detect.options import TrainOptions
from vtk_cli.detect.preparation import Training
from vtk_cli.engine.devices import resolve_precision
from vtk_cli.engine.processes.process_plan import process_plan


def show_plan(options: TrainOptions, training: Training, console: Console) -> None:
    """What `--dry-run` says; nothing is written."""
    data, config = training.data, training.config
    learns = ["boxes", *(["masks"] if config.mask_coefficients else []), *(["IoU"] if config.iou_aware else [])]
    shares = process_plan(options, training.world, options.batch_size)
    shared_out = [(name.replace("_", " "), value) for name, value in shares.items()]
    rows: list[tuple[str, object]] = [
        ("detector", training.name),
        ("backbone", config.backbone.name),
        ("weights", f"{parameter_count(training.network):,}, from {training.started_from}"),
        ("learns", ", ".join([*learns, *(["token labels"] if config.token_labels else [])])),
        ("DET tokens", config.queries),
        ("input", f"{options.resize}, {options.size} pixels"),
        ("training images", f"{len(data.train):,} with {data.train.objects:,} objects"),
        ("classes", len(data.train.class_names)),
        ("validation images", "none" if data.val is None else f"{len(data.val):,}"),
        ("updates", f"{training.updates:,} in {training.plan.epochs} epochs"),
        ("warm-up", f"{training.scheduler.warmup:,} updates"),
        ("learning rate", _rates(options.lr, training.start.backbone_lr)),
        ("precision", resolve_precision(training.plan.precision, training.world.device)),
        *shared_out,
    ]
    console.table("Plan", ("", "value"), rows)
    console.emit({name: str(value) for name, value in rows})


def _rates(lr: float, share: float) -> str:
    return f"{lr:g}" if share == 1 else f"{lr:g}, of the backbone {lr * share:g}"
