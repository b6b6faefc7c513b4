"""The story of `vtk segment run`: six stages from masks and clicks to a student (arXiv 2303.15062, Section 3.1).

The teacher learns the fully labelled images; at the clicks it makes pseudo labels; states from the middle of its
training make rough masks of the images whose masks are known, from which the MaskRefineNet learns to refine; refined
labels and full ones are merged; the student learns from all of them. Further rounds (`rounds.py`) do so again.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.engine.loop import FitResult
from vtk_cli.engine.processes.distributed import World, join_world, shared_run
from vtk_cli.engine.processes.process_plan import process_plan
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.run_weights import BEST, EMA, LAST
from vtk_cli.errors import ExitCode
from vtk_cli.files import make_folder, write_json, write_text
from vtk_cli.options import RUN_CONFIG, flag_name, option_fields
from vtk_cli.segment.context import MERGED, REFINING, Job
from vtk_cli.segment.labels.inputs import open_strong
from vtk_cli.segment.labels.sources import ScenesCounts, Sources, open_sources
from vtk_cli.segment.options import SegmentOptions
from vtk_cli.segment.pseudo.labelling import PSEUDO, ROUGH, UNRESOLVED, point_settings, write_pseudo, write_rough
from vtk_cli.segment.pseudo.labels import read_pseudo_labels, read_unresolved
from vtk_cli.segment.pseudo.merging import write_merged
from vtk_cli.segment.pseudo.parts import PARTS
from vtk_cli.segment.refine.checkpoint import read_refiner
from vtk_cli.segment.refine.stage import CHOSEN, REFINED, refine_data, refine_settings, train_refiner, write_refined
from vtk_cli.segment.report import Story, write_report
from vtk_cli.segment.rounds import Round, rounds_of, snapshot
from vtk_cli.segment.solov2.network import SOLOv2, parameter_count
from vtk_cli.segment.stages import (
    STAGES,
    ChangedInputs,
    Stage,
    StageInputs,
    dependents,
    finish_stage,
    forget_stage,
    is_done,
)
from vtk_cli.segment.training.preparation import Training, prepare, starting_network
from vtk_cli.segment.training.schedules import Length, teacher_length
from vtk_cli.segment.training.teaching import CHECKPOINTS, METRICS, Measured, measured, train

STARTED = "started.json"
_MAY_CHANGE = {flag_name(name) for name in option_fields(SegmentOptions)}
"""All options: what a stage depends on, its own record says."""


def run_stages(options: SegmentOptions, console: Console, scenes: ScenesCounts | None = None) -> ExitCode:
    """All stages that the options ask for: the whole command, or its plan."""
    with join_world(options.device, options.parallel) as world:
        face = console if world.is_main else Console(quiet=True)
        sources = open_sources(options, face, scenes)
        if options.dry_run:
            _show_plan(options, sources, world, face)
            return ExitCode.DONE
        before = _config_text(options.out)
        name = Path(options.strong).stem
        with shared_run(world, "segment run", name, options, face, may_change=_MAY_CHANGE) as run:
            rounds = rounds_of(run.path, options)
            if options.redo is not None:
                redone = options.redo
                world.on_main(lambda: forget(rounds[0], redone, rounds[1:]))
            jobs = [Job(options, sources, each, world, face) for each in rounds]
            try:
                for job in jobs if options.until == STAGES[-1] else jobs[:1]:
                    for stage in job.stages():
                        make(job, stage)
            except ChangedInputs:
                if world.is_main and before is not None:  # the run is still that of the options before
                    write_text(run.path / RUN_CONFIG, before)
                raise
            _conclude(jobs, run)
    return ExitCode.DONE


def forget(here: Round, stage: Stage, later: Sequence[Round]) -> None:
    """Take back that a stage is done or begun, and those that depend on it; what they wrote stays until written anew.

    Args:
        here: the round of the stage.
        stage: the first that is forgotten.
        later: the rounds after it, which are forgotten altogether.
    """
    for one in (stage, *dependents(stage)):
        _forget(here.folder / one)
    for each in later:
        for one in each.stages:
            _forget(each.folder / one)


def make(job: Job, stage: Stage) -> None:
    """Make a stage, or go on with it, unless it is done.

    Raises:
        ChangedInputs: it was begun or made from other inputs; the message names the stage to redo.
    """
    folder, inputs = job.of(stage), job.inputs(stage)
    redo = _how_to_redo(job, stage)
    if job.world.on_main(lambda: is_done(folder, stage, inputs, redo)):
        job.console.note(f"{job.round.title(stage)}: done before")
        return
    job.world.on_main(lambda: _begin(folder, stage, inputs, redo))
    outputs = _MAKERS[stage](job, folder)
    job.world.on_main(lambda: finish_stage(folder, inputs, outputs))


def make_teacher(job: Job, folder: Path) -> list[str]:
    """Train the teacher on the fully labelled images."""
    strong, length = job.sources.strong, _teacher_length(job)
    training = prepare(job.options, strong, "teacher", length, world=job.world, console=job.console)
    _fit(job, training, folder)
    return [LAST, METRICS, *(snapshot(number) for number, _ in enumerate(training.snapshots, 1))]


def make_pseudo(job: Job, folder: Path) -> list[str]:
    """The teacher's masks at the clicks."""
    looker, settings = job.looker(job.round.labeller), point_settings(job.options)
    write_pseudo(looker, job.sources.weak, settings, folder, world=job.world, console=job.console)
    return [PSEUDO, UNRESOLVED]


def make_rough(job: Job, folder: Path) -> list[str]:
    """Masks of two states of the teacher of the fully labelled images."""
    lookers = [job.looker(state) for state in job.round.states]
    write_rough(lookers, job.sources.strong, folder, world=job.world, console=job.console)
    return [ROUGH]


def make_refine(job: Job, folder: Path) -> list[str]:
    """Train the MaskRefineNet on rough masks and true ones."""
    data = refine_data(job.sources.strong, job.of("rough") / ROUGH, job.options.seed)
    train_refiner(job.options, job.sources.strong, data, folder, world=job.world, console=job.console)
    return [BEST, CHOSEN, METRICS]


def make_merge(job: Job, folder: Path) -> list[str]:
    """Refine the pseudo labels, and join them with the masks of the fully labelled images."""
    rough, refined = job.of("pseudo") / PSEUDO, folder / REFINED
    if job.options.refine:
        labels = read_pseudo_labels(rough, job.sources.classes)
        saved = read_refiner(job.round.refiner)
        write_refined(saved, job.sources.weak, labels, folder, world=job.world, console=job.console)
    job.world.on_main(lambda: _merge(job, folder, refined if job.options.refine else rough))
    return [MERGED, "merge.json", *([REFINED] if job.options.refine else [])]


def make_student(job: Job, folder: Path) -> list[str]:
    """Train the student on all images."""
    options = job.options
    if options.student_start == "teacher" and not job.round.averaged:
        job.console.note("the student starts from the teacher's weights, not as published, which takes far longer")
    training = prepare(
        options,
        merged_images(job.of("merge"), job.console),
        "student",
        job.student_length,
        world=job.world,
        console=job.console,
        start=job.student_start,
        lost=_lost_clicks(job) if options.ignore_unresolved else None,
        ema_decay=options.ema_decay if job.round.averaged else None,
    )
    _fit(job, training, folder)
    states = [snapshot(number) for number, _ in enumerate(training.snapshots, 1)]
    return [LAST, METRICS, *states, *([EMA] if job.round.averaged else [])]


def merged_images(folder: Path, console: Console) -> DetectionSet:
    """What the stage `merge` wrote."""
    images = Path(_read(folder / "merge.json")["images"])
    return open_strong(folder / MERGED, images=images, console=console)


_MAKERS = {
    "teacher": make_teacher,
    "pseudo": make_pseudo,
    "rough": make_rough,
    "refine": make_refine,
    "merge": make_merge,
    "student": make_student,
}


def _forget(folder: Path) -> None:
    """Of one stage: that it is done, and what a training would go on from or compare with."""
    forget_stage(folder)
    for name in (CHECKPOINTS, PARTS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (STARTED, METRICS, CHOSEN, BEST):
        (folder / name).unlink(missing_ok=True)


def _how_to_redo(job: Job, stage: Stage) -> str:
    """What a user types to make a stage anew."""
    if not job.round.name:
        return f"--redo {stage}"
    return f"vtk segment {stage} RUN --round {job.round.name} --redo"


def _begin(folder: Path, stage: Stage, inputs: StageInputs, redo: str) -> None:
    """Write down what a stage is made from before anything else: one that was stopped goes on with the same alone."""
    make_folder(folder)
    keys, started = inputs.keys(), folder / STARTED
    before = _read(started) if started.exists() else keys
    changed = sorted(name for name in keys.keys() | before.keys() if keys.get(name) != before.get(name))
    if changed and any((folder / name).exists() for name in (CHECKPOINTS, PARTS)):
        what = f"stage {stage!r} was begun with other inputs ({', '.join(changed)} changed)"
        raise ChangedInputs(what, str(folder), f"begin it anew with {redo}, or choose another --out")
    if changed:
        _forget(folder)
    forget_stage(folder)
    write_json(started, keys)


def _merge(job: Job, folder: Path, labels: Path) -> None:
    sources = job.sources
    merged = write_merged(folder / MERGED, sources.strong, sources.weak, read_pseudo_labels(labels, sources.classes))
    counts = {"strong": merged.strong, "pseudo": merged.pseudo, "count": merged.images}
    write_json(folder / "merge.json", {"images": str(merged.images_folder), **counts})
    job.console.note(f"merged: {merged.images:,} images, {merged.strong:,} masks, {merged.pseudo:,} pseudo masks")


def _fit(job: Job, training: Training, folder: Path) -> FitResult:
    return train(training, folder, job.options, job.sources.classes, val=job.sources.val, console=job.console)


def _teacher_length(job: Job) -> Length:
    options, sources = job.options, job.sources
    return teacher_length(
        len(sources.strong), len(sources.weak), options.batch_size, options.teacher_steps, options.snapshots
    )


def _lost_clicks(job: Job) -> Mapping[int, Tensor]:
    places: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for click in read_unresolved(job.of("pseudo") / UNRESOLVED, job.sources.classes):
        places[click.image_id].append(click.point)
    return {image: torch.tensor(points, dtype=torch.float64) for image, points in places.items()}


def _config_text(folder: Path | None) -> str | None:
    """The options that a folder was made with before, as they stand there."""
    config = None if folder is None else folder / RUN_CONFIG
    return config.read_text(encoding="utf-8") if config is not None and config.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _conclude(jobs: Sequence[Job], run: RunFolder) -> None:
    """Measure and tell what there is now; write the page and the summary."""
    complete = "student" in jobs[0].stages()
    job = jobs[-1] if complete else jobs[0]
    rounds = tuple(one.round for one in (jobs if complete else jobs[:1]))
    found = _measured(job) if complete else None
    story = Story(run.path, rounds, job.sources, found, job.options.as_config())
    job.world.on_main(lambda: _tell(story, jobs[0].stages(), run, job.console))


def _tell(story: Story, stages: Sequence[Stage], run: RunFolder, console: Console) -> None:
    page = write_report(story)
    summary = {**story.summary(), "folder": str(run.path), "report": str(page), "stages": list(stages)}
    run.finish(summary)
    console.table("What came out", ("", "value"), story.rows())
    console.text(f"Look at {page}; labels: vtk segment preview {run.path}")
    console.emit(summary)


def _measured(job: Job) -> Measured | None:
    if job.sources.val is None:
        return None
    looker = job.looker(job.round.student)
    return measured(looker, job.sources.val, teacher=False, world=job.world, console=job.console)


def _show_plan(options: SegmentOptions, sources: Sources, world: World, console: Console) -> None:
    """What `--dry-run` says; nothing is written."""
    networks: list[SOLOv2] = [
        starting_network(_without_weights(options), sources.strong, role)[0] for role in ("teacher", "student")
    ]
    length = teacher_length(
        len(sources.strong), len(sources.weak), options.batch_size, options.teacher_steps, options.snapshots
    )
    shares = process_plan(options, world, options.batch_size)
    rows: list[tuple[str, object]] = [
        ("network", networks[0].config.name),
        (
            "weights",
            f"{parameter_count(networks[0]):,} of the teacher, {parameter_count(networks[1]):,} of the student",
        ),
        ("classes", len(sources.classes.names)),
        ("fully labelled images", f"{len(sources.strong):,} with {sources.strong.objects:,} masks"),
        ("clicked images", f"{len(sources.weak):,} with {sources.weak.clicks:,} clicks"),
        ("validation images", "none" if sources.val is None else f"{len(sources.val):,}"),
        ("stages", " ".join(stage for stage in STAGES if options.refine or stage not in REFINING)),
        ("updates", f"{length.updates:,} of the teacher, {options.student_steps:,} of the student"),
        ("rounds", f"{options.rounds}" + (f", and {options.ema_rounds} averaged" if options.ema_rounds else "")),
        ("refinement", f"{refine_settings(options).steps:,} updates" if options.refine else "none"),
        *((name.replace("_", " "), value) for name, value in shares.items()),
    ]
    console.table("Plan", ("", "value"), rows)
    console.emit({name: str(value) for name, value in rows})


def _without_weights(options: SegmentOptions) -> SegmentOptions:
    return replace(options, weights="none", reset_head=False)
