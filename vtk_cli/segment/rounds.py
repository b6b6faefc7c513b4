"""Rounds: labels made at the clicks, and the student that learns them; in each, the student before is the teacher.

The first is PointWSSIS (arXiv 2303.15062). In further ones (`--rounds`) the student has taken the teacher's place. In
averaged ones (`--ema-rounds`), after Guided Distillation (arXiv 2308.02668), the student so far is the burnt-in one: it
goes on from its own weights, and the labels are made by the exponential moving average of these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vtk_cli.engine.run_weights import BEST, EMA, LAST
from vtk_cli.errors import UserError
from vtk_cli.segment.options import SegmentOptions
from vtk_cli.segment.stages import STAGES, Stage

_LATER: tuple[Stage, ...] = STAGES[1:]
_AVERAGED: tuple[Stage, ...] = ("pseudo", "merge", "student")
_KINDS = ("round", "ema")
_NAME = re.compile(r"(round|ema)-([1-9][0-9]*)")


@dataclass(frozen=True)
class Round:
    """One round.

    Args:
        name: empty of the first; else of its folder: `round-2`, `ema-1`.
        folder: its stages have theirs in it.
        stages: that it is made of, in order; without refinement, two fewer.
        labeller: the weights that make the masks at the clicks.
        states: of two states in the labeller's training, which make the rough masks.
        refiner: the weights of the MaskRefineNet.
        start: the weights that the student goes on from; None: as the options say.
        averaged: whether the student's weights are averaged as it learns.
        followed: whether states of the student are kept for the rough masks of the next round.
    """

    name: str
    folder: Path
    stages: tuple[Stage, ...]
    labeller: Path
    states: tuple[Path, Path]
    refiner: Path
    start: Path | None = None
    averaged: bool = False
    followed: bool = False

    @property
    def student(self) -> Path:
        """What labels the next round: the weights of the student's end, or their average."""
        return self.folder / "student" / (EMA if self.averaged else LAST)

    def title(self, stage: Stage) -> str:
        """A stage of this round, in words."""
        return f"{self.name} {stage}".strip()


def snapshot(number: int) -> str:
    """The file of state number `number`, from 1, of a training, for the rough masks."""
    return f"rough-{number}.safetensors"


def first_round(folder: Path, *, followed: bool = False) -> Round:
    """The round in the folder of the run itself, which begins with the teacher."""
    teacher, refiner = folder / "teacher", folder / "refine" / BEST
    return Round("", folder, STAGES, teacher / LAST, _states(teacher), refiner, followed=followed)


def rounds_of(folder: Path, options: SegmentOptions) -> tuple[Round, ...]:
    """All rounds that the options of a run ask for, in order."""
    found = [first_round(folder, followed=options.refine and options.rounds > 1)]
    for number in range(2, options.rounds + 1):
        before, name = found[-1], f"round-{number}"
        here = folder / name
        states, followed = _states(before.folder / "student"), options.refine and options.rounds > number
        found.append(Round(name, here, _LATER, before.student, states, here / "refine" / BEST, followed=followed))
    for number in range(1, options.ema_rounds + 1):
        before, name = found[-1], f"ema-{number}"
        start = before.folder / "student" / LAST
        here = folder / name
        found.append(Round(name, here, _AVERAGED, before.student, before.states, before.refiner, start, averaged=True))
    return tuple(found)


def round_named(folder: Path, options: SegmentOptions, name: str) -> tuple[Round, tuple[Round, ...]]:
    """The round called `name`, and those after it, which depend on it.

    Raises:
        UserError: the run has no such round.
    """
    found = rounds_of(folder, options)
    names = [each.name for each in found]
    if name not in names:
        there_is = ", ".join(names[1:])
        fix = f"there is {there_is}; the first has no name" if there_is else "the run has one round: leave it out"
        raise UserError(f"no round {name!r}", "--round", fix)
    index = names.index(name)
    return found[index], found[index + 1 :]


def round_folders(folder: Path) -> list[Path]:
    """The folders of rounds that there are in a run, the last round first and the run itself last."""
    named = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)) and path.is_dir()]
    ordered = sorted(named, key=lambda pair: (_KINDS.index(pair[0][1]), int(pair[0][2])), reverse=True)
    return [*(path for _, path in ordered), folder]


def _states(training: Path) -> tuple[Path, Path]:
    return training / snapshot(1), training / snapshot(2)
