"""Pseudo-labelling holds the masks of one image, however many there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("labelled_memory.py")
ROOM_MB = 150
"""For 100,000 clicks and where their lines stand; their masks would be 1,600."""


def peak_mb(folder: Path, images: int) -> float:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(images)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.slow  # 100,000 masks
def test_a_hundred_thousand_instances_never_have_their_masks_in_memory_at_once(tmp_path: Path) -> None:
    few, many = peak_mb(tmp_path / "few", 10), peak_mb(tmp_path / "many", 1000)
    assert many - few < ROOM_MB, (few, many)
    assert len(json.loads((tmp_path / "many" / "pseudo.json").read_text())["annotations"]) == 100_000
