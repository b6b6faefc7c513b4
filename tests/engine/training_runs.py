"""Trainings in processes that can be killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from tests.forked import exit_code, fork
from vtk_cli.console import Console
from vtk_cli.engine import checkpoint
from vtk_cli.engine.batches import LoaderBatches
from vtk_cli.engine.loop import Clock, FitResult, Plan, fit
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.errors import VtkError

EPOCHS, SAMPLES, BATCH, ACCUMULATE = 4, 46, 6, 2
UPDATES_PER_EPOCH = 4  # 7 batches of 6 and one of 4, two an update


class NoisyPoints(Dataset[tuple[Tensor, float, int]]):
    """Points in the plane, moved by what three generators draw; the class is the half-plane."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, float, int]:
        point = torch.randn(8, generator=torch.Generator().manual_seed(index))
        point = point + 0.1 * torch.randn(8) + 0.1 * float(np.random.standard_normal())  # noqa: NPY002
        return point, random.random(), int(point[0] > 0)  # noqa: S311


def train(case: dict[str, Any]) -> FitResult:
    """One training with everything that has a state: dropout, batch norm, EMA, clipping, schedule, accumulation."""
    seed_everything(3)
    model = nn.Sequential(nn.Linear(9, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.05)
    scheduler = CosineLRScheduler(optimizer, EPOCHS * UPDATES_PER_EPOCH, warmup_t=3, t_in_epochs=False)

    def loss(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        _, points, numbers, labels = batch
        if clock.step == case.get("at"):
            signaled(case)
        noise = torch.randn(len(points), generator=torch.Generator().manual_seed(clock.seed % 2**63))
        inputs = torch.cat([points, (numbers.float() + noise).unsqueeze(1)], dim=1)
        return F.cross_entropy(model(inputs + 0.05 * torch.randn_like(inputs)), labels)

    def evaluate(model: nn.Module) -> dict[str, float]:
        assert not model.training
        if case.get("at_evaluation") == (done := case.setdefault("evaluations", 0)):
            signaled(case)
        case["evaluations"] = done + 1
        return {"norm": float(sum(p.detach().norm() for p in model.parameters())), "drawn": torch.rand(()).item()}

    return fit(
        model,
        loss,
        LoaderBatches(NoisyPoints(), BATCH, seed=5, workers=case.get("workers", 0)),
        optimizer,
        plan=Plan(
            EPOCHS,
            accumulate=ACCUMULATE,
            clip_norm=1.0,
            ema_decay=0.8,
            checkpoint_steps=3,
            evaluate_epochs=2,
            log_steps=5,
        ),
        device=torch.device("cpu"),
        seed=7,
        scheduler=scheduler,
        evaluate=evaluate,
        checkpoints=Path(case["out"], "checkpoints"),
        metrics=Path(case["out"], "metrics.jsonl"),
        console=Console(quiet=True),
    )


def signaled(case: dict[str, Any]) -> None:
    """Send the case's signal, once, to this process or to its whole group."""
    number = signal.Signals[case.pop("signal", "SIGKILL")]
    case.pop("at", None)
    if case.get("group"):  # as a scheduler does: sent by another process, and not to this one alone
        subprocess.run(["kill", f"-{number}", "--", f"-{os.getpgrp()}"], check=False)
        time.sleep(0.5)  # until it has reached the workers
    else:
        os.kill(os.getpid(), number)


def kill_before_publishing(case: dict[str, Any]) -> None:
    """Die when a checkpoint is written but not yet under its name."""

    def publish(temporary: Path, path: Path) -> None:
        if path.name.startswith(f"step-{case['at_publishing']:08d}"):
            signaled(case)
        whole(temporary, path)

    whole = checkpoint.publish
    checkpoint.publish = publish


def run(case: dict[str, Any]) -> int:
    """Train, and save what came out; the exit code is that of the program."""
    os.setsid()
    torch.set_num_threads(1)
    if "at_publishing" in case:
        kill_before_publishing(case)
    try:
        result = train(case)
    except VtkError as error:
        Path(case["out"], "error.txt").write_text(str(error))
        return int(error.exit_code)
    except KeyboardInterrupt:
        return 130
    assert result.ema is not None
    outcome = {"model": result.model.state_dict(), "ema": result.ema.state_dict(), "metrics": dict(result.metrics)}
    torch.save(outcome, Path(case["out"], "result.pt"))
    return 0


def exit_codes(cases: list[dict[str, Any]]) -> list[int]:
    """Run the cases in turn, each in its own process."""
    codes = []
    for case in cases:
        Path(case["out"]).mkdir(parents=True, exist_ok=True)
        codes.append(exit_code(fork(lambda case=case: run(case))))
    return codes
