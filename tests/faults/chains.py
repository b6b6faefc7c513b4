"""Runs of one training in one folder, each stopped but the last."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.forks import Fork, Forks
from tests.faults.trainings import TRAININGS, differing, leftovers


class Chain:
    """What is saved is never lost between the runs, and the last ends as one left alone.

    Args:
        name: of `TRAININGS`.
        data: the folder with its data.
        out: the run folder.
    """

    def __init__(self, name: str, data: Path, forks: Forks, out: Path) -> None:
        self.out, self.data, self._forks = out, data, forks
        self._words = TRAININGS[name].command(out, data)
        self._log = out.with_name(f"{out.name}.log")
        self.stopped: list[str] = []
        """How each stopped run should be remembered."""

    def start(self, *hooks: tuple[object, ...]) -> Fork:
        """The command once more."""
        noted = [("save_often",), ("note_checkpoints", self._log), *hooks]
        return self._forks.start(*self._words, folder=self.data, hooks=noted)

    @property
    def saves(self) -> int:
        """How many checkpoints were reported saved."""
        return sum(what == "saved" for what, _, _ in self._noted())

    def _noted(self) -> list[tuple[str, int, str]]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [(what, int(step), folder) for what, step, folder in (line.split(" ", 2) for line in lines)]

    def check(self) -> None:
        """A run goes on from the last step that was reported saved in its folder, or a later one."""
        newest: dict[str, int] = {}
        for what, step, folder in self._noted():
            assert what == "saved" or step >= newest.get(folder, -1), folder
            newest[folder] = max(step, newest.get(folder, -1))

    def ended(self, alone: Path) -> None:
        """It came to the same end as the run `alone`, and nothing is left behind."""
        self.check()
        assert not differing(alone, self.out)
        assert not [*leftovers(self._forks.cache), *leftovers(self.out.parent)]
        remembered = [attempt["status"] for attempt in json.loads((self.out / "run.json").read_text())["history"]]
        stopped = iter(self.stopped)  # those that ended before they had a record are not remembered
        # One that was told to stop when its result was there is done.
        assert all(status in stopped for status in remembered if status != "done"), (remembered, self.stopped)
