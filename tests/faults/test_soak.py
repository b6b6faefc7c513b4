"""A long training with workers takes no more memory and no more files at its end than soon after its beginning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cases import held
from tests.faults.forks import Forks

STEPS, EVERY, WORKERS = 2000, 20, 2
BATCH, UPDATES_PER_EPOCH = 4, 359
NOISE = 2 << 20
"""Bytes by which a process may seem to grow: an allocator takes memory in pieces."""


def growth(updates: np.ndarray, sizes: np.ndarray) -> float:
    """Bytes that the line through the sizes rises from the first to the last."""
    return float(np.polyfit(updates, sizes, 1)[0] * (updates[-1] - updates[0]))


def test_a_line_is_found_in_what_was_measured() -> None:
    updates = np.arange(0.0, 101.0)
    assert growth(updates, 1e6 + 0 * updates) == pytest.approx(0, abs=1e-3)
    assert growth(updates, 5e6 + 1000 * updates) == pytest.approx(1e5)


@pytest.mark.slow
def test_two_thousand_steps_with_workers_take_no_more_memory_and_open_no_more_files(
    forks: Forks, tmp_path: Path
) -> None:
    epochs = -(-STEPS // UPDATES_PER_EPOCH)
    words = ("search", "retrain", "2 0 3", "--space", "digits-mini", "--epochs", epochs)
    said = forks.run(
        *(*words, "--workers", WORKERS, "--batch-size", BATCH, "--device", "cpu", "--out", tmp_path / "run", "--quiet"),
        hooks=[("note_memory", tmp_path / "log", EVERY)],
    )
    assert said.code == 0, said.err
    rows = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len(rows) * EVERY >= STEPS - EVERY
    later = rows[len(rows) // 4 :]  # buffers, workers and what is copied on write are there by then
    measured = np.array([list(map(float, row)) for row in later])  # update, open files, then bytes a process
    assert measured.shape[1] == 2 + 1 + WORKERS
    updates, files = measured[:, 0], measured[:, 1]
    assert len(set(files)) == 1
    grown = [growth(updates, process) for process in measured[:, 2:].T]
    assert max(grown) < NOISE, grown
    seen = f"memory of the process and its workers within {NOISE >> 20} MB over the last 1,500; open files the same"
    held("faults", f"{STEPS:,} updates with {WORKERS} workers", f"exit 0; {seen}")
