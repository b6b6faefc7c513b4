"""Every training, killed again and again at random moments, ends bit for bit as one that was left alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases import held
from tests.faults.chains import Chain
from tests.faults.forks import Forks
from tests.faults.trainings import TRAININGS

pytestmark = pytest.mark.slow

KILLED, MOMENTS = -9, 20
IN_WRITING = {"die_in_writing": 2, "die_before_publishing": 1, "die_before_removing": 2, "die_at_file": 4}
"""Hooks that kill inside a write, and in how many of the moments."""


@pytest.mark.parametrize(
    ("name", "seed"), [pytest.param(name, seed, id=f"{name}-seed-{seed}") for seed, name in enumerate(TRAININGS)]
)
def test_a_run_that_is_killed_again_and_again_ends_bit_for_bit_as_one_left_alone(
    forks: Forks, data_of: Callable[[str], Path], tmp_path: Path, name: str, seed: int
) -> None:
    draw, data = random.Random(seed), data_of(name)  # noqa: S311
    forks.run(*TRAININGS[name].command(tmp_path / "first", data), folder=data)  # fills the cache
    alone = Chain(name, data, forks, tmp_path / "alone")
    undisturbed = alone.start()
    assert undisturbed.end().code == 0
    saves = alone.saves
    assert saves > 4
    moments: list[str | None] = [hook for hook, times in IN_WRITING.items() for _ in range(times)]
    inside = len(moments)
    moments += [None] * (MOMENTS - inside)
    draw.shuffle(moments)

    count, chain = 0, Chain(name, data, forks, tmp_path / "0")
    longest = undisturbed.seconds
    while moments:
        hook = moments[-1]
        if hook is None:
            fork = chain.start()
            said = fork.killed_after(draw.uniform(0, longest))
        else:
            fork = chain.start((hook, draw.randint(1, 12 if hook == "die_at_file" else saves // 3)))
            said = fork.end()
        assert said.code in {KILLED, 0}, said.err
        chain.check()
        if said.code == KILLED:
            moments.pop()
            chain.stopped.append("killed")
        else:  # quicker than its killer: another from the beginning
            chain.ended(alone.out)
            longest = min(longest, fork.seconds)  # the machine may have been busy before
            count += 1
            chain = Chain(name, data, forks, tmp_path / str(count))
    said = chain.start().end()
    assert said.code == 0, said.err
    chain.ended(alone.out)
    outcome = "exit -9; the same command went on from the last saved step or later, to the same bits; nothing left over"
    held("faults", f"SIGKILL at random moments of `vtk {name}`", outcome, MOMENTS - inside)
    held("faults", f"SIGKILL inside the write of a file of `vtk {name}`", outcome, inside)
