"""The story of `vtk video-pretrain run`, top to bottom.

Videos are found, the network is built or loaded, the engine trains it on views of their clips; meanwhile its classes or
its nearest neighbours are tested; the weights are saved, and a page tells how it went.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from vtk_cli.console import Console
from vtk_cli.engine.devices import resolve_precision
from vtk_cli.engine.loop import FitResult, fit
from vtk_cli.engine.processes.distributed import join_world, shared_run
from vtk_cli.engine.processes.process_plan import process_plan
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.run_weights import BEST, EMA, LAST
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import ExitCode, Preempted, UserError
from vtk_cli.files import write_text
from vtk_cli.models.best_weights import BestWeights
from vtk_cli.video_pretrain.looking import Looker
from vtk_cli.video_pretrain.objective import ClassifiedVideo, PretrainedVideo
from vtk_cli.video_pretrain.options import VideoOptions
from vtk_cli.video_pretrain.preparation import Training, open_data, prepare, test_views
from vtk_cli.video_pretrain.protocols import Bank, answers_of, by_neighbours
from vtk_cli.video_pretrain.report import Story, broken_csv, read_broken, write_story
from vtk_cli.video_pretrain.samples import TestViews
from vtk_cli.video_pretrain.scores import Answers
from vtk_cli.video_pretrain.trained import save_network

BAD_FILES = "bad_files.csv"
_MAY_CHANGE = {
    "device",
    "workers",
    "checkpoint-seconds",
    "skip-nonfinite",
    "decode-timeout",
    "in-memory",
    "allow-missing",
    "parallel",
}
"""Options that may differ when a run goes on: the result does not depend on them."""


@dataclass(frozen=True, eq=False)
class Tested:
    """What came out of a test.

    Args:
        answers: to the test videos; None where there is nothing to say or to compare with.
        missing: place -> why a test video could not be decoded.
    """

    answers: Answers | None = None
    missing: Mapping[int, str] = field(default_factory=dict)


def train_video(options: VideoOptions, console: Console) -> ExitCode:
    """Train: the whole command, or its plan.

    Raises:
        UserError: options, videos, network and run folder do not go together; too many videos are broken; or, once
            all is saved, test videos are and the options do not allow it.
        JobError: the loss is not finite, or the disk is full; the last checkpoint stays.
        Preempted, KeyboardInterrupt: a signal came; the state is saved.
    """
    options.check()
    with join_world(options.device, options.parallel) as world:
        face = console if world.is_main else Console(quiet=True)
        training = prepare(options, open_data(options, face), world, face)
        if options.dry_run:
            world.on_main(lambda: show_plan(options, training, face))
            return ExitCode.DONE
        name = f"{options.data_name}-{options.network}"
        opened = shared_run(world, "video-pretrain run", name, options, face, may_change=_MAY_CHANGE)
        with opened as run, ExitStack() as stack:
            for source in (training.data.train_source, training.data.val_source):
                if source is not None:
                    stack.callback(source.close)
            keep_in_memory(options, training, face)
            best = _best(training, run.path / BEST)
            with _faults_kept(training, run.path / BAD_FILES):
                result = _fit(options, training, best, run, face)
            tested = _tested(options, training, result.model, test_views(options), face)
            training.batches.faults.update(_joined(world.gather(training.batches.faults)))
            world.on_main(lambda: _conclude(options, training, result, tested, run=run, console=face))
        if tested.missing and not options.allow_missing:
            what = f"the training is done and saved, but {_missing_told(training, tested)}"
            raise UserError(what, str(run.path), "mend the list, or leave them out with --allow-missing")
    return ExitCode.DONE


def keep_in_memory(options: VideoOptions, training: Training, console: Console) -> None:
    """Decode everything once, where the options ask for it."""
    if not options.is_in_memory:
        return
    for source in (training.data.train_source, training.data.val_source):
        if source is not None:
            source.keep_all(console)


@contextmanager
def _faults_kept(training: Training, path: Path) -> Iterator[None]:
    """Videos that were found to be broken are remembered where the training is interrupted, and when it goes on."""
    counted, world = training.batches, training.world
    if path.is_file():
        counted.faults.update(read_broken(path.read_text(encoding="utf-8"), training.data.train))
    try:
        yield
    except (Preempted, KeyboardInterrupt) as stop:
        # The first signal stops all processes together; a second Ctrl-C may reach this one alone.
        found = world.gather(counted.faults) if isinstance(stop, Preempted) else [counted.faults]
        faults = _joined(found)
        if faults and world.is_main:
            write_text(path, broken_csv((training.data.train, faults)))
        raise


def _joined(parts: Iterable[Mapping[int, str]]) -> dict[int, str]:
    return {index: why for part in parts for index, why in part.items()}


def _missing_told(training: Training, tested: Tested) -> str:
    val, (first, why) = training.data.val, next(iter(tested.missing.items()))
    if val is None:
        raise ValueError("there are no test videos")
    first_told = f"first {val.videos[first].path}: {why}"
    return f"{len(tested.missing)} of {len(val.videos)} test videos cannot be decoded ({first_told})"


def show_plan(options: VideoOptions, training: Training, console: Console) -> None:
    """Show what would be done; nothing is written."""
    weights = sum(weight.numel() for weight in training.backbone.parameters())
    updates = -(-training.batches.steps_per_epoch // training.plan.accumulate) * training.plan.epochs
    shares = process_plan(options, training.world, options.batch_size, "videos")
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
        "lr": training.scheduler.lr,
        "precision": resolve_precision(training.plan.precision, training.world.device),
        **{name.replace("_", " "): value for name, value in shares.items()},
    }
    rows = [(name, f"{value:,}" if isinstance(value, int) else value) for name, value in summary.items()]
    where = options.out or "a new folder in runs/video-pretrain-run"
    console.table("Plan", ("", "value"), [*rows, ("would be written to", where)])
    console.emit(summary)


def _fit(options: VideoOptions, training: Training, best: BestWeights, run: RunFolder, console: Console) -> FitResult:
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
        evaluate=None if not _can_test(options, training) else lambda model: _measured(options, training, model, quiet),
        after_epoch=best,
        checkpoints=run.checkpoints,
        metrics=run.path / "metrics.jsonl",
        console=console,
        description=f"training {options.network}",
        world=training.world,
    )


def _measured(options: VideoOptions, training: Training, model: nn.Module, console: Console) -> Mapping[str, float]:
    """Top-1 of the classes, or of nearest neighbours, by one view of each video."""
    one = replace(test_views(options), clips=1, crops=1)
    found = _tested(options, training, model, one, console).answers
    scalars = {} if found is None else found.scalars()
    return scalars if options.objective == "supervised" else {f"knn_{name}": value for name, value in scalars.items()}


def _can_test(options: VideoOptions, training: Training) -> bool:
    """Whether there are test videos with labels, and classes or labelled neighbours to name theirs."""
    data = training.data
    if data.val is None or not data.val.labelled:
        return False
    return options.objective == "supervised" or bool(options.knn_epochs and data.train.labelled)


def _tested(options: VideoOptions, training: Training, model: nn.Module, views: TestViews, console: Console) -> Tested:
    """What the network, or the nearest neighbours of its features, say of the test videos."""
    val, source, train = training.data.val, training.data.val_source, training.data.train
    if val is None or source is None or not _can_test(options, training):
        return Tested()
    looker = _looker(options, training, model)
    found = looker.look(source, views, console, title="testing")
    scores: NDArray[Any] | None = found.scores
    if not isinstance(model, ClassifiedVideo):
        known = spread(len(train.videos), options.knn_clips)
        bank = looker.look(training.data.train_source, views, console, indices=known, title="features of the videos")
        kept = Bank(bank, train.labels, len(train.classes))
        scores = by_neighbours(found, kept, k=options.knn_k, temperature=options.knn_temperature)
    if scores is None:
        raise ValueError("the network has no classes")
    return Tested(answers_of(found, scores, val.labels), found.missing)


def spread(count: int, most: int) -> list[int]:
    """At most `most` of 0 ... count - 1, evenly: the list of a folder has its classes one after another."""
    taken = min(count, most)
    return [place * count // taken for place in range(taken)]


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
    tested: Tested,
    *,
    run: RunFolder,
    console: Console,
) -> None:
    """Save the weights, write the page, tell the result."""
    note = {"epoch": str(options.epochs)}
    _save(training, run.path / LAST, result.model, note)
    if result.ema is not None:
        _save(training, run.path / EMA, result.ema, note)
    faults, val = training.batches.faults, training.data.val
    if faults or tested.missing:
        missing = () if val is None else ((val, tested.missing),)
        write_text(run.path / BAD_FILES, broken_csv((training.data.train, faults), *missing))
    if faults:
        console.warn(f"broken and replaced by others: {training.batches.told()}; all in {run.path / BAD_FILES}")
    if tested.missing:
        console.warn(f"{_missing_told(training, tested)}; all in {run.path / BAD_FILES}")
    story = Story(
        folder=run.path,
        title=f"{options.network} on {training.data.train.name}",
        answers=tested.answers,
        answered_by="classes" if options.objective == "supervised" else f"{options.knn_k} nearest neighbours",
        classes=training.data.train.classes,
        history=result.history,
        options=options.as_config(),
        notes=training.notes,
    )
    page = write_story(story)
    summary: dict[str, Any] = {
        **({} if tested.answers is None else tested.answers.scalars()),
        "loss": result.metrics.get("loss"),
        "updates": result.steps,
        "broken videos": len(faults),
        "missing test videos": len(tested.missing),
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
