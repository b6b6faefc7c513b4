"""Parts of weights on GPUs: the arithmetic of each precision, and several processes where there are several GPUs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.engine import parallel_trainings as trainings
from tests.engine.two_processes import run_world
from tests.forked import free_port
from vtk_cli.console import Console
from vtk_cli.engine import update
from vtk_cli.engine.loop import FitResult, Plan, fit
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.sharded_weights import ShardedWeights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
BACKENDS = {"cuda": "nccl", "cpu": "gloo"}


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The GPU of a world of one process."""
    found = torch.device("cuda", 0)
    dist.init_process_group(BACKENDS[found.type], init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1)
    yield found
    dist.destroy_process_group()


def train(device: torch.device, precision: Any, folder: Path, *, fused: bool) -> FitResult:
    torch.manual_seed(0)
    model = trainings.Network()
    return fit(
        model,
        trainings.in_turn,
        trainings.TensorBatches(trainings.POINTS.float(), trainings.TARGETS.float(), batch_size=8, seed=0),
        torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2, fused=fused),
        plan=Plan(epochs=3, clip_norm=0.5, ema_decay=0.7, precision=precision),
        device=device,
        seed=0,
        evaluate=None,
        checkpoints=folder,
        metrics=None,
        console=Console(quiet=True),
        world=World(0, 1, 0, device, parallel="fsdp"),
    )


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_only_part_trains_as_the_whole(
    precision: str, fused: bool, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the loss scaler of fp16, clipping and averages; and it goes on from its checkpoint."""
    whole = train(device, precision, tmp_path / "whole", fused=fused)
    monkeypatch.setattr(update, "WholeWeights", ShardedWeights)
    part = train(device, precision, tmp_path / "part", fused=fused)
    again = train(device, precision, tmp_path / "whole", fused=fused)
    for name in ("model", "ema"):
        expected = getattr(whole, name).state_dict()
        torch.testing.assert_close(getattr(part, name).state_dict(), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(getattr(again, name).state_dict(), expected, rtol=0, atol=0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs")
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_gpus_train_what_one_process_trains_on_the_cpu(parallel: str, tmp_path: Path) -> None:
    cases = {name: {"parallel": parallel, "network": name, "device": "cuda"} for name in ("blocks", "normalised")}
    assert run_world(Path(trainings.__file__), tmp_path, json.dumps(cases)) == [0, 0]
    seen = torch.load(tmp_path / "seen-0.pt", weights_only=True, map_location="cpu")
    for name, case in cases.items():
        expected = trainings.train(case, None, None)[1]
        for part in ("model", "ema"):
            torch.testing.assert_close(seen[name][part], expected[part], rtol=0, atol=1e-7)
