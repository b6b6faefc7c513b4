"""`vtk proof segment`: with masks on a tenth of the images, clicks on the others are worth more than more training.

In direction the main table of PointWSSIS (arXiv 2303.15062, Section 4): a small SOLOv2 learns scenes of digits.
After the teacher all arms take the same number of further steps from its weights: on the fully labelled images alone,
on these and pseudo labels from clicks, and on these and refined pseudo labels.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from vtk_cli.console import Console
from vtk_cli.data.coco_files import read_coco_file
from vtk_cli.data.detection.outlines import RunLengths, outline_of, run_lengths_of
from vtk_cli.engine.pieces.result_folders import ResultFolders
from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.run_weights import LAST
from vtk_cli.files import cache_folder, content_key, make_folder
from vtk_cli.reports.curves import Points, draw_points
from vtk_cli.reports.evidence import Claim, Proof
from vtk_cli.reports.page import Table
from vtk_cli.segment.context import Job
from vtk_cli.segment.job import make
from vtk_cli.segment.labels.budget import Contents, Timings, hours_of
from vtk_cli.segment.labels.sources import ScenesCounts, Sources, open_sources
from vtk_cli.segment.options import SegmentOptions
from vtk_cli.segment.pseudo.labelling import PSEUDO, UNRESOLVED
from vtk_cli.segment.pseudo.labels import mask_iou, read_pseudo_labels, read_unresolved
from vtk_cli.segment.pseudo.preview import Preview, write_preview
from vtk_cli.segment.recipes import RECIPES
from vtk_cli.segment.refine.stage import REFINED
from vtk_cli.segment.rounds import first_round
from vtk_cli.segment.stages import Stage
from vtk_cli.segment.training.preparation import prepare
from vtk_cli.segment.training.schedules import student_length
from vtk_cli.segment.training.teaching import measured, train

_VERSION = 1
"""Raised when what is measured changes, so that kept results are not taken for it."""
FULL_ONLY, POINTS, REFINED_POINTS = "full-only", "points", "points + refine"
ARMS = (FULL_ONLY, POINTS, REFINED_POINTS)
LEAST_GAIN = 0.02
_TO_TEACHER: tuple[Stage, ...] = ("teacher", "pseudo")


@dataclass(frozen=True)
class Scale:
    """How much is trained: updates of the teacher, of every arm and of the refinement; and the scenes."""

    teacher: int
    student: int
    refine: int
    scenes: ScenesCounts


FULL = Scale(500, 800, 150, ScenesCounts())
SMALLEST = Scale(10, 4, 4, ScenesCounts(24, 6, 0.25))


@dataclass(frozen=True)
class Result:
    """What a seed came to.

    Args:
        ap, ap50: of masks on the validation scenes by arm, the teacher among them, in [0, 1].
        rough, refined: mean IoU of the pseudo masks with the true ones; a click without a mask counts 0.
        rough_recall, refined_recall: the share of clicks whose mask has an IoU of at least 1/2.
        clicks, unresolved: on the clicked images.
        images: fully labelled, and clicked.
        hours: of an annotator for these labels, and for masks on all images.
    """

    ap: dict[str, float]
    ap50: dict[str, float]
    rough: float
    refined: float
    rough_recall: float
    refined_recall: float
    clicks: int
    unresolved: int
    images: tuple[int, int]
    hours: tuple[float, float]

    def gain(self, arm: str) -> float:
        """What an arm has above the fully labelled images alone."""
        return self.ap[arm] - self.ap[FULL_ONLY]


def prove(seeds: Sequence[int], *, smallest: bool, plots: Path, device: torch.device, console: Console) -> Proof:
    """Train every arm from every seed; the machinery alone if `smallest`."""
    scale = SMALLEST if smallest else FULL
    seeds = seeds[:1] if smallest else seeds
    results = work(seeds, smallest=smallest, device=device, console=console)
    strong, weak = results[0].images
    make_folder(plots)
    return Proof(
        name="segment",
        title="Masks on a tenth of the images and clicks on the others beat the masks alone (arXiv 2303.15062)",
        setting=(
            f"`solov2-micro`: a teacher of {scale.teacher} updates on {strong} scenes of digits with masks, then"
            f" {scale.student} further updates of every arm from the teacher's weights, at the same learning rate, 8"
            f" scenes each; {weak} clicked scenes (clicks on centroids), {scale.scenes.val} others to measure on; seeds"
            f" {', '.join(map(str, seeds))}. The published student starts afresh, which takes far longer than this."
        ),
        tables=[_ap_table(results, seeds), _iou_table(results, seeds)],
        claims=_claims(results),
        not_claimed=(
            "That adaptive level selection is what helps: these digits differ little in size.",
            "That clicks off the centroid do as well: a small teacher loses more with them.",
            "That the gain carries over to photographs: no ImageNet weights and no photographs are used.",
        ),
        pictures=[_draw(results, plots), _look(seeds[0], scale, plots, device)],
        data={"results": [asdict(one) for one in results]},
    )


def work(
    seeds: Sequence[int], *, smallest: bool, device: torch.device, console: Console, share: Share = WHOLE
) -> list[Result]:
    """What every seed came to, those of `share` first: a seed, whose arms all begin at one teacher, is a piece."""
    scale = SMALLEST if smallest else FULL
    found = _folders().through(
        seeds[:1] if smallest else seeds,
        key=lambda seed: _key(seed, scale, device),
        compute=lambda seed, folder: asdict(_trained(seed, scale, folder, device, console)),
        share=share,
        name=lambda seed: f"seed {seed}",
    )
    return [Result(**{**one, "images": tuple(one["images"]), "hours": tuple(one["hours"])}) for one in found]


def options_of(seed: int, scale: Scale) -> SegmentOptions:
    """The command line that trains the arm with refinement."""
    values: dict[str, Any] = {
        **RECIPES["digits"],
        "points": "centroid",
        "teacher_steps": scale.teacher,
        "student_steps": scale.student,
        "refine_steps": scale.refine,
        "workers": 0,
        "seed": seed,
    }
    return SegmentOptions(**values)


def _folders() -> ResultFolders:
    return ResultFolders(cache_folder() / "proof-segment")


def _key(seed: int, scale: Scale, device: torch.device) -> str:
    about = {**asdict(scale), "device": device.type, "version": _VERSION}
    return content_key({**options_of(seed, scale).as_config(), **about})


def _trained(seed: int, scale: Scale, folder: Path, device: torch.device, console: Console) -> Result:
    options, quiet = options_of(seed, scale), Console(quiet=True)
    sources = open_sources(options, quiet, scale.scenes)
    world = World(0, 1, 0, device)
    # Only the last weights are measured: evaluating at the ends of trainings would cost as much again.
    unmeasured = replace(sources, val=None)
    refining = Job(options, unmeasured, first_round(folder / "refined"), world, quiet)
    plain = Job(replace(options, refine=False), unmeasured, first_round(folder / "plain"), world, quiet)
    with console.progress(f"seed {seed}", 4) as progress:
        for stage in refining.stages()[:-1]:
            make(refining, stage)
        progress.advance(1, "teacher, pseudo labels and refinement")
        make(refining, "student")
        progress.advance(1, REFINED_POINTS)
        for stage in _TO_TEACHER:
            if not (plain.of(stage) / "stage.json").exists():
                shutil.copytree(refining.of(stage), plain.of(stage), dirs_exist_ok=True)
        make(plain, "merge")
        make(plain, "student")
        progress.advance(1, POINTS)
        alone = folder / FULL_ONLY
        _train_alone(refining, alone)
        progress.advance(1, FULL_ONLY)
    weights = {
        "teacher": refining.of("teacher") / LAST,
        FULL_ONLY: alone / LAST,
        POINTS: plain.of("student") / LAST,
        REFINED_POINTS: refining.of("student") / LAST,
    }
    return _measured(refining, sources, weights)


def _train_alone(job: Job, folder: Path) -> None:
    """The teacher goes on with the fully labelled images for as many steps as a student has."""
    if (folder / LAST).exists():
        return
    make_folder(folder)
    training = prepare(
        job.options,
        job.sources.strong,
        "student",
        student_length(job.options.student_steps),
        world=job.world,
        console=job.console,
        start=job.of("teacher") / LAST,
    )
    train(training, folder, job.options, job.sources.classes, val=None, console=job.console)


def _measured(job: Job, sources: Sources, weights: Mapping[str, Path]) -> Result:
    if sources.val is None:
        raise ValueError("the scenes have a validation split")
    numbers = {
        arm: measured(
            job.looker(file), sources.val, teacher=arm == "teacher", world=job.world, console=job.console
        ).numbers
        for arm, file in weights.items()
    }
    truth = _true_masks(sources.weak_file)
    clicks = sources.weak.clicks
    rough = _ious(job.of("pseudo") / PSEUDO, sources, truth)
    refined = _ious(job.of("merge") / REFINED, sources, truth)
    lost = read_unresolved(job.of("pseudo") / UNRESOLVED, sources.classes)
    strong, weak = len(sources.strong), len(sources.weak)
    objects = sources.strong.objects + clicks
    present = sum(len(set(image.labels.tolist())) for image in sources.weak.images) / max(1, weak)
    contents = Contents(strong + weak, objects / (strong + weak), present, len(sources.classes.names))
    return Result(
        ap={arm: found["AP"] or 0.0 for arm, found in numbers.items()},
        ap50={arm: found["AP50"] or 0.0 for arm, found in numbers.items()},
        rough=sum(rough) / clicks,
        refined=sum(refined) / clicks,
        rough_recall=sum(iou >= 0.5 for iou in rough) / clicks,
        refined_recall=sum(iou >= 0.5 for iou in refined) / clicks,
        clicks=clicks,
        unresolved=len(lost),
        images=(strong, weak),
        hours=(hours_of(strong / (strong + weak), contents, Timings()), hours_of(1, contents, Timings())),
    )


def _true_masks(path: Path) -> dict[int, RunLengths]:
    """The masks of the clicked scenes by annotation; no stage looks at them but to place a click."""
    file = read_coco_file(path)
    sizes = {image["id"]: (image["height"], image["width"]) for image in file.images}
    masks = {}
    for entry in file.annotations:
        height, width = sizes[entry["image_id"]]
        outline = outline_of(entry["segmentation"], height, width)
        if outline is not None:
            masks[entry["id"]] = run_lengths_of(outline, height, width)
    return masks


def _ious(path: Path, sources: Sources, truth: Mapping[int, RunLengths]) -> list[float]:
    labels = read_pseudo_labels(path, sources.classes)
    return [mask_iou(label.mask, truth[label.annotation_id]) for label in labels]


def _claims(results: Sequence[Result]) -> list[Claim]:
    gains = [result.gain(REFINED_POINTS) for result in results]
    better = [result.refined - result.rough for result in results]
    return [
        Claim(
            "Points and refinement find more than the masks alone, from every seed",
            "above 0 AP",
            ", ".join(f"{100 * gain:+.1f}" for gain in gains),
            all(gain > 0 for gain in gains),
        ),
        Claim(
            "They do so by a clear margin",
            f"at least {100 * LEAST_GAIN:g} AP on average",
            f"{100 * mean(gains):+.1f}",
            mean(gains) >= LEAST_GAIN,
        ),
        Claim(
            "Refinement makes pseudo masks no worse",
            "mean IoU not below the rough one, from every seed",
            ", ".join(f"{value:+.3f}" for value in better),
            all(value >= 0 for value in better),
        ),
    ]


def _ap_table(results: Sequence[Result], seeds: Sequence[int]) -> Table:
    rows = []
    for arm in ("teacher", *ARMS):
        cells = [f"{100 * one.ap[arm]:.1f} / {100 * one.ap50[arm]:.1f}" for one in results]
        rows.append((arm, *cells, f"{100 * mean(one.ap[arm] for one in results):.1f}"))
    columns = ("arm", *(f"seed {seed}" for seed in seeds), "mean AP")
    return Table(columns, rows, "Mask AP / AP50 on validation scenes, %")


def _iou_table(results: Sequence[Result], seeds: Sequence[int]) -> Table:
    columns = ("seed", "mean IoU, rough", "refined", "recall, rough", "refined", "clicks", "unresolved", "hours", "all")
    rows = [
        (
            seed,
            f"{one.rough:.3f}",
            f"{one.refined:.3f}",
            f"{one.rough_recall:.3f}",
            f"{one.refined_recall:.3f}",
            one.clicks,
            one.unresolved,
            f"{one.hours[0]:.1f}",
            f"{one.hours[1]:.1f}",
        )
        for seed, one in zip(seeds, results, strict=True)
    ]
    return Table(
        columns, rows, "Pseudo masks (a click without one counts 0), and hours to label, these and masks on all images"
    )


def _draw(results: Sequence[Result], plots: Path) -> Path:
    rows = [Points(arm, np.array([100 * one.ap[arm] for one in results]), arm == REFINED_POINTS) for arm in ARMS]
    return draw_points(plots / "arms", rows, title="AP on scenes of digits, equal steps", x_label="AP of masks, %").png


def _look(seed: int, scale: Scale, plots: Path, device: torch.device) -> Path:
    """The contact sheet of the clicked scenes with their refined labels."""
    folder = _folders().place(_key(seed, scale, device)) / "refined"
    sources = open_sources(options_of(seed, scale), Console(quiet=True), scale.scenes)
    preview = Preview(
        sources.weak,
        list(read_pseudo_labels(folder / "merge" / REFINED, sources.classes)),
        list(read_pseudo_labels(folder / "pseudo" / PSEUDO, sources.classes)),
        read_unresolved(folder / "pseudo" / UNRESOLVED, sources.classes),
    )
    write_preview(plots / "preview", preview, count=24)
    return next(iter(sorted((plots / "preview").glob("labels*.png"))), next((plots / "preview").glob("*.png")))
