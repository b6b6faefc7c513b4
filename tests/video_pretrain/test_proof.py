"""`vtk proof video-pretrain`: its machinery on the smallest setting."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vtk_cli.console import Console
from vtk_cli.data.moving_digits import label_and_family
from vtk_cli.files import CACHE_VARIABLE
from vtk_cli.video_pretrain.proof import FULL, SSL_ARMS, TIME_ARMS, options_of, prove


def test_the_background_of_probe_clips_says_nothing_of_the_label() -> None:
    pairs = [label_and_family("probe", index) for index in range(160)]
    assert all(pairs.count((label, family)) == 10 for label in range(4) for family in range(4))


@pytest.mark.parametrize("exceptions", [5, 10])
def test_the_background_agrees_in_training_but_for_one_of_so_many(exceptions: int) -> None:
    pairs = [label_and_family("train", index, exceptions) for index in range(4 * exceptions * 3)]
    assert sum(label == family for label, family in pairs) == len(pairs) * (exceptions - 1) // exceptions


def test_arms_differ_in_what_they_are_named_after_and_nothing_else() -> None:
    for arms, objective in ((SSL_ARMS, "ssl"), (TIME_ARMS, "supervised")):
        first, *others = (options_of(arm, objective, 0, FULL, Path("clips")).as_config() for arm in arms)
        for other in others:
            changed = {name for name in first | other if first.get(name) != other.get(name)}
            assert changed <= {"freqaug", "freq-t", "time"}


@pytest.mark.slow  # trains every arm
def test_the_machinery_gives_tables_and_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    proof = prove([0], smallest=True, plots=tmp_path / "plots", device=torch.device("cpu"), console=Console(quiet=True))
    assert [len(table.rows) for table in proof.tables] == [5, 2]
    assert len(proof.claims) == 3
    assert proof.pictures[0].is_file()
