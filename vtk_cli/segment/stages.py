"""The six stages from masks and clicks to a student (arXiv 2303.15062, Section 3.1), each resumable by itself.

A stage that is done leaves `stage.json` in its folder: checksums of what it read and of how it was set, and what it
wrote. Coming back, a stage whose record still holds is passed over, one with a missing or torn output is made anew, and
one that was made from other inputs is refused: mixing old results with new inputs is nobody's intention.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vtk_cli.data.walking import file_size
from vtk_cli.errors import UserError
from vtk_cli.files import content_key, sha256_file, write_json

Stage = Literal["teacher", "pseudo", "rough", "refine", "merge", "student"]
STAGES: tuple[Stage, ...] = ("teacher", "pseudo", "rough", "refine", "merge", "student")
NEEDS: Mapping[Stage, tuple[Stage, ...]] = {
    "teacher": (),
    "pseudo": ("teacher",),
    "rough": ("teacher",),
    "refine": ("rough",),
    "merge": ("pseudo", "refine"),
    "student": ("merge",),
}
"""The stages whose outputs a stage reads; without refinement `merge` needs `pseudo` alone."""
RECORD = "stage.json"


class ChangedInputs(UserError):
    """A stage was begun or made from other inputs than it has now."""


@dataclass(frozen=True)
class StageInputs:
    """What the result of a stage depends on.

    Args:
        files: by what they are called in messages: annotation files, weights.
        settings: values that JSON can hold.
    """

    files: Mapping[str, Path]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def keys(self) -> dict[str, str]:
        """A checksum for each file and each setting.

        Raises:
            UserError: a file is missing.
        """
        absent = [f"{name} ({path})" for name, path in self.files.items() if file_size(path) is None]
        if absent:
            raise UserError(f"what the stage reads is missing: {', '.join(absent)}", fix="run the stages before it")
        found = {name: sha256_file(path) for name, path in self.files.items()}
        return found | {name: content_key(value) for name, value in self.settings.items()}


def is_done(folder: Path, stage: Stage, inputs: StageInputs, redo: str | None = None) -> bool:
    """Whether the results of a stage are there, whole, and made from these very inputs.

    Args:
        folder: of the stage.
        stage: its name.
        inputs: what it would be made from now.
        redo: what a user types to make it anew; None for that of the first round.

    Raises:
        ChangedInputs: it was made from other inputs.
        UserError: an input is missing.
    """
    record = _read(folder)
    if record is None:
        return False
    if any(file_size(folder / name) != size for name, size in record["outputs"].items()):
        return False
    now, before = inputs.keys(), record["inputs"]
    changed = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
    if changed:
        later = ", ".join(dependents(stage))
        what = f"stage {stage!r} was made from other inputs ({', '.join(changed)} changed)"
        fix = (
            f"redo it with {redo or f'--redo {stage}'}"
            + (f", which redoes {later} too" if later else "")
            + ", or choose another --out"
        )
        raise ChangedInputs(what, str(folder), fix)
    return True


def finish_stage(folder: Path, inputs: StageInputs, outputs: Sequence[str]) -> None:
    """Record that a stage is done.

    Args:
        folder: of the stage.
        inputs: what it was made from.
        outputs: the files it wrote, relative to `folder`.
    """
    sizes = {name: (folder / name).stat().st_size for name in outputs}
    write_json(folder / RECORD, {"inputs": inputs.keys(), "outputs": sizes})


def forget_stage(folder: Path) -> None:
    """Take back that a stage is done; its files stay until they are written anew."""
    (folder / RECORD).unlink(missing_ok=True)


def dependents(stage: Stage) -> tuple[Stage, ...]:
    """The stages whose results go stale when a stage is redone, in order."""
    stale: set[Stage] = {stage}
    for other in STAGES:
        if stale.intersection(NEEDS[other]):
            stale.add(other)
    return tuple(other for other in STAGES if other in stale and other != stage)


def _read(folder: Path) -> dict[str, Any] | None:
    """The record of a stage; None where there is none or it is torn."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and all(isinstance(record.get(part), dict) for part in ("inputs", "outputs"))
    return record if whole else None
