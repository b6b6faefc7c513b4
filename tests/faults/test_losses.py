"""Losses and gradients that are not finite: the run stops and names the files, or leaves such updates out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import held
from tests.engine.two_processes import run_world
from tests.faults import lossy_worlds
from tests.faults.forks import ROOT, Forks
from tests.faults.trainings import TRAININGS, leftovers
from vtk_cli.console import Console
from vtk_cli.engine import update
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.checkpoint import latest_checkpoint
from vtk_cli.engine.loop import Clock, FitResult, Plan, fit
from vtk_cli.engine.loss_meter import LossMeter
from vtk_cli.engine.processes.distributed import World
from vtk_cli.errors import JobError

CPU = torch.device("cpu")
SAMPLES, BATCH, EPOCHS = 24, 4, 3
UPDATES = EPOCHS * SAMPLES // BATCH
POINTS = torch.randn(SAMPLES, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(1))
NAMES = [f"points/{index:02}.txt" for index in range(SAMPLES)]

Spoil = Callable[[nn.Module, Tensor, Tensor], Tensor]
SPOILS: dict[str, Spoil] = {
    "nan-loss": lambda model, points, targets: loss_of(model, points, targets) * math.nan,
    "infinite-loss": lambda model, points, targets: loss_of(model, points, targets) + math.inf,
    "nan-inputs": lambda model, points, targets: loss_of(model, points * math.nan, targets),
    "infinite-gradient": lambda model, points, targets: (model(points) * 0).sum().sqrt(),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


def loss_of(model: nn.Module, points: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(model(points).squeeze(1), targets)


class Training:
    """A training in which some updates are spoiled.

    Args:
        spoil: how.
        at: the updates, from 1.
        killed_at: a power cut in this update.
    """

    def __init__(self, spoil: str, at: tuple[int, ...], killed_at: int | None = None) -> None:
        self.spoil, self.at, self.killed_at = SPOILS[spoil], at, killed_at
        self.model = network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.scheduler = CosineLRScheduler(self.optimizer, UPDATES, warmup_t=3, t_in_epochs=False)
        self.indices: dict[int, list[int]] = {}

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        indices, points, targets = batch
        if clock.step + 1 == self.killed_at:
            raise ZeroDivisionError
        self.indices.setdefault(clock.step + 1, []).extend(indices.tolist())
        return (self.spoil if clock.step + 1 in self.at else loss_of)(model, points, targets)

    def run(self, console: Console | None = None, folder: Path | None = None, **plan: Any) -> FitResult:
        return fit(
            self.model,
            self.loss,
            TensorBatches(POINTS, TARGETS, batch_size=BATCH, seed=3, names=NAMES),
            self.optimizer,
            plan=Plan(**{"epochs": EPOCHS, "clip_norm": 1.0, "ema_decay": 0.9, "checkpoint_steps": 1} | plan),
            device=CPU,
            seed=0,
            scheduler=self.scheduler,
            evaluate=None,
            checkpoints=folder,
            metrics=None,
            console=console or Console(),
        )


def without(left_out: tuple[int, ...], accumulate: int) -> tuple[nn.Module, dict[str, Tensor], dict[int, float]]:
    """The same training, written out, without some of its updates: the model, the average, each update's loss."""
    training = Training("nan-loss", ())
    model, batches = training.model, TensorBatches(POINTS, TARGETS, batch_size=BATCH, seed=3)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    number, losses = 0, {}
    for epoch in range(EPOCHS):
        groups = list(batches.epoch(epoch))
        for first in range(0, len(groups), accumulate):
            number += 1
            if number not in left_out:
                found = [loss_of(model, *batch[1:]) for batch in groups[first : first + accumulate]]
                for one in found:
                    (one / accumulate if accumulate > 1 else one).backward()
                losses[number] = float(sum(one.item() for one in found) / accumulate)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                training.optimizer.step()
            training.optimizer.zero_grad()
            training.scheduler.step_update(number)
            if number not in left_out:
                for name, value in model.state_dict().items():
                    if value.is_floating_point():
                        average[name].lerp_(value, 1 - 0.9)
                    else:
                        average[name].copy_(value)
        training.scheduler.step(epoch + 1)
    return model, average, losses


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("spoil", SPOILS)
def test_a_run_with_spoiled_updates_left_out_is_one_without_these_updates(
    spoil: str, accumulate: int, capsys: pytest.CaptureFixture[str]
) -> None:
    at = (2, 5)
    training = Training(spoil, at)
    result = training.run(skip_nonfinite=2, accumulate=accumulate)
    model, average, losses = without(at, accumulate)
    assert_same(result.model.state_dict(), dict(model.state_dict()))
    assert result.ema is not None
    torch.testing.assert_close(dict(result.ema.state_dict()), average)
    per_epoch = UPDATES // EPOCHS // accumulate
    for row in result.history:
        made = [
            losses[step]
            for step in range(int(row["step"] or 0) - per_epoch + 1, int(row["step"] or 0) + 1)
            if step in losses
        ]
        assert row["loss"] == pytest.approx(sum(made) / len(made))
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    what = "the gradient is not finite" if spoil == "infinite-gradient" else r"the loss is (nan|inf)"
    assert len(warnings) == 2
    for count, (step, line) in enumerate(zip(at, warnings, strict=True), 1):
        batch = training.indices[step] if spoil == "infinite-gradient" else training.indices[step][:BATCH]
        files = ", ".join(NAMES[index] for index in batch)
        tail = f"this update is left out, number {count} of 2 at most"
        assert re.fullmatch(f"warning: {what} at step {step}, in the batch of {re.escape(files)}; {tail}", line)
    outcome = "bit for bit the training without those updates; a warning with the step and the files"
    held("faults", f"`--skip-nonfinite`: {spoil.replace('-', ' ')}", outcome, len(at))


def test_one_update_too_many_ends_the_run_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    with pytest.raises(
        JobError, match=r"the loss is nan at step 9, in the batch of points/.*; 2 such updates were left"
    ):
        Training("nan-loss", (4, 6, 9)).run(folder=tmp_path, skip_nonfinite=2)
    found = latest_checkpoint(tmp_path, Console(quiet=True))
    assert found is not None
    assert found[0] == 8
    assert all(tensor.isfinite().all() for tensor in found[1]["updater"]["model"].values())
    result = Training("nan-loss", (4, 6, 9)).run(folder=tmp_path, skip_nonfinite=3)
    assert_same(result.model.state_dict(), dict(without((4, 6, 9), 1)[0].state_dict()))


@pytest.mark.parametrize("between", [None, 0])
def test_a_resumed_run_has_not_forgotten_how_many_it_left_out(between: int | None, tmp_path: Path) -> None:
    """Nor has one that went on for a while without leaving out any."""
    with pytest.raises(ZeroDivisionError):
        Training("nan-inputs", (2, 4, 9), killed_at=6).run(folder=tmp_path, skip_nonfinite=2)
    if between is not None:
        with pytest.raises(ZeroDivisionError):
            Training("nan-inputs", (2, 4, 9), killed_at=8).run(folder=tmp_path, skip_nonfinite=between)
    with pytest.raises(JobError, match="2 such updates were left out before, as many as --skip-nonfinite allows"):
        Training("nan-inputs", (2, 4, 9)).run(folder=tmp_path, skip_nonfinite=2)


def test_without_the_option_a_spoiled_update_ends_the_run_and_names_the_files(tmp_path: Path) -> None:
    training = Training("nan-inputs", (7,))
    with pytest.raises(JobError) as caught:
        training.run(folder=tmp_path)
    files = ", ".join(NAMES[index] for index in training.indices[7])
    assert str(caught.value).startswith(f"the loss is nan at step 7, in the batch of {files}; earlier checkpoints are")
    found = latest_checkpoint(tmp_path, Console(quiet=True))
    assert found is not None
    assert found[0] == 6


@pytest.mark.parametrize(("has_option", "told"), [({"skip_nonfinite": 0}, 1), ({}, 0)], ids=["it has it", "it has not"])
def test_the_option_is_advised_where_the_command_has_it(has_option: dict[str, int], told: int) -> None:
    """Networks that a command trains for itself, as those of the embedded digits, are left to no option."""
    with pytest.raises(JobError) as caught:
        Training("nan-loss", (2,)).run(**has_option)
    assert str(caught.value).count("--skip-nonfinite") == told
    assert "try a lower learning rate" in str(caught.value)


def test_without_the_option_nothing_is_asked_of_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("vtk_cli.engine.processes.whole_weights.WholeWeights.gradient_norm")
    training = Training("nan-loss", ())
    training.run()
    assert not training.model._forward_pre_hooks
    with pytest.raises(AttributeError):
        Training("nan-loss", ()).run(skip_nonfinite=1)


def test_the_hook_on_the_network_ends_with_the_training() -> None:
    training = Training("nan-loss", (3,))
    training.run(skip_nonfinite=1)
    assert not training.model._forward_pre_hooks


def test_many_files_are_counted_in_the_line_and_all_of_them_in_the_log(tmp_path: Path) -> None:
    console, training = Console(quiet=True), Training("nan-loss", (1,))
    with console.log_to(tmp_path / "log.txt"), pytest.raises(JobError, match="and 2 more; earlier checkpoints"):
        fit(
            training.model,
            training.loss,
            TensorBatches(POINTS, TARGETS, batch_size=10, seed=3, names=NAMES),
            training.optimizer,
            plan=Plan(1),
            device=CPU,
            seed=0,
            evaluate=None,
            checkpoints=None,
            metrics=None,
            console=console,
        )
    (line,) = (tmp_path / "log.txt").read_text().splitlines()
    files = ", ".join(NAMES[index] for index in training.indices[1])
    assert line.endswith(f"detail: the samples of step 1: {files}")


def test_an_overflow_in_fp16_is_the_scalers_and_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monkeypatch.setattr(update, "grad_scaler", lambda *_: scaler)
    model = nn.Linear(3, 1, bias=False)
    factors: Iterator[float] = iter([1.0, math.inf, math.nan])

    def loss(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        factor = next(factors)
        found = model(batch[1]).square().mean()
        if math.isinf(factor):  # its gradient alone
            found.register_hook(lambda gradient: gradient * math.inf)
        return found * factor if math.isnan(factor) else found

    updater = update.Updater(
        model,
        loss,
        torch.optim.SGD(model.parameters(), lr=0.1),
        None,
        clip_norm=1.0,
        ema_decay=None,
        precision="fp32",
        seed=0,
        world=World(0, 1, 0, CPU),
        skip_nonfinite=5,
    )
    meter, batch, seen = LossMeter(World(0, 1, 0, CPU)), (torch.arange(4), torch.arange(12.0).view(4, 3) / 12), []
    for step in range(3):
        updater([batch], 0, step, meter)
        seen.append((model.weight.detach().clone(), scaler.get_scale(), updater.state_dict()["left out"]))
    (first, scale, none), (overflown, halved, still_none), (last, kept, one) = seen
    assert torch.equal(overflown, first)
    assert torch.equal(last, first)
    assert (scale, halved, kept) == (1024.0, 512.0, 512.0)
    assert (none, still_none, one) == (0, 0, 1)


CASES: dict[str, dict[str, Any]] = {
    "poisoned": {"network": "normalised", "optimizer": "sgd", "loss": "poisoned", "plan": {"skip_nonfinite": 1}},
    "steep": {"loss": "steep", "plan": {"skip_nonfinite": 1, "accumulate": 2, "epochs": 6}},
}


@pytest.mark.slow
def test_several_processes_leave_out_the_same_updates_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them has the poisoned sample, or the row of the gradient that is not finite."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cases = {
        f"{name}-{parallel}": {**CASES[name], "parallel": parallel} for name in CASES for parallel in ("ddp", "fsdp")
    }
    assert run_world(Path(lossy_worlds.__file__), str(tmp_path), json.dumps(cases)) == [0, 0]
    together = [torch.load(tmp_path / f"seen-{rank}.pt", weights_only=True) for rank in range(2)]
    for name, case in CASES.items():
        _, alone = lossy_worlds.trainings.train(case, None, tmp_path / name)
        assert all(value.isfinite().all() for value in alone["model"].values())
        for seen in together:
            for parallel in ("ddp", "fsdp"):
                for part in ("model", "ema", "optimizer", "rows"):
                    torch.testing.assert_close(seen[f"{name}-{parallel}"][part], alone[part], rtol=0, atol=1e-9)
    held("faults", "`--skip-nonfinite` in 2 processes (DDP and FSDP)", "both leave out the updates that one does", 4)


SAMPLE_NAMES = {
    "train": r"digits/\d{6}",
    "search run": r"digits/\d{6}",
    "prune run": r"noise \d+",
    "detect train": r"\S+/train\S*/\S+\.\w+",
    "segment run": r"\S+\.\w+",
    "video-pretrain run": r"\S+\.mp4",
    "adapt run": r"\S+/\S+\.\w+",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_names_the_files_of_the_first_and_stops_at_the_second(
    name: str, forks: Forks, data_of: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = TRAININGS[name].command(out, data_of(name))
    said = forks.run(
        *words, "--skip-nonfinite", 1, folder=data_of(name), hooks=[("spoil_losses", SAMPLE_NAMES[name], 2, 3)]
    )
    sample = SAMPLE_NAMES[name]
    batch = rf"in the batch of {sample}(, {sample})*( and \d+ more)?"
    (warning,) = [line for line in said.err.splitlines() if line.startswith("warning: the loss")]
    assert re.fullmatch(rf"warning: the loss (of .*)?is nan at step 2, {batch}; .*, number 1 of 1 at most", warning), (
        warning
    )
    assert re.match(rf"error: the loss (of .*)?is nan at step 3, {batch}; 1 such update was left out", said.failure)
    assert not leftovers(out)
    held("faults", f"NaN loss in `vtk {name}`", "exit 1; the line names the step and the batch's files")


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_when_one_more_may_be_left_out(forks: Forks, tmp_path: Path) -> None:
    words = TRAININGS["train"].command(tmp_path / "run", tmp_path)
    assert "is nan at step 3" in forks.run(*words, hooks=[("save_often",), ("spoil_losses", ".*", 3)]).failure
    steps = [int(path.name[5:13]) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert max(steps) == 2
    said = forks.run(*words, "--skip-nonfinite", 1, hooks=[("save_often",), ("spoil_losses", ".*", 3)])
    assert said.code == 0, said.err
    assert "number 1 of 1 at most" in said.err
    held("faults", "NaN loss, then the same command with `--skip-nonfinite 1`", "exit 1, then 0: it goes on")
