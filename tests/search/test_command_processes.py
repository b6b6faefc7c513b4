"""`vtk search run` shared by two processes of torchrun, and two processes at one run folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.search.command_line import SEARCH, Vtk, same_weights, tree

pytestmark = pytest.mark.slow  # processes of their own

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vtk_cli"]
COMMAND = ["search", "run", *SEARCH]


def started(folder: Path, *words: str, launch: list[str] = LAUNCH) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "VTK_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        [*launch, *COMMAND, *words],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_two_processes_search_together_and_go_on_after_a_stop(vtk: Vtk, tmp_path: Path) -> None:
    alone = started(tmp_path, "-o", "alone", "--store", "one", "--json")
    out, err = alone.communicate(timeout=300)
    assert alone.returncode == 0, err
    whole = json.loads(out)
    assert len([*(tmp_path / "one").rglob("*.json")]) == 36, "each architecture is measured once, by either"

    stopped = started(tmp_path, "-o", "stopped", "--store", "two")
    state = tmp_path / "stopped" / "evolution.json"
    while stopped.poll() is None and not state.exists():
        time.sleep(0.02)
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate(timeout=300)
    again = started(tmp_path, "-o", "stopped", "--store", "two", "--json")
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert json.loads(out)["genes"] == whole["genes"]
    for name in ("supernet/final.safetensors", "retrained/model.safetensors"):
        assert same_weights(tmp_path / "alone" / name, tmp_path / "stopped" / name)
    scores = [(tmp_path / run / "scores.json").read_text(encoding="utf-8") for run in ("alone", "stopped")]
    assert scores[0] == scores[1]
    assert not any("rank" in name for name in tree(tmp_path / "alone"))


def test_processes_that_share_the_work_start_no_others(tmp_path: Path) -> None:
    refused = started(tmp_path, "--devices", "cpu,cpu")
    _, err = refused.communicate(timeout=120)
    assert refused.returncode != 0
    assert "2 processes share the work already; leave it out" in err
    assert not (tmp_path / "runs").exists()


def test_of_two_processes_at_one_run_folder_one_works_and_the_other_says_so(tmp_path: Path) -> None:
    alone = [sys.executable, "-m", "vtk_cli"]
    both = [started(tmp_path, "-o", "run", launch=alone) for _ in range(2)]
    said = [one.communicate(timeout=120)[1] for one in both]
    codes = sorted(one.returncode for one in both)
    if codes == [0, 2]:
        (refusal,) = (err for one, err in zip(both, said, strict=True) if one.returncode == 2)
        assert "this run folder is in use by another process" in refusal
    else:  # the second came when the first was done, and found all of it done
        assert codes == [0, 0]
