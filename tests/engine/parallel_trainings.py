"""The same trainings by one process, by several with whole weights, and by several with parts of them.

Run as a script by each process of a world: what to do as JSON on the command line.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.engine import update
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.loop import Clock, FitResult, Plan, fit
from vtk_cli.engine.optimisation import build_optimizer
from vtk_cli.engine.processes.batch_norm import synchronise_batch_norm
from vtk_cli.engine.processes.distributed import World, join_world
from vtk_cli.engine.processes.weights_together import weights_together
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.engine.update import gradients_stay_here
from vtk_cli.errors import UserError

SAMPLES, BATCH, WIDTH = 60, 8, 6
POINTS = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(0)).double()
TARGETS = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(1)).double()


class Block(nn.Module):
    """A residual block; one of its parameters has one row, which only one process can have."""

    def __init__(self, width: int, *, norm: bool) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm1d(width) if norm else nn.LayerNorm(width)
        self.inner = nn.Linear(width, 5)
        self.outer = nn.Linear(5, width)
        self.scale = nn.Parameter(torch.full((1, width), 0.5))

    def forward(self, values: Tensor) -> Tensor:
        residual: Tensor = self.outer(F.gelu(self.inner(self.norm(values))))
        return (values + self.scale * residual).view_as(values)


class Network(nn.Module):
    """Blocks, a stem outside of them, a frozen matrix, a scalar, a weight used twice, a block used twice, a buffer."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.stem = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList([Block(WIDTH, norm=norm) for _ in range(3)])
        self.tied = nn.Linear(WIDTH, WIDTH, bias=False)
        self.tied.weight = self.stem.weight
        self.mixed = nn.Linear(WIDTH, WIDTH).requires_grad_(requires_grad=False)
        self.gain = nn.Parameter(torch.tensor(0.7))
        self.head = nn.Linear(WIDTH, 1)
        self.register_buffer("passes", torch.zeros(()))
        self.passes: Tensor

    def forward(self, values: Tensor, *, overflows: bool = False) -> Tensor:
        values = self.stem(values)
        if overflows:  # in one row of one matrix, which one process has
            values.register_hook(lambda gradient: gradient * gradient.new_tensor([1, 1, 1, 1, 1, torch.inf]))
        for block in (*self.blocks, self.blocks[0]):
            values = block(values)
            values += 0.1  # of what is a view
        if self.training:
            self.passes += 1
        found: Tensor = self.head(self.gain * self.tied(self.mixed(values))).squeeze(1)
        return found


class Taught(nn.Module):
    """A network and one that follows it: its weights are written in the forward pass, in blocks and outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.student = Network()
        self.teacher = nn.ModuleList([copy.deepcopy(self.student)]).requires_grad_(requires_grad=False)

    def forward(self, values: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                pairs = zip(self.teacher[0].parameters(), self.student.parameters(), strict=True)
                for slow, fast in pairs:
                    slow.mul_(0.5).add_(fast.detach(), alpha=0.5)
        with torch.no_grad():
            target = self.teacher[0](values)
        found: Tensor = self.student(values) + 0.1 * target
        return found


class Moody(nn.Module):
    """A network with a block that takes part in some passes only."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()
        self.spare = nn.Linear(WIDTH, WIDTH)

    def forward(self, values: Tensor, *, spare: bool = False) -> Tensor:
        found: Tensor = self.network(self.spare(values) if spare else values)
        return found


class Compared(nn.Module):
    """A network whose weights are compared with one another before it runs."""

    needs_all_weights = True

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, values: Tensor) -> Tensor:
        largest = torch.stack([weight.detach().abs().max() for weight in self.parameters()])
        found: Tensor = self.network(values) * largest.sort().values[len(largest) // 2]
        return found


NETWORKS: dict[str, Any] = {
    "blocks": Network,
    "normalised": lambda: Network(norm=True),
    "taught": Taught,
    "moody": Moody,
    "compared": Compared,
}
OPTIMIZERS: dict[str, Any] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=3e-2, momentum=0.9, nesterov=True, fused=True),
    "lookahead": lambda parameters: build_optimizer([{"params": list(parameters)}], "lookahead_lamb", lr=1e-2),
    "adamp": lambda parameters: build_optimizer([{"params": list(parameters)}], "adamp", lr=1e-2),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=1e-2),
    "fused": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, fused=True),
}


def simple(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
    """Two forward passes before one backward pass."""
    _, points, targets = batch
    return F.mse_loss(model(points), targets) + 0.3 * F.l1_loss(model(points.flip(1)), targets)


def in_turn(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Iterator[Tensor]:
    """Two backward passes, of which only the second exchanges gradients."""
    _, points, targets = batch
    with gradients_stay_here(model):
        yield F.mse_loss(model(points), targets)
    yield 0.3 * F.l1_loss(model(points.flip(1)), targets)


def asking(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Iterator[Tensor]:
    """The network is asked, in eval mode, before and after the backward pass of an update."""
    _, points, targets = batch
    yield F.mse_loss(model(points, spare=clock.step % 2 == 0), targets + 0.1 * asked(model, points))
    asked(model, points)


def limited(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
    """Weights are cut off at nine tenths of the largest before the forward pass, and count in the loss after it."""
    with weights_together(model), torch.no_grad():
        largest = max(float(one.abs().max()) for one in model.parameters())
        for one in model.parameters():
            one.clamp_(-0.9 * largest, 0.9 * largest)
    loss = F.mse_loss(model(batch[1]), batch[2])
    return loss + 0.01 * torch.stack([one.square().sum() for one in model.parameters()]).sum()


def overflowing(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
    """In the fourth update a gradient overflows."""
    return F.mse_loss(model(batch[1], overflows=clock.step == 3), batch[2])


def judging(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
    """The network in eval mode, with the running statistics of the moment, says what it is to learn."""
    _, points, targets = batch
    return F.mse_loss(model(points), targets + 0.5 * asked(model, points))


def asked(model: nn.Module, points: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        found: Tensor = model(points)
    model.train()
    return found


LOSSES: dict[str, Any] = {
    "simple": simple,
    "in turn": in_turn,
    "asking": asking,
    "judging": judging,
    "overflowing": overflowing,
    "limited": limited,
}


class Watched:
    """Batches that note which samples were asked for."""

    def __init__(self, world: World | None, fails_at: int | None = None) -> None:
        self._fails_at = fails_at if world is not None and world.rank == 1 else None
        self._batches = TensorBatches(POINTS, TARGETS, batch_size=BATCH, seed=3, world=world)
        self.steps_per_epoch = self._batches.steps_per_epoch
        self.seen: list[list[int]] = []

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        for batch in self._batches.epoch(epoch, start):
            if len(self.seen) == self._fails_at:
                raise UserError(f"sample {batch[0][0]} is broken", "the second process")
            self.seen.append(batch[0].tolist())
            yield batch


def train(case: dict[str, Any], world: World | None, folder: Path | None) -> tuple[FitResult | None, dict[str, Any]]:
    """One training, and what was seen on the way."""
    seed_everything(0)
    device = torch.device("cpu") if world is None else world.device
    model = NETWORKS[case.get("network", "blocks")]().double()
    if world is not None and world.size > 1 and case.get("sync", True):
        synchronise_batch_norm(model)
    optimizer = OPTIMIZERS[case.get("optimizer", "adamw")]([one for one in model.parameters() if one.requires_grad])
    batches, inside = Watched(world, case.get("fails_at")), list[int]()
    loss = LOSSES[case.get("loss", "simple")]

    def watching(called: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Any:
        parameters = list(called.parameters())
        inside[:] = [sum(_rows(one).numel() for one in parameters), sum(one.numel() for one in parameters)]
        if clock.step == case.get("stop_at"):
            raise Stopped
        return loss(called, batch, clock)

    outputs: list[float] = []
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if case.get("loss") == "overflowing" else None

    def evaluate(found: nn.Module) -> dict[str, float]:
        assert not any(isinstance(one, DTensor) for one in found.parameters())
        with torch.no_grad():
            outputs.append(found(POINTS.to(device)).square().mean().item())
        return {"output": outputs[-1]}

    heard: list[bool] = []

    def sitting(number: int) -> FitResult:
        return fit(
            model,
            watching,
            batches,
            optimizer,
            plan=Plan(**{"epochs": 3, "clip_norm": 0.5, "ema_decay": 0.7} | case.get("plan", {})),
            device=device,
            seed=number,
            evaluate=evaluate,
            after_epoch=lambda row, found, averaged: heard.append(found is model),
            checkpoints=None if folder is None else folder / f"checkpoints-{number}",
            metrics=None if folder is None else folder / f"metrics-{number}.jsonl",
            console=Console(quiet=True),
            world=world,
        )

    try:
        with patch.object(update, "grad_scaler", lambda *_: scaler):
            *_, result = [sitting(number) for number in range(case.get("sittings", 1))]
    except (Stopped, UserError) as error:
        return None, {"indices": batches.seen, "error": str(error)}
    assert result.model is model
    assert all(heard)
    return result, {
        "model": {name: value.clone() for name, value in result.model.state_dict().items()},
        "ema": None if result.ema is None else {**result.ema.state_dict()},
        "indices": batches.seen,
        "parts": inside,
        "optimizer": optimizer.state_dict(),
        "rows": [dict(row) for row in result.history],
        "outputs": outputs,
    }


class Stopped(Exception):
    """Stands for a power cut."""


def _rows(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def main() -> None:
    """Do the cases in turn; what each process saw goes to a file."""
    folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    (device,) = {case.get("device", "cpu") for case in cases.values()}
    with join_world(device) as joined:
        for name, case in cases.items():
            world = World(joined.rank, joined.size, joined.local_rank, joined.device, joined.patient, case["parallel"])
            where = folder / case.get("folder", name)
            found[name] = train(case, world, where)[1]
        torch.save(found, folder / f"seen-{joined.rank}.pt")


if __name__ == "__main__":
    main()
