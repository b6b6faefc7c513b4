"""The one loop of everything that trains: updates, schedule, evaluation, metrics, checkpoints, signals, resume.

A job hands it a model, a loss, batches and an optimiser, and gets the trained model back. Interrupted anywhere and
started again, it goes on from the last checkpoint; on the CPU the result is the same bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from torch import nn

from vtk_cli.console import Console, Progress
from vtk_cli.engine.batches import Batches
from vtk_cli.engine.checkpoint import latest_checkpoint, save_checkpoint
from vtk_cli.engine.loss_meter import LossMeter, Mean
from vtk_cli.engine.metrics import MetricsLog, Row
from vtk_cli.engine.nonfinite import ADVICE, LEAVE_OUT
from vtk_cli.engine.plan import FitResult, Plan
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import preserved_rng, restore_rng_state, rng_state, sample_seed, seed_everything
from vtk_cli.engine.signals import StopRequest, stop_requests
from vtk_cli.engine.throughput import Throughput
from vtk_cli.engine.update import Clock, Loss, Scheduler, Updater
from vtk_cli.errors import JobError, UserError, VtkError

__all__ = ["Clock", "Evaluate", "FitResult", "Loss", "Plan", "Scheduler", "fit"]

Evaluate = Callable[[nn.Module], Mapping[str, float]]
"""Measures a model; the names and values go to the epoch's row of `metrics.jsonl`."""

AfterEpoch = Callable[[Row, nn.Module, nn.Module | None], None]
"""Hears an epoch's row, the model and the averaged model, if there is one; in the first process alone."""

BEAT_SECONDS = 1.0
"""How often an accelerator's losses are read, and several processes agree on whether to save or stop."""

_BEAT_UPDATES = 256
_SHOW_SECONDS = 0.2


def fit(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    *,
    plan: Plan,
    device: torch.device,
    seed: int,
    scheduler: Scheduler | None = None,
    evaluate: Evaluate | None,
    after_epoch: AfterEpoch | None = None,
    checkpoints: Path | None,
    metrics: Path | None,
    console: Console,
    description: str = "training",
    world: World | None = None,
) -> FitResult:
    """Train `model`, or go on with a training that was interrupted.

    Args:
        model: its parameters and buffers are all the state that the method has; moved to `device`.
        loss: `loss(model, batch, clock)`: the mean loss over the batch, or an iterator of losses whose sum it is. The
            iterator's losses are back-propagated one after another, so that the graph of the first is gone before
            the second is built. To be called through the `model` that it is given, by `forward`: among several
            processes that is the wrapper that averages gradients, or a copy whose weights are in parts: not those of
            `model`, which are then of the last evaluation. `batch` is what `batches` yields, on `device` but for its
            indices.
        batches: the data; see `Batches`.
        optimizer: over the model's parameters; may be one that another training has used.
        plan: how to train.
        device: where.
        seed: of the clock, and of the global generators of every process but the first (which goes on with its own):
            equal ones would drop the same units and branches everywhere.
        scheduler: a timm scheduler; stepped by updates and by epochs, and its own `t_in_epochs` decides.
        evaluate: called after epochs as the plan says, in every process, with the model in eval mode, and again with
            the averaged model if there is one; what it draws from the global generators does not change the training.
        after_epoch: called at the end of every epoch, e.g. to keep the best weights. After a kill some epochs are made
            again, and it is called for them again with the same values.
        checkpoints: the folder to resume from and to save to; None keeps no state.
        metrics: the JSON-lines file to write, in place of what is there: a row an epoch, with the epochs finished
            (`epoch`), the updates made (`step`), the epoch's mean `loss`, the `lr` that comes next, what `evaluate`
            returned, and as `ema_...` what it returned for the averaged model.
        console: shows the progress.
        description: of the progress.
        world: this process among those that train together; only rank 0 writes.

    Raises:
        JobError: the loss or the weights are not finite, more often than the plan leaves out; or the disk is full. The
            last good checkpoint stays.
        UserError: the checkpoints are of another model or plan, or the folder may not be written.
        VtkError: what `batches` raised, in whichever process; raised in all.
        Preempted: SIGTERM or SIGUSR1 came; the state is saved.
        KeyboardInterrupt: SIGINT came; the state is saved, unless it is the second.
    """
    world = world or World(0, 1, 0, device)
    if world.size == 1 and world.parallel == "fsdp":
        console.note("--parallel fsdp: a single process holds all weights")
    if not world.is_main:
        seed_everything(sample_seed(seed, 0, world.rank))
    updater = Updater(
        model,
        loss,
        optimizer,
        scheduler,
        clip_norm=plan.clip_norm,
        ema_decay=plan.ema_decay,
        precision=plan.precision,
        seed=seed,
        world=world,
        skip_nonfinite=plan.skip_nonfinite or 0,
        data=batches,
        console=console,
    )
    log = MetricsLog(metrics if world.is_main else None)
    hooks = (evaluate, after_epoch)
    loop = _Loop(updater, batches, plan=plan, hooks=hooks, checkpoints=checkpoints, log=log, world=world, seed=seed)
    loop.restore(console)
    with stop_requests() as stop, loop.shown(console, description) as progress, _closed(batches):
        loop.run(stop, progress)
    history = tuple(log.rows)
    last = next((row for row in reversed(history) if "epoch" in row), {})
    speed = (loop.images_per_second, loop.throughput.seconds)
    updater.finish()
    return FitResult(updater.weights.model.eval(), updater.weights.averaged, loop.updates, last, history, *speed)


@contextmanager
def _closed(holder: object) -> Iterator[None]:
    """Afterwards `holder` is closed, if it has a `close`: what runs for it ends now, also after an error."""
    try:
        yield
    finally:
        close = getattr(holder, "close", None)
        if close is not None:
            close()


class _Loop:
    """Where a training is, and the rhythm of its saving, logging and obeying of signals.

    A beat is when losses are read and signals obeyed: on one CPU after every update, which costs nothing there; on an
    accelerator, or among several processes, about every second, since each beat makes the device wait.
    """

    def __init__(
        self,
        updater: Updater,
        batches: Batches,
        *,
        plan: Plan,
        hooks: tuple[Evaluate | None, AfterEpoch | None],
        checkpoints: Path | None,
        log: MetricsLog,
        world: World,
        seed: int,
    ) -> None:
        self.updater, self.batches, self.plan, self.seed = updater, batches, plan, seed
        self.evaluate, self.after_epoch = hooks
        self.checkpoints, self.log, self.world = checkpoints, log, world
        self.meter = LossMeter(world, updater.culprits, ADVICE if plan.skip_nonfinite is None else LEAVE_OUT)
        self.epoch = self.position = self.updates = 0  # epochs done, batches done in this one, updates done in all
        self._saved: tuple[int, int, int] | None = None
        self._failure: VtkError | None = None
        self._latest: tuple[Any, ...] | None = None
        self.throughput = Throughput()
        self._saved_at = self._shown_at = time.monotonic()
        self._beaten = self._shown = 0  # updates done at the last beat, and when progress was last shown
        self._next_beat = 1

    @property
    def _place(self) -> tuple[int, int, int]:
        return self.epoch, self.position, self.updates

    @property
    def images_per_second(self) -> float | None:
        """Over all processes, which share each batch equally; None before there was any update."""
        rate = self.throughput.rate
        return None if rate is None else rate * self.world.size

    @contextmanager
    def shown(self, console: Console, description: str) -> Iterator[Progress]:
        """Progress over the updates that are still to be made."""
        total = self.plan.epochs * -(-self.batches.steps_per_epoch // self.plan.accumulate)
        if self.updates:
            console.note(f"{description}: going on after step {self.updates} of {total}")
        face = console if self.world.is_main else Console(quiet=True)
        with face.progress(description, max(total - self.updates, 0)) as progress:
            yield progress

    def run(self, stop: StopRequest, progress: Progress) -> None:
        """Train to the end of the plan and save the end."""
        while self.epoch < self.plan.epochs:
            self._train_epoch(stop, progress)
            self._end_epoch()
            self._beat(stop, progress)
        if self._place != self._saved:
            self._save()
        stop.raise_if_requested(self._where_saved())

    def _train_epoch(self, stop: StopRequest, progress: Progress) -> None:
        self.updater.weights.called.train()
        batches = self.batches.epoch(self.epoch, self.position)
        self.throughput.start()
        with _closed(batches):
            steady = batches if self.world.size == 1 else self._steady(batches)
            while group := list(islice(steady, self.plan.accumulate)):
                self.updater(group, self.epoch, self.updates, self.meter)
                self.throughput.count(sum(len(batch[0]) for batch in group))
                self.position += len(group)
                self.updates += 1
                if self.plan.log_steps is not None and self.updates % self.plan.log_steps == 0:
                    self._log_step()
                if self.updates >= self._next_beat or self._is_save_step() or self._is_epoch_done():
                    self._beat(stop, progress)
        if not self._is_epoch_done():
            raise ValueError(f"an epoch of {self.batches.steps_per_epoch} batches ended after {self.position}")

    def _steady(self, batches: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """`batches`; from an error of the data on the last one again, until the others hear of it at the next beat.

        They would wait in vain for this process to make its part of an update. Nothing is saved before they hear.
        """
        while True:
            batch = None
            try:
                batch = next(batches, None) if self._failure is None else self._latest
            except VtkError as error:
                self._failure, batch = error, self._latest
            if self._latest is None:  # the first batch of the sitting: there is none to take its place
                self._raise_failures()
            if batch is None:
                return
            self._latest = batch
            yield batch

    def _raise_failures(self) -> None:
        """Raise what any process failed with, in all of them."""
        for failure in self.world.gather(self._failure):
            if failure is not None:
                raise failure

    def _log_step(self) -> None:
        self.meter.read()
        self.log.append({"step": self.updates, "loss": self.meter.window.value, "lr": self.updater.lr})
        self.meter.window = Mean()

    def _is_epoch_done(self) -> bool:
        return self.position == self.batches.steps_per_epoch

    def _is_save_step(self) -> bool:
        steps = self.plan.checkpoint_steps
        is_saved = self._saved is not None and self._saved[2] == self.updates
        return steps is not None and self.updates % steps == 0 and not is_saved

    def _end_epoch(self) -> None:
        row: dict[str, float] = {"epoch": self.epoch + 1, "step": self.updates, "loss": self.meter.epoch.value}
        is_last = self.epoch + 1 == self.plan.epochs
        if self.updater.scheduler is not None:
            self.updater.scheduler.step(self.epoch + 1)
        row["lr"] = self.updater.lr
        self.updater.weights.share_statistics()
        is_evaluated = self.evaluate is not None and (is_last or (self.epoch + 1) % self.plan.evaluate_epochs == 0)
        if is_evaluated or self.after_epoch is not None:
            with self.updater.weights.whole():
                if is_evaluated:
                    row |= self._evaluated(row.keys())
                self.log.append(row)
                if (heard := self.after_epoch) is not None:
                    models = (self.updater.weights.model, self.updater.weights.averaged)
                    self.world.on_main(lambda: heard(row, *models))
        else:
            self.log.append(row)
        self.meter.epoch = Mean()
        self.epoch, self.position = self.epoch + 1, 0

    def _evaluated(self, taken: Collection[str]) -> dict[str, float]:
        """What `evaluate` finds, the same in every process."""
        everything: dict[str, float] = {}
        for prefix, model in (("", self.updater.weights.model), ("ema_", self.updater.weights.averaged)):
            if model is None or self.evaluate is None:
                continue
            with preserved_rng():
                found = self.evaluate(model.eval())
            measured = {f"{prefix}{name}": float(value) for name, value in found.items()}
            if clash := {*taken, *everything} & measured.keys():
                raise ValueError(f"`evaluate` may not call its values {sorted(clash)}: the row has these already")
            everything |= self.world.broadcast(measured)
        return everything

    def _beat(self, stop: StopRequest, progress: Progress) -> None:
        """Read the losses, agree with the other processes, save if it is time, obey a signal, show where we are."""
        self.meter.read()
        took, now, made = self.throughput.stop(), time.monotonic(), self.updates - self._beaten
        pause = 1
        if made and (self.world.size > 1 or self.world.device.type != "cpu"):
            pause = max(1, min(_BEAT_UPDATES, int(BEAT_SECONDS * made / max(took, 1e-9))))
        is_due = now - self._saved_at >= self.plan.checkpoint_seconds
        if self.world.size > 1:
            is_due, pause = self._agree(stop, is_due, pause)
        self._beaten, self._next_beat = self.updates, self.updates + pause
        if self._place != self._saved and (is_due or self._is_save_step() or stop.signal is not None):
            self._save()
        stop.raise_if_requested(self._where_saved())
        if now - self._shown_at >= _SHOW_SECONDS:
            speed = f", {self.images_per_second:.1f} images/s" if self.images_per_second else ""
            progress.advance(self.updates - self._shown, f"loss {self.meter.latest:.4g}{speed}")
            self._shown_at, self._shown = now, self.updates
        self.throughput.start()

    def _agree(self, stop: StopRequest, is_due: bool, pause: int) -> tuple[bool, int]:
        """A signal or an error that any process got counts for all; rank 0's clock says when to save and meet again."""
        mine = (int(is_due), pause) if self.world.is_main else (0, 0)
        number, failed, due, pause = self.world.largest(int(stop.signal or 0), int(self._failure is not None), *mine)
        if failed:
            self._raise_failures()
        if number:
            stop.signal = Signals(number)
        return bool(due), pause

    def _where_saved(self) -> str:
        return f"step {self.updates} in {self.checkpoints}" if self.checkpoints is not None else "nothing"

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        self.updater.require_finite_weights(self.updates)
        folder, state = self.checkpoints, self._state()
        self.world.on_main(lambda: save_checkpoint(folder, self.updates, state))
        self._saved, self._saved_at = self._place, time.monotonic()

    def _state(self) -> dict[str, Any]:
        return {
            "shape": self._shape(),
            "place": self._place,
            "updater": self.updater.state_dict(),
            "meter": self.meter.state_dict(),
            "rows": self.log.rows,
            "generators": self.world.gather(rng_state()),
        }

    def _shape(self) -> dict[str, int]:
        """What gives a position inside an epoch its meaning."""
        return {
            "batches an epoch": self.batches.steps_per_epoch,
            "batches an update": self.plan.accumulate,
        }

    def restore(self, console: Console) -> None:
        """Go on from the newest whole checkpoint, or start with an empty log where there is none.

        Raises:
            JobError: the processes find different checkpoints.
            UserError: the checkpoint is of another model or plan.
        """
        found = None if self.checkpoints is None else latest_checkpoint(self.checkpoints, console)
        steps = self.world.gather(None if found is None else found[0])
        if len(set(steps)) > 1:
            raise JobError(f"{self.checkpoints}: the processes find different checkpoints; the folder must be shared")
        if found is None:
            self.log.replace([])
            return
        _, state = found
        for name, now in self._shape().items():
            if state["shape"][name] != now:
                what = f"the checkpoint is of a training with {state['shape'][name]} {name}, this one has {now}"
                raise UserError(what, str(self.checkpoints), "choose another --out")
        try:
            self.updater.load_state_dict(state["updater"])
        except (KeyError, RuntimeError, ValueError) as error:
            what = f"the checkpoint is of another model or optimiser ({error})"
            raise UserError(what, str(self.checkpoints), "choose another --out") from error
        self.meter.load_state_dict(state["meter"])
        self.log.replace(state["rows"])
        self.epoch, self.position, self.updates = self._saved = tuple(state["place"])
        self._beaten = self._shown = self.updates
        self._next_beat = self.updates + 1
        self._restore_generators(state["generators"], console)

    def _restore_generators(self, saved: list[dict[str, Any]], console: Console) -> None:
        """Each process goes on with its own random numbers; those that were not there before begin new ones."""
        if len(saved) != self.world.size and self.world.is_main:
            console.note(f"saved by {len(saved)} process(es), going on with {self.world.size}")
        if self.world.rank < len(saved):
            restore_rng_state(saved[self.world.rank])
        else:
            seed_everything(sample_seed(self.seed, self.updates, self.world.rank))
