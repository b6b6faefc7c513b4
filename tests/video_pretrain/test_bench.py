"""`vtk bench video`: what is measured of reading clips, on the smallest setting."""

from __future__ import annotations

import pytest
import torch

from vtk_cli.console import Console
from vtk_cli.families.discovery import members
from vtk_cli.video_pretrain.bench import measure


def test_the_bench_is_called_video() -> None:
    assert members("bench")["video"] == "vtk_cli.video_pretrain.bench"
    assert "video-pretrain" not in members("bench")
    assert "video-pretrain" in members("proof")


@pytest.mark.slow  # reads clips by every decoder and trains for some steps
def test_decoders_waiting_and_memory_are_measured() -> None:
    decoders, protection, waiting, memory = measure(
        smallest=True, device=torch.device("cpu"), console=Console(quiet=True)
    )
    assert decoders.ours > 0
    assert decoders.theirs > 0
    assert protection.theirs > 0
    assert 0 <= waiting.ours < waiting.theirs
    assert 0 < memory.ours <= memory.theirs
