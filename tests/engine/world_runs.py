"""What two processes do together. Run as a script by torchrun, or twice with what srun sets in the environment."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.loop import Clock, FitResult, Plan, fit
from vtk_cli.engine.processes.distributed import World, join_world, shared_run_folder
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.seeds import sample_seed, seed_everything
from vtk_cli.engine.update import gradients_stay_here
from vtk_cli.errors import JobError, Preempted, UserError

SAMPLES, BATCH = 48, 8
POINTS = torch.randn(SAMPLES, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.0), nn.Linear(8, 1))


def two_losses(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Iterator[Tensor]:
    """Two forward passes an update, back-propagated apart; only the second one's backward pass exchanges gradients."""
    _, points, targets = batch
    with gradients_stay_here(model):
        yield F.mse_loss(model(points).squeeze(1), targets)
    yield 0.3 * F.l1_loss(model(points.flip(1)).squeeze(1), targets)


def train(world: World | None, out: Path | None, loss: Any = two_losses, **plan: Any) -> FitResult:
    """The same training for one process and for several."""
    model = network()
    options: dict[str, Any] = {"epochs": 3, "accumulate": 2, "ema_decay": 0.7, "clip_norm": 1.0, "log_steps": 2}
    return fit(
        model,
        loss,
        TensorBatches(POINTS, TARGETS, batch_size=BATCH, seed=3, world=world),
        torch.optim.AdamW(model.parameters(), lr=1e-2),
        plan=Plan(**options | plan),
        device=torch.device("cpu"),
        seed=0,
        evaluate=lambda model: {"output": model(POINTS[:1]).sum().item()},
        checkpoints=None if out is None else out / "checkpoints",
        metrics=None if out is None else out / "metrics.jsonl",
        console=Console(quiet=True),
        world=world,
    )


def gradients_between_losses(world: World) -> list[list[list[float]]]:
    """After the first loss and after the second: the first layer's gradient in each process."""
    seen: list[list[list[float]]] = []

    def watching(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Iterator[Tensor]:
        weight = next(model.parameters())
        for loss in two_losses(model, batch, clock):
            yield loss
            assert weight.grad is not None
            seen.append(world.gather(weight.grad.flatten().tolist()))

    train(world, None, watching, epochs=1, accumulate=1)
    return seen[:2]


def statistics_between_epochs(world: World) -> dict[str, Any]:
    """What evaluations find in each process: the running statistics, and what the loss drew at the first step."""
    seed_everything(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    alone = torch.rand((), generator=torch.Generator().set_state(torch.get_rng_state())).item()
    drawn: list[float] = []
    seen: list[list[list[float]]] = []

    def loss(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        drawn.append(torch.rand(()).item())
        return F.mse_loss(model(batch[1]).squeeze(1), batch[2])

    def evaluate(model: nn.Module) -> dict[str, float]:
        norm = model.get_submodule("1")
        seen.append(world.gather(torch.cat((norm.running_mean, norm.running_var)).tolist()))
        return {}

    fit(
        model,
        loss,
        TensorBatches(POINTS, TARGETS, batch_size=BATCH, seed=3, world=world),
        torch.optim.SGD(model.parameters(), lr=0.1),
        plan=Plan(epochs=2, ema_decay=0.5),
        device=torch.device("cpu"),
        seed=0,
        evaluate=evaluate,
        checkpoints=None,
        metrics=None,
        console=Console(quiet=True),
        world=world,
    )
    return {"statistics": seen, "drawn": world.gather(drawn[0]), "alone": alone}


def noisy_losses(world: World, stop_at: int | None = None, spoil_at: int | None = None) -> Any:
    """A loss with noise of the process's own; at a step, one process gets a signal or an infinite loss."""

    def loss(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        _, points, targets = batch
        if clock.step == stop_at and world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        noise = torch.randn_like(points) + torch.randn(3, generator=torch.Generator().manual_seed(clock.seed % 2**63))
        value = F.mse_loss(model(points + 0.1 * noise).squeeze(1), targets)
        return value * float("inf") if clock.step == spoil_at and world.rank == 1 else value

    return loss


def resume_together(world: World, out: Path) -> dict[str, Any]:
    """A training that one process is told to stop, gone on with, beside one that is not."""
    results = []
    for name, stop_at in (("whole", None), ("stopped", 2), ("stopped", None)):
        seed_everything(sample_seed(0, 0, world.rank))
        try:
            results.append(train(world, out / name, noisy_losses(world, stop_at)))
        except Preempted as error:
            message = str(error)
    whole, stopped = ([p.tolist() for p in result.model.parameters()] for result in results)
    return {"equal": whole == stopped, "message": message, "weights": whole}


def fail_together(world: World, out: Path) -> dict[str, str]:
    """Errors that one process alone knows of are raised in both."""
    failures: dict[str, str] = {}
    try:
        train(world, out / "spoiled", noisy_losses(world, spoil_at=1))
    except JobError as error:
        failures["loss"] = str(error)

    def refused() -> Any:
        raise UserError("no", "there")

    try:
        world.on_main(refused)
    except UserError as error:
        failures["main"] = str(error)
    (out / "foreign").mkdir(exist_ok=True)
    (out / "foreign" / "file").touch()
    try:
        with shared_run_folder(world, lambda: open_run(out / "foreign")):
            pass
    except UserError as error:
        failures["folder"] = str(error)
    return failures


def open_run(out: Path) -> Any:
    """A run folder, as rank 0 opens it."""
    return RunFolder.open("train", "x", config={}, out=out, console=Console(quiet=True), seed=0, device="cpu")


def main() -> None:
    """Join, do everything, write what this process saw."""
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    with join_world("cpu") as world:
        seen: dict[str, Any] = {"world": [world.rank, world.size, world.local_rank, world.is_main, str(world.device)]}
        seen["broadcast"] = world.broadcast({"from": world.rank})
        seen["gather"] = world.gather(f"rank {world.rank}")
        seen["largest"] = world.largest(world.rank, -world.rank)
        world.barrier()
        if len(sys.argv) > 2:
            with shared_run_folder(world, lambda: open_run(out / "run")) as folder:
                result = train(world, folder.path)
                folder.finish({"rank": world.rank})
            assert result.ema is not None
            seen["weights"] = [p.tolist() for p in result.model.parameters()]
            seen["ema"] = [p.tolist() for p in result.ema.parameters()]
            seen["gradients"] = gradients_between_losses(world)
            seen["normalised"] = statistics_between_epochs(world)
            seen["resumed"] = resume_together(world, out)
            seen["failures"] = fail_together(world, out)
        (out / f"seen-{world.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
