"""What all stages of a run know, and what each of them is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.data.detection import ImageRecord
from vtk_cli.data.points import PointImage
from vtk_cli.data.walking import file_size
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.workers import worker_count
from vtk_cli.segment.labels.sources import Sources, label_files
from vtk_cli.segment.looking import Looker
from vtk_cli.segment.options import SegmentOptions
from vtk_cli.segment.pseudo.labelling import PSEUDO, ROUGH, UNRESOLVED
from vtk_cli.segment.rounds import Round
from vtk_cli.segment.stages import (
    STAGES,
    Stage,
    StageInputs,
)
from vtk_cli.segment.trained import open_trained
from vtk_cli.segment.training.schedules import STATES, Length, student_length

MERGED = "merged.json"
"""The labels of the student."""
REFINING: tuple[Stage, ...] = ("rough", "refine")
_TRAINING = ("augment", "batch_size", "optimizer", "weight_decay", "schedule", "clip_norm", "precision", "seed")
_NETWORK = ("recipe", "model", "weights", "reset_head", "size", "official_quirks")


@dataclass(frozen=True, eq=False)
class Job:
    """What all stages know.

    Args:
        options: of the job.
        sources: the images.
        round: of labels; each stage has a folder in that of its round.
        world: this process among the others.
        console: shows the progress.
    """

    options: SegmentOptions
    sources: Sources
    round: Round
    world: World
    console: Console

    def of(self, stage: Stage) -> Path:
        """The folder of a stage."""
        return self.round.folder / stage

    def stages(self) -> tuple[Stage, ...]:
        """Those that the options ask for, in order."""
        until = STAGES.index(self.options.until)
        wanted = tuple(stage for stage in self.round.stages if STAGES.index(stage) <= until)
        return wanted if self.options.refine else tuple(stage for stage in wanted if stage not in REFINING)

    def inputs(self, stage: Stage) -> StageInputs:
        """What a stage is made from."""
        return StageInputs(self._files(stage), self._settings(stage))

    def looker(self, file: Path) -> Looker:
        """A network of this run, on the device.

        Raises:
            UserError: it knows other classes than the labels.
        """
        options = self.options
        workers = 0 if options.workers is None and options.on_scenes else worker_count(options.workers)
        trained = open_trained(file)
        trained.require_classes(self.sources.classes, self.sources.strong.name)
        return trained.looker(self.world.device, options.precision, workers)

    @property
    def student_start(self) -> Path | None:
        """The weights that the student goes on from; None: as the options say of any network."""
        before = self.round.labeller if self.options.student_start == "teacher" else None
        return self.round.start or before

    @property
    def student_length(self) -> Length:
        """How long the student is trained, and when its states are kept."""
        options = self.options
        steps = options.ema_steps if self.round.averaged and options.ema_steps else options.student_steps
        length = student_length(steps)
        return replace(length, snapshots=options.snapshots or STATES) if self.round.followed else length

    def _files(self, stage: Stage) -> dict[str, Path]:
        labels = dict(label_files(self.options, self.sources))
        strong, weak = (dict([item]) for item in labels.items())
        teacher = {"the teacher": self.round.labeller}
        states = {f"state {number} of the teacher": path for number, path in enumerate(self.round.states, 1)}
        refiner = {"the MaskRefineNet": self.round.refiner} if self.options.refine else {}
        unresolved = {"unresolved clicks": self.of("pseudo") / UNRESOLVED} if self.options.ignore_unresolved else {}
        named = {} if self.options.weights_file is None else {"--weights": self.options.weights_file}
        start = named if self.student_start is None else {"the student's first weights": self.student_start}
        return {
            "teacher": strong | named,
            "pseudo": weak | teacher,
            "rough": strong | states,
            "refine": strong | {"rough masks": self.of("rough") / ROUGH},
            "merge": strong | weak | {"pseudo labels": self.of("pseudo") / PSEUDO} | refiner,
            "student": {"merged labels": self.of("merge") / MERGED} | unresolved | start,
        }[stage]

    @cached_property
    def _sizes(self) -> dict[str, dict[str, Any]]:
        """What tells changed images from the same ones without reading them: their files and how long they are."""
        images: dict[str, Sequence[ImageRecord | PointImage]] = {
            "--strong": self.sources.strong.records,
            "--weak": self.sources.weak.images,
        }
        return {
            kind: {f"images of {kind}": [[image.id, image.file.name, file_size(image.file)] for image in listed]}
            for kind, listed in images.items()
        }

    def _settings(self, stage: Stage) -> dict[str, Any]:
        options = self.options
        training = {name: getattr(options, name) for name in (*_TRAINING, *_NETWORK)}
        clicks = {"points": options.point_mode, "skip_bad": options.skip_bad}
        refining = {"refiner": options.refiner, "refine_steps": options.refine_steps}
        strong, weak = self._sizes["--strong"], self._sizes["--weak"]
        known: dict[Stage, dict[str, Any]] = {
            "teacher": training
            | strong
            | {name: getattr(options, name) for name in ("teacher_steps", "teacher_lr", "teacher_warmup", "sigma")}
            | {"rough_at": list(options.rough_at)},
            "pseudo": clicks
            | weak
            | {"point_inside": options.point_inside, "precision": options.precision}
            | {name: getattr(options, name) for name in ("neighbours", "pseudo_nms", "most_objects", "seed")},
            "rough": strong | {"precision": options.precision},
            "refine": refining
            | strong
            | {name: getattr(options, name) for name in ("seed", "precision", "official_quirks", "weights")},
            "merge": clicks | weak | {"refine": options.refine, "seed": options.seed},
            "student": training
            | strong
            | weak
            | {
                name: getattr(options, name)
                for name in ("student_lr", "student_warmup", "student_start", "ignore_unresolved")
            }
            | {"student_steps": self.student_length.updates, "states kept": list(self.student_length.snapshots)}
            | ({"ema_decay": options.ema_decay} if self.round.averaged else {}),
        }
        return known[stage]
