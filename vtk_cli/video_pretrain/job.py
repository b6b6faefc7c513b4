"""The story of `vtk video-pretrain run`, top to bottom.

Videos are found, the network is built or loaded, the engine trains it on views of their clips; meanwhile its classes or
its nearest neighbours are tested; the weights are saved, and a page tells how it went.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vtk_cli.console import Console
from vtk_cli.engine.devices import resolve_precision
from vtk_cli.engine.distributed import join_world, shared_run
from vtk_cli.engine.loop import FitResult, fit
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.run_weights import BEST, EMA, LAST
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import ExitCode
from vtk_cli.files import write_text
from vtk_cli.models.best_weights import BestWeights
from vtk_cli.video_pretrain.looking import Looker
from vtk_cli.video_pretrain.objective import ClassifiedVideo, PretrainedVideo
from vtk_cli.video_pretrain.options import VideoOptions
from vtk_cli.video_pretrain.preparation import Training, open_data, prepare, test_views
from vtk_cli.video_pretrain.protocols import Bank, answers_of, by_neighbours
from vtk_cli.video_pretrain.report import Story, broken_csv, write_story
from vtk_cli.video_pretrain.scores import Answers
from vtk_cli.video_pretrain.trained import save_network

BAD_FILES = "bad_files.csv"
_MAY_CHANGE = {"device", "workers", "checkpoint-seconds", "decode-timeout", "in-memory"}
"""Options that may differ when a run goes on: the result does not depend on them."""


def train_video(options: VideoOptions, console: Console) -> ExitCode:
    """Train: the whole command, or its plan.

    Raises:
        UserError: options, videos, network and run folder do not go together; or too many videos are broken.
        JobError: the loss is not finite, or the disk is full; the last checkpoint stays.
        Preempted, KeyboardInterrupt: a signal came; the state is saved.
    """
    options.check()
    with join_world(options.device) as world:
        face = console if world.is_main else Console(quiet=True)
        training = prepare(options, open_data(options, face), world, face)
        if options.dry_run:
            world.on_main(lambda: show_plan(options, training, face))
            return ExitCode.DONE
        name = f"{options.data_name}-{options.network}"
        with shared_run(world, "video-pretrain run", name, options, face, may_change=_MAY_CHANGE) as run:
            keep_in_memory(options, training, face)
            best = _best(training, run.path / BEST)
            result = _fit(options, training, best, run, face)
            answers = _answers(options, training, result.model, face)
            world.on_main(lambda: _conclude(options, training, result, answers, run=run, console=face))
    return ExitCode.DONE


def keep_in_memory(options: VideoOptions, training: Training, console: Console) -> None:
    """Decode everything once, where the options ask for it."""
    if not options.is_in_memory:
        return
    for source in (training.data.train_source, training.data.val_source):
        if source is not None:
            source.keep_all(console)


def show_plan(options: VideoOptions, training: Training, console: Console) -> None:
    """Show what would be done; nothing is written."""
    weights = sum(weight.numel() for weight in training.backbone.parameters())
    updates = -(-training.batches.steps_per_epoch // training.plan.accumulate) * training.plan.epochs
    summary: dict[str, Any] = {
        "network": options.network,
        "weights": weights,
        "objective": options.objective if options.objective == "supervised" else options.method,
        "freqaug": options.freqaug,
        "temporal losses": ", ".join(options.time_losses) or "none",
        "videos": len(training.data.train.videos),
        "test videos": 0 if training.data.val is None else len(training.data.val.videos),
        "classes": len(training.data.train.classes),
        "clips": f"{options.sampling}, {options.img_size} pixels",
        "epochs": options.epochs,
        "updates": updates,
        "lr": max(group["lr"] for group in training.optimizer.param_groups) or options.lr,
        "precision": resolve_precision(training.plan.precision, training.world.device),
    }
    rows = [(name, f"{value:,}" if isinstance(value, int) else value) for name, value in summary.items()]
    where = options.out or "a new folder in runs/video-pretrain-run"
    console.table("Plan", ("", "value"), [*rows, ("would be written to", where)])
    console.emit(summary)


def _fit(options: VideoOptions, training: Training, best: BestWeights, run: RunFolder, console: Console) -> FitResult:
    can_test = training.data.val is not None and training.data.val.labelled
    knn_off = options.objective == "ssl" and not (options.knn_epochs and training.data.train.labelled)
    quiet = Console(quiet=True)
    return fit(
        training.model,
        training.objective,
        training.batches,
        training.optimizer,
        plan=training.plan,
        device=training.world.device,
        seed=options.seed,
        scheduler=training.scheduler,
        evaluate=None if not can_test or knn_off else lambda model: _measured(options, training, model, quiet),
        after_epoch=best,
        checkpoints=run.checkpoints,
        metrics=run.path / "metrics.jsonl",
        console=console,
        description=f"training {options.network}",
        world=training.world,
    )


def _measured(options: VideoOptions, training: Training, model: nn.Module, console: Console) -> Mapping[str, float]:
    """Top-1 of the classes, or of nearest neighbours."""
    found = _answers(options, training, model, console)
    if found is None:
        return {}
    scalars = found.scalars()
    return scalars if options.objective == "supervised" else {f"knn_{name}": value for name, value in scalars.items()}


def _answers(options: VideoOptions, training: Training, model: nn.Module, console: Console) -> Answers | None:
    """What the network says of the test videos; None where there is nothing to say or to compare with."""
    val, source = training.data.val, training.data.val_source
    if val is None or source is None or not val.labelled:
        return None
    looker, views = _looker(options, training, model), test_views(options)
    if isinstance(model, ClassifiedVideo):
        found = looker.look(source, views, console, title="testing")
        scores = found.scores
    else:
        train = training.data.train
        if not train.labelled:
            return None
        found = looker.look(source, views, console, title="testing")
        known = list(range(len(train.videos)))[: options.knn_clips]
        bank = looker.look(training.data.train_source, views, console, indices=known, title="features of the videos")
        kept = Bank(bank, train.labels, len(train.classes))
        scores = by_neighbours(found, kept, k=options.knn_k, temperature=options.knn_temperature)
    if scores is None:
        raise ValueError("the network has no classes")
    return answers_of(found, scores, val.labels)


def _looker(options: VideoOptions, training: Training, model: nn.Module) -> Looker:
    workers = 0 if options.workers is None and options.is_in_memory else worker_count(options.workers)
    if not isinstance(model, (ClassifiedVideo, PretrainedVideo)):
        raise TypeError(f"a {type(model).__name__} was not trained here")
    head = model.head if isinstance(model, ClassifiedVideo) else None
    return Looker(
        model.backbone, head, training.world.device, options.precision, workers, options.ensemble, training.world
    )


def _best(training: Training, path: Path) -> BestWeights:
    """Keeps the weights whose classes do best in validation; of nearest neighbours, those that do best there."""

    def save(where: Path, model: nn.Module, note: dict[str, str]) -> None:
        _save(training, where, model, note)

    measure = "top1" if isinstance(training.model, ClassifiedVideo) else "knn_top1"
    return BestWeights(path, measure, save)


def _save(training: Training, path: Path, model: nn.Module, note: Mapping[str, str]) -> None:
    if not isinstance(model, (ClassifiedVideo, PretrainedVideo)):
        raise TypeError(f"a {type(model).__name__} was not trained here")
    head = model.head if isinstance(model, ClassifiedVideo) else None
    save_network(path, training.config, model.backbone, head, training.data.train.classes, note=note)


def _conclude(
    options: VideoOptions,
    training: Training,
    result: FitResult,
    answers: Answers | None,
    *,
    run: RunFolder,
    console: Console,
) -> None:
    """Save the weights, write the page, tell the result."""
    note = {"epoch": str(options.epochs)}
    _save(training, run.path / LAST, result.model, note)
    if result.ema is not None:
        _save(training, run.path / EMA, result.ema, note)
    faults = training.batches.faults
    if faults:
        write_text(run.path / BAD_FILES, broken_csv(training.data.train, faults))
        console.warn(f"broken and replaced by others: {training.batches.told()}; all in {run.path / BAD_FILES}")
    story = Story(
        folder=run.path,
        title=f"{options.network} on {training.data.train.name}",
        answers=answers,
        answered_by="classes" if options.objective == "supervised" else f"{options.knn_k} nearest neighbours",
        classes=training.data.train.classes,
        history=result.history,
        options=options.as_config(),
        notes=training.notes,
    )
    page = write_story(story)
    summary: dict[str, Any] = {
        **({} if answers is None else answers.scalars()),
        "loss": result.metrics.get("loss"),
        "updates": result.steps,
        "broken videos": len(faults),
        "clips_per_second": result.images_per_second,
        "train_seconds": round(result.train_seconds, 3),
        "weights": str(run.path / LAST),
        "report": str(page),
        "folder": str(run.path),
    }
    run.finish(summary)
    console.table("What came out", ("", "value"), story.rows())
    console.text(f"Look at {page}; test the features: vtk video-pretrain eval {run.path} --protocol linear")
    console.emit(summary)
