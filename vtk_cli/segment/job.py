"""The story of `vtk segment run`: six stages from masks and clicks to a student (arXiv 2303.15062, Section 3.1).

The teacher learns the fully labelled images; at the clicks it makes pseudo labels; states from the middle of its
training make rough masks of the images whose masks are known, from which the MaskRefineNet learns to refine; refined
labels and full ones are merged; the student learns from all of them.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.distributed import World, join_world, shared_run_folder
from vtk_cli.engine.loop import FitResult
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.run_weights import BEST, LAST
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import make_folder, write_json
from vtk_cli.options import flag_name, option_fields
from vtk_cli.segment.labels.inputs import open_strong
from vtk_cli.segment.labels.sources import ScenesCounts, Sources, common_folder, label_files, open_sources
from vtk_cli.segment.options import SegmentOptions
from vtk_cli.segment.pseudo.labelling import PSEUDO, ROUGH, UNRESOLVED, point_settings, write_pseudo, write_rough
from vtk_cli.segment.pseudo.labels import read_pseudo_labels, read_unresolved, write_pseudo_labels
from vtk_cli.segment.pseudo.looking import Looker
from vtk_cli.segment.pseudo.merging import write_merged
from vtk_cli.segment.refine.checkpoint import read_refiner
from vtk_cli.segment.refine.stage import CHOSEN, refine_data, refine_settings, refined, train_refiner
from vtk_cli.segment.report import Story, write_report
from vtk_cli.segment.solov2.network import SOLOv2, parameter_count
from vtk_cli.segment.stages import STAGES, Stage, StageInputs, dependents, finish_stage, forget_stage, is_done
from vtk_cli.segment.trained import open_trained
from vtk_cli.segment.training.preparation import Training, prepare, starting_network
from vtk_cli.segment.training.schedules import Length, student_length, teacher_length
from vtk_cli.segment.training.teaching import CHECKPOINTS, METRICS, Measured, measured, snapshot, train

REFINED, MERGED, STARTED = "refined.json", "merged.json", "started.json"
_REFINING: tuple[Stage, ...] = ("rough", "refine")
_MAY_CHANGE = {flag_name(name) for name in option_fields(SegmentOptions)}
"""All options: what a stage depends on, its own record says."""
_TRAINING = ("augment", "batch_size", "optimizer", "weight_decay", "schedule", "clip_norm", "precision", "seed")
_NETWORK = ("recipe", "model", "weights", "reset_head", "size", "official_quirks")


@dataclass(frozen=True, eq=False)
class Job:
    """What all stages know.

    Args:
        options: of the job.
        sources: the images.
        folder: of the run; each stage has one in it.
        world: this process among the others.
        console: shows the progress.
    """

    options: SegmentOptions
    sources: Sources
    folder: Path
    world: World
    console: Console

    def of(self, stage: Stage) -> Path:
        """The folder of a stage."""
        return self.folder / stage

    def stages(self) -> tuple[Stage, ...]:
        """Those that the options ask for, in order."""
        wanted = STAGES[: STAGES.index(self.options.until) + 1]
        return wanted if self.options.refine else tuple(stage for stage in wanted if stage not in _REFINING)

    def inputs(self, stage: Stage) -> StageInputs:
        """What a stage is made from."""
        return StageInputs(self._files(stage), self._settings(stage))

    def looker(self, file: Path) -> Looker:
        """A network of this run, on the device."""
        options = self.options
        workers = 0 if options.workers is None and options.on_scenes else worker_count(options.workers)
        return open_trained(file).looker(self.world.device, options.precision, workers)

    def _files(self, stage: Stage) -> dict[str, Path]:
        labels = dict(label_files(self.options, self.sources))
        strong, weak = (dict([item]) for item in labels.items())
        teacher = {"the teacher": self.of("teacher") / LAST}
        states = {f"state {number} of the teacher": self.of("teacher") / snapshot(number) for number in (1, 2)}
        refiner = {"the MaskRefineNet": self.of("refine") / BEST} if self.options.refine else {}
        unresolved = {"unresolved clicks": self.of("pseudo") / UNRESOLVED} if self.options.ignore_unresolved else {}
        start = teacher if self.options.student_start == "teacher" else {}
        return {
            "teacher": strong,
            "pseudo": weak | teacher,
            "rough": strong | states,
            "refine": strong | {"rough masks": self.of("rough") / ROUGH},
            "merge": strong | weak | {"pseudo labels": self.of("pseudo") / PSEUDO} | refiner,
            "student": {"merged labels": self.of("merge") / MERGED} | unresolved | start,
        }[stage]

    def _settings(self, stage: Stage) -> dict[str, Any]:
        options = self.options
        training = {name: getattr(options, name) for name in (*_TRAINING, *_NETWORK)}
        clicks = {"points": options.point_mode, "skip_bad": options.skip_bad}
        refining = {"refiner": options.refiner, "refine_steps": options.refine_steps}
        known: dict[Stage, dict[str, Any]] = {
            "teacher": training
            | {name: getattr(options, name) for name in ("teacher_steps", "teacher_lr", "teacher_warmup", "sigma")}
            | {"rough_at": list(options.rough_at)},
            "pseudo": clicks
            | {"point_inside": options.point_inside, "precision": options.precision}
            | {name: getattr(options, name) for name in ("neighbours", "pseudo_nms", "most_objects", "seed")},
            "rough": {"precision": options.precision},
            "refine": refining
            | {name: getattr(options, name) for name in ("seed", "precision", "official_quirks", "weights")},
            "merge": clicks | {"refine": options.refine, "seed": options.seed},
            "student": training
            | {
                name: getattr(options, name)
                for name in ("student_steps", "student_lr", "student_warmup", "student_start", "ignore_unresolved")
            },
        }
        return known[stage]


def run_stages(options: SegmentOptions, console: Console, scenes: ScenesCounts | None = None) -> ExitCode:
    """All stages that the options ask for: the whole command, or its plan."""
    with join_world(options.device) as world:
        face = console if world.is_main else Console(quiet=True)
        sources = open_sources(options, face, scenes)
        if options.dry_run:
            _show_plan(options, sources, face)
            return ExitCode.DONE
        with shared_run_folder(
            world,
            lambda: RunFolder.open(
                "segment run",
                Path(options.strong).stem,
                config=options.as_config(),
                out=options.out,
                console=face,
                seed=options.seed,
                device=describe_device(world.device),
                may_change=_MAY_CHANGE if options.out else (),
            ),
        ) as run:
            job = Job(options, sources, run.path, world, face)
            if options.redo is not None:
                redone = options.redo
                world.on_main(lambda: forget(job.folder, (redone, *dependents(redone))))
            for stage in job.stages():
                make(job, stage)
            world.on_main(lambda: _conclude(job, run))
    return ExitCode.DONE


def forget(folder: Path, stages: Sequence[Stage]) -> None:
    """Take back that stages are done or begun; what they wrote stays until it is written anew."""
    for stage in stages:
        forget_stage(folder / stage)
        shutil.rmtree(folder / stage / CHECKPOINTS, ignore_errors=True)
        for name in (STARTED, METRICS, CHOSEN):
            (folder / stage / name).unlink(missing_ok=True)


def make(job: Job, stage: Stage) -> None:
    """Make a stage, or go on with it, unless it is done.

    Raises:
        UserError: it was begun or made from other inputs; the message names the stage to redo.
    """
    folder, inputs = job.of(stage), job.inputs(stage)
    if job.world.on_main(lambda: is_done(folder, stage, inputs)):
        job.console.note(f"{stage}: done before")
        return
    job.world.on_main(lambda: _begin(folder, stage, inputs))
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
    looker, settings = job.looker(job.of("teacher") / LAST), point_settings(job.options)
    job.world.on_main(lambda: _nothing(write_pseudo(looker, job.sources.weak, settings, folder, job.console)))
    return [PSEUDO, UNRESOLVED]


def make_rough(job: Job, folder: Path) -> list[str]:
    """Masks of two states of the teacher of the fully labelled images."""
    lookers = [job.looker(job.of("teacher") / snapshot(number)) for number in (1, 2)]
    job.world.on_main(lambda: _nothing(write_rough(lookers, job.sources.strong, folder, job.console)))
    return [ROUGH]


def make_refine(job: Job, folder: Path) -> list[str]:
    """Train the MaskRefineNet on rough masks and true ones."""
    data = refine_data(job.sources.strong, job.of("rough") / ROUGH, job.options.seed)
    train_refiner(job.options, job.sources.strong, data, folder, world=job.world, console=job.console)
    return [BEST, CHOSEN, METRICS]


def make_merge(job: Job, folder: Path) -> list[str]:
    """Refine the pseudo labels, and join them with the masks of the fully labelled images."""
    return job.world.on_main(lambda: _merge(job, folder))


def make_student(job: Job, folder: Path) -> list[str]:
    """Train the student on all images."""
    options, start = job.options, None
    if options.student_start == "teacher":
        start = job.of("teacher") / LAST
        job.console.note("the student starts from the teacher's weights, not as published, which takes far longer")
    training = prepare(
        options,
        merged_images(job.of("merge"), job.console),
        "student",
        student_length(options.student_steps),
        world=job.world,
        console=job.console,
        start=start,
        lost=_lost_clicks(job) if options.ignore_unresolved else None,
    )
    _fit(job, training, folder)
    return [LAST, METRICS]


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


def _begin(folder: Path, stage: Stage, inputs: StageInputs) -> None:
    """Write down what a stage is made from before anything else: one that was stopped goes on with the same alone."""
    make_folder(folder)
    keys, started = inputs.keys(), folder / STARTED
    before = _read(started) if started.exists() else keys
    changed = sorted(name for name in keys.keys() | before.keys() if keys.get(name) != before.get(name))
    if changed and (folder / CHECKPOINTS).exists():
        what = f"stage {stage!r} was begun with other inputs ({', '.join(changed)} changed)"
        raise UserError(what, str(folder), f"begin it anew with --redo {stage}, or choose another --out")
    forget_stage(folder)
    write_json(started, keys)


def _merge(job: Job, folder: Path) -> list[str]:
    sources = job.sources
    labels = list(read_pseudo_labels(job.of("pseudo") / PSEUDO, sources.classes))
    outputs = [MERGED, "merge.json"]
    if job.options.refine:
        saved = read_refiner(job.of("refine") / BEST)
        made = refined(saved, sources.weak, labels, job.world.device, job.console)
        write_pseudo_labels(folder / REFINED, made, sources.weak, common_folder(sources.weak.images))
        labels = list(read_pseudo_labels(folder / REFINED, sources.classes))
        outputs.append(REFINED)
    merged = write_merged(folder / MERGED, sources.strong, sources.weak, labels)
    counts = {"strong": merged.strong, "pseudo": merged.pseudo, "count": merged.images}
    write_json(folder / "merge.json", {"images": str(merged.images_folder), **counts})
    job.console.note(f"merged: {merged.images:,} images, {merged.strong:,} masks, {merged.pseudo:,} pseudo masks")
    return outputs


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


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _nothing(result: object) -> None:
    """What a stage returns stays in the process that made it."""


def _conclude(job: Job, run: RunFolder) -> None:
    """Tell what there is now; write the page and the summary."""
    found = _measured(job) if "student" in job.stages() and job.sources.val is not None else None
    story = Story(job.folder, job.sources, found, job.options.as_config())
    page = write_report(story)
    summary = {**story.summary(), "folder": str(job.folder), "report": str(page), "stages": list(job.stages())}
    run.finish(summary)
    job.console.table("What came out", ("", "value"), story.rows())
    job.console.text(f"Look at {page}; labels: vtk segment preview {job.folder}")
    job.console.emit(summary)


def _measured(job: Job) -> Measured | None:
    if job.sources.val is None:
        return None
    looker = job.looker(job.of("student") / LAST)
    return measured(looker, job.sources.val, teacher=False, console=job.console)


def _show_plan(options: SegmentOptions, sources: Sources, console: Console) -> None:
    """What `--dry-run` says; nothing is written."""
    networks: list[SOLOv2] = [
        starting_network(_without_weights(options), sources.strong, role)[0] for role in ("teacher", "student")
    ]
    length = teacher_length(
        len(sources.strong), len(sources.weak), options.batch_size, options.teacher_steps, options.snapshots
    )
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
        ("stages", " ".join(stage for stage in STAGES if options.refine or stage not in _REFINING)),
        ("updates", f"{length.updates:,} of the teacher, {options.student_steps:,} of the student"),
        ("refinement", f"{refine_settings(options).steps:,} updates" if options.refine else "none"),
    ]
    console.table("Plan", ("", "value"), rows)
    console.emit({name: str(value) for name, value in rows})


def _without_weights(options: SegmentOptions) -> SegmentOptions:
    return replace(options, weights="none", reset_head=False)
