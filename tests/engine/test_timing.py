"""Two works are timed in turns."""

from __future__ import annotations

import time

import torch

from vtk_cli.engine.timing import in_turns, seconds_of


def test_the_first_round_does_not_count_and_medians_are_of_the_others():
    calls = []

    def ours():
        calls.append("ours")
        return {1: 100.0, 2: 3.0, 3: 1.0, 4: 2.0}[calls.count("ours")]

    def theirs():
        calls.append("theirs")
        return 10.0 * calls.count("theirs")

    assert in_turns(ours, theirs, 3) == (2.0, 30.0)
    assert calls == ["ours", "theirs"] * 4


def test_seconds_are_those_of_the_work():
    assert 0.02 <= seconds_of(lambda: time.sleep(0.02), torch.device("cpu")) < 1
