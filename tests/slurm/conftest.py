"""A real Slurm, once a test session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.one_node import missing_programs, one_node


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """Slurm on this machine: `sbatch`, `squeue` and the others work while the session lasts."""
    if missing := missing_programs():
        pytest.skip(f"no Slurm here: {', '.join(missing)} (Debian's slurm-wlm and munge) not installed")
    folder = Path(tempfile.mkdtemp(prefix="vtk-slurm-"))
    try:
        with one_node(folder):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
