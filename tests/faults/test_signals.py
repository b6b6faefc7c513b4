"""Signals at random moments end every command in order: with the right code, one line, and nothing lost."""

from __future__ import annotations

import json
import random
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cases import held
from tests.command_line import Said
from tests.faults.chains import Chain
from tests.faults.forks import Fork, Forks
from tests.faults.trainings import TRAININGS, leftovers

pytestmark = pytest.mark.slow

CODES = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}
STATUS = {75: "preempted", 130: "interrupted"}


def complaint(said: Said) -> str:
    """The one line of a command that was stopped."""
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said.err
    assert "Traceback" not in said.err
    return lines[0].removeprefix("error: ")


def signalled(start: Callable[..., Fork], ready: Path, number: signal.Signals, seconds: float) -> Said:
    """Start a command and send it a signal, if it goes on for so long after it has begun to hear."""
    fork = start(("tell_when_heard", ready))
    fork.wait_until(ready)
    ready.unlink()
    said = fork.ended(seconds)
    if said is None:
        fork.signal(number)
        said = fork.end()
    assert said.code in {CODES[number], 0}, said.err
    if said.code:
        story = "interrupted|stopped by SIGINT after saving .*" if said.code == 130 else f"stopped by {number.name}.*"
        assert re.fullmatch(f"({story})(; run the same command to go on)?", complaint(said)), said.err
    return said


@pytest.mark.parametrize(
    ("name", "seed"), [pytest.param(name, seed, id=f"{name}-seed-{seed}") for seed, name in enumerate(TRAININGS)]
)
def test_a_training_that_is_told_to_stop_at_random_moments_goes_on_to_the_very_same_end(
    forks: Forks, data_of: Callable[[str], Path], tmp_path: Path, name: str, seed: int
) -> None:
    draw, data = random.Random(seed), data_of(name)  # noqa: S311
    forks.run(*TRAININGS[name].command(tmp_path / "first", data), folder=data)  # fills the cache
    alone, chain = (Chain(name, data, forks, tmp_path / run) for run in ("alone", "stopped"))
    undisturbed = alone.start()
    assert undisturbed.end().code == 0
    # In an update: once, and twice.
    said = chain.start(("signal_at", 2, "SIGINT", 1)).end()
    where = r"stopped by SIGINT after saving step \d+ in \S+; run the same command to go on"
    assert re.fullmatch(where, complaint(said))
    assert said.code == 130
    said = chain.start(("signal_at", 2, "SIGINT", 2)).end()
    assert (said.code, complaint(said)) == (130, "interrupted")
    chain.stopped += ["interrupted"] * 2
    numbers, longest = [*CODES], undisturbed.seconds / 2
    while numbers:
        said = signalled(chain.start, tmp_path / "ready", numbers[-1], draw.uniform(0, longest))
        chain.check()
        if said.code == 0:  # quicker than the signal: another from the beginning
            chain.ended(alone.out)
            longest /= 2
            chain = Chain(name, data, forks, tmp_path / f"stopped-{len(chain.stopped)}-{len(numbers)}")
        else:
            chain.stopped.append(STATUS[CODES[numbers.pop()]])
    said = chain.start().end()
    assert said.code == 0, said.err
    chain.ended(alone.out)
    went_on = "; the same command went on to the same bits"
    said_where = "one line says that it was stopped and, in a step, what was saved where"
    held("faults", f"SIGTERM, SIGUSR1 to `vtk {name}`", f"exit 75; {said_where}{went_on}", 2)
    held("faults", f"SIGINT to `vtk {name}`", f"exit 130; {said_where}{went_on}", 2)
    held("faults", f"SIGINT twice to `vtk {name}`", f"exit 130 at once; the earlier checkpoint was good{went_on}")


COMMANDS: dict[str, tuple[Sequence[str], Callable[[Path], object]]] = {
    "similarity": (
        ("similarity", "resnet18", "resnet34", "--quick", "--epochs", "2", "--resamples", "50", "--device", "cpu"),
        lambda out: (out / "sat.csv").read_text(),
    ),
    "proof": (
        ("proof", "search", "--smallest", "--seeds", "0", "--device", "cpu"),
        lambda out: json.loads((out / "search" / "proof.json").read_text()),
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_had_found_is_kept_when_it_is_told_to_stop(forks: Forks, tmp_path: Path, name: str) -> None:
    words, outcome = COMMANDS[name]
    draw = random.Random(7)  # noqa: S311
    alone = forks.start(*words, "--out", tmp_path / "alone", cache=tmp_path / "one")
    assert alone.end().code == 0

    def start(*hooks: tuple[object, ...]) -> Fork:
        return forks.start(*words, "--out", tmp_path / "stopped", cache=tmp_path / "two", hooks=hooks)

    stopped = 0
    for number in CODES:
        stopped += signalled(start, tmp_path / "ready", number, draw.uniform(0, alone.seconds / 3)).code != 0
    assert stopped
    said = start().end()
    assert said.code == 0, said.err
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "alone")
    assert not leftovers(tmp_path)
    held(
        "faults",
        f"SIGTERM, SIGUSR1, SIGINT to `vtk {name}`",
        "exit 75, 130; one line; went on to the same result",
        stopped,
    )


def test_a_bench_that_is_told_to_stop_says_so_in_one_line(forks: Forks, tmp_path: Path) -> None:
    for number, code in CODES.items():

        def start(*hooks: tuple[object, ...]) -> Fork:
            return forks.start("bench", "search", "--smallest", "--device", "cpu", hooks=hooks)

        assert signalled(start, tmp_path / "ready", number, 0.2).code == code
    held("faults", "SIGTERM, SIGUSR1, SIGINT to `vtk bench`", "exit 75, 130; one line", 3)
