"""Every training, killed again and again at random moments, ends bit for bit as one that was left alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases import held
from tests.faults.forks import Fork, Forks
from tests.faults.trainings import TRAININGS, differing, leftovers

pytestmark = pytest.mark.slow

KILLED, MOMENTS = -9, 20
IN_WRITING = ("die_in_writing", "die_before_publishing", "die_before_removing")
EACH = 2


class Chain:
    """Runs of one command in one folder, each killed but the last; what is saved is never lost between them."""

    def __init__(self, name: str, data: Path, forks: Forks, out: Path) -> None:
        self.out, self.data, self._forks = out, data, forks
        self._words = TRAININGS[name].command(out, data)
        self._log = out.with_name(f"{out.name}.log")
        self.killed = 0

    def start(self, *hooks: tuple[object, ...]) -> Fork:
        """The command once more."""
        return self._forks.start(
            *self._words, folder=self.data, hooks=[("save_often",), ("note_checkpoints", self._log), *hooks]
        )

    def steps(self, word: str) -> list[int]:
        """The steps that were `saved`, or `found` to go on from."""
        return [step for what, step, _ in self._noted() if what == word]

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
        assert not [*leftovers(self.out), *leftovers(self._forks.cache), *leftovers(self.out.parent)]
        history = [attempt["status"] for attempt in json.loads((self.out / "run.json").read_text())["history"]]
        assert set(history) <= {"killed"}
        assert len(history) <= self.killed


@pytest.mark.parametrize(
    ("name", "seed"), [pytest.param(name, seed, id=f"{name}-seed-{seed}") for seed, name in enumerate(TRAININGS)]
)
def test_a_run_that_is_killed_again_and_again_ends_bit_for_bit_as_one_left_alone(
    forks: Forks, data_of: Callable[[str], Path], tmp_path: Path, name: str, seed: int
) -> None:
    draw, data = random.Random(seed), data_of(name)
    forks.run(*TRAININGS[name].command(tmp_path / "first", data), folder=data)  # fills the cache
    alone = Chain(name, data, forks, tmp_path / "alone")
    undisturbed = alone.start()
    assert undisturbed.end().code == 0
    saves = len(alone.steps("saved"))
    assert saves > 4
    moments: list[str | None] = [*IN_WRITING * EACH, *[None] * (MOMENTS - EACH * len(IN_WRITING))]
    draw.shuffle(moments)

    count, chain = 0, Chain(name, data, forks, tmp_path / "0")
    while moments:
        hook = moments[-1]
        fork = chain.start() if hook is None else chain.start((hook, draw.randint(1, saves // 3)))
        said = fork.killed_after(draw.uniform(0, undisturbed.seconds)) if hook is None else fork.end()
        assert said.code in {KILLED, 0}, said.err
        chain.check()
        if said.code == KILLED:
            moments.pop()
            chain.killed += 1
        else:  # quicker than its killer: another from the beginning
            chain.ended(alone.out)
            count += 1
            chain = Chain(name, data, forks, tmp_path / str(count))
    said = chain.start().end()
    assert said.code == 0, said.err
    chain.ended(alone.out)
    outcome = "exit -9; the same command went on from the last saved step or later, to the same bits; nothing left over"
    held("faults", f"SIGKILL at random moments of `vtk {name}`", outcome, MOMENTS - EACH * len(IN_WRITING))
    held("faults", f"SIGKILL inside a checkpoint's write of `vtk {name}`", outcome, EACH * len(IN_WRITING))
