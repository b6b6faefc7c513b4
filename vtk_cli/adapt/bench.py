"""`vtk bench adapt`: a step of the unlabelled stage beside a bare training step, queries beside their forward pass."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.adapt.domain_norm import TARGET
from vtk_cli.adapt.learner import Learner, build_learner
from vtk_cli.adapt.method import Method
from vtk_cli.adapt.networks import build_network
from vtk_cli.adapt.objectives import PseudoLabelled, UnlabelledObjective
from vtk_cli.adapt.query.catalog import QuerySettings
from vtk_cli.adapt.query.outputs import PoolOutputs
from vtk_cli.adapt.query.selecting import query_rng, select
from vtk_cli.adapt.stage_batches import Together
from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.timing import in_turns, seconds_of
from vtk_cli.engine.update import Clock
from vtk_cli.models.evaluation import normalised
from vtk_cli.reports.evidence import BenchRow

STEP_TARGET = 0.8
"""The bare step's time over ours, which may cost 1.25 x."""
_CLASSES = 10
_QUERIES = ("loss", "entropy", "clue", "coreset", "badge")


def measure(*, smallest: bool, device: torch.device, console: Console) -> list[BenchRow]:
    """Time all, in turns; the medians."""
    rounds = 3 if smallest else 15
    pool = 100 if smallest else 2_000
    networks = ("digits-cnn",) if smallest else ("digits-cnn", "resnet18")
    rows = [_step_row(name, rounds if name == "digits-cnn" else 5, device, console) for name in networks]
    return [*rows, *(_query_row(name, pool, rounds, device, console) for name in _QUERIES)]


def _step_row(name: str, rounds: int, device: torch.device, console: Console) -> BenchRow:
    """A step on pseudo labels with information maximisation and the loss predictor, and cross-entropy alone."""
    size, batch = (32, 64) if name == "digits-cnn" else (64, 16)
    method = Method(replay=0.0, pl_refreshes=1)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8).to(device)
    labels = (torch.arange(batch) % _CLASSES).to(device)
    ours = _step(_learner(name, size, method, device, console), method, images, device)
    theirs = _bare(_learner(name, size, method, device, console), images, labels, device)
    seconds = in_turns(ours, theirs, rounds)
    return _row(
        f"a step of the unlabelled stage, {name}, {batch} images of {size} px",
        seconds,
        peer="forward, cross-entropy, backward and update of the same network",
        target=STEP_TARGET,
        device=device,
        note=f"{seconds[0] / seconds[1]:.2f}x the time of the bare step; replay off",
    )


def _query_row(strategy: str, pool: int, rounds: int, device: torch.device, console: Console) -> BenchRow:
    """Choosing 2.5 % of a pool, and the forward pass over the pool that every strategy but `random` needs."""
    method = Method()
    learner = _learner("digits-cnn", 32, method, device, console)
    images = torch.randint(0, 256, (pool, 3, 32, 32), dtype=torch.uint8).to(device)
    outputs = _outputs(learner, images)
    labelled = outputs.embeddings[: pool // 20]
    count = max(1, pool // 40)

    def choose() -> object:
        return select(strategy, outputs, labelled, count, query_rng(0, 1), settings=QuerySettings())

    seconds = in_turns(
        lambda: seconds_of(choose, torch.device("cpu")),
        lambda: seconds_of(lambda: _outputs(learner, images), device),
        max(3, rounds // 3),
    )
    return _row(
        f"query {strategy}, {count} of {pool:,} images",
        seconds,
        peer="the forward pass over the pool, digits-cnn",
        target=None,
        device=device,
        note=f"{seconds[0] / seconds[1]:.3f}x the time of the forward pass, which comes on top",
    )


def _learner(name: str, size: int, method: Method, device: torch.device, console: Console) -> Learner:
    torch.manual_seed(0)
    network = build_network(name, classes=_CLASSES, console=console, size=size)
    return build_learner(network.to(device), method, seed=0, device=device)


def _step(learner: Learner, method: Method, images: Tensor, device: torch.device) -> Callable[[], float]:
    count = len(images)
    held = PseudoLabelled(learner.parts, count).to(device).train()
    objective = UnlabelledObjective(method, 1_000_000, lambda _: (torch.zeros(count, _CLASSES), torch.zeros(count)))
    batch = (torch.arange(count), Together(images))
    clock = Clock(0, 1, 0)  # neither the time to make pseudo labels nor late enough for the predictor to rest

    def work() -> None:
        learner.optimizer.zero_grad(set_to_none=True)
        objective(held, batch, clock).backward()
        learner.optimizer.step()

    return lambda: seconds_of(work, device)


def _bare(learner: Learner, images: Tensor, labels: Tensor, device: torch.device) -> Callable[[], float]:
    network = learner.network.train()

    def work() -> None:
        learner.optimizer.zero_grad(set_to_none=True)
        answer = network(normalised(images, network.pixels), TARGET)
        F.cross_entropy(answer.logits, labels).backward()
        learner.optimizer.step()

    return lambda: seconds_of(work, device)


@torch.no_grad()
def _outputs(learner: Learner, images: Tensor) -> PoolOutputs:
    learner.parts.eval()
    answer = learner.network(normalised(images, learner.network.pixels), TARGET)
    predicted = learner.parts.predictor(answer)
    ids = tuple(f"{row:06d}" for row in range(len(images)))
    return PoolOutputs(ids, answer.logits.float().cpu(), answer.embedding.float().cpu(), predicted.float().cpu())


def _row(
    name: str, seconds: tuple[float, float], *, peer: str, target: float | None, device: torch.device, note: str
) -> BenchRow:
    versions = {package: version(package) for package in ("torch", "timm")}
    return BenchRow(name, *seconds, peer, target, describe_device(device), versions, note)
