"""Several processes of one command on this machine, under torch's elastic agent.

The agent (`torch.distributed.elastic`, what torchrun runs) chooses a free port, names the processes to one another,
and ends all when one has failed. Signals go to the processes, which save and end by themselves, however long that
takes; the agent on its own would kill them after 30 seconds.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

import torch
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, LogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from vtk_cli.engine.devices import resolve_device
from vtk_cli.engine.signals import STOP_SIGNALS
from vtk_cli.errors import ExitCode, Interrupted, JobError, Preempted, UserError

_HOST = "localhost"
_SECONDS_AFTER_SECOND_INTERRUPT = 5
_AGENT_SIGNALS = ("SIGHUP", "SIGQUIT")
"""What the agent itself ends all processes by."""


def require_devices(device: str, count: int) -> None:
    """Refuse more processes than there are devices for.

    Args:
        device: as `resolve_device` takes it.
        count: how many processes, above 1.

    Raises:
        UserError: no such device, it is a single one, or there are fewer than `count`.
    """
    kind = resolve_device(device).type
    if kind == "cpu":
        return
    if kind == "mps" or device.startswith("cuda:"):
        what = f"is one device, and there are to be {count} processes"
        raise UserError(what, f"--device {device}", "leave out --nproc, or choose --device cuda or cpu")
    if count > (found := torch.cuda.device_count()):
        what = f"{count} processes need a GPU each, and there are {found}"
        raise UserError(what, "--nproc", f"give at most --nproc {found}, or --device cpu")


def run_processes(arguments: Sequence[str], count: int, *, show_agent: bool = False) -> ExitCode:
    """Run `vtk ARGUMENTS` in `count` processes that train together, and wait for them.

    SIGTERM, SIGUSR1 and SIGINT go to the processes. A second SIGINT ends them at once.

    Args:
        arguments: of the program, without its name.
        count: how many processes.
        show_agent: whether to print what torch's agent logs.

    Returns:
        The exit code of the process that failed first, which has said why; `DONE` where none did.

    Raises:
        JobError: a process was killed.
        Preempted, Interrupted: the processes were asked to stop before they could save.
    """
    rendezvous = RendezvousParameters(
        backend="c10d",
        endpoint=f"{_HOST}:0",  # a free port
        run_id=uuid.uuid4().hex,
        min_nodes=1,
        max_nodes=1,
        local_addr=_HOST,
    )
    spec = WorkerSpec(
        role="vtk",
        local_world_size=count,
        rdzv_handler=get_rendezvous_handler(rendezvous),
        entrypoint=sys.executable,
        args=("-m", "vtk_cli", *arguments),
        max_restarts=0,
        local_addr=_HOST,
    )
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, _cores() // count)))
    with ExitStack() as stack:
        unheard = stack.enter_context(tempfile.TemporaryDirectory(prefix="vtk-processes-"))
        logs = DefaultLogsSpecs(unheard, redirects=dict.fromkeys(range(1, count), Std.OUT))
        if not show_agent:
            stack.enter_context(_silent_agent())
        stack.enter_context(
            _environment({"OMP_NUM_THREADS": threads, "TORCHELASTIC_SIGNALS_TO_HANDLE": ",".join(_AGENT_SIGNALS)})
        )
        stop = stack.enter_context(_noted_signals())
        stack.callback(spec.rdzv_handler.shutdown)
        try:
            result = _Agent(spec, logs, stop).run()
        except SignalException as ended:
            raise JobError(f"ended by {ended.sigval.name}; run the same command again to go on") from ended
    return verdict(result.failures, stop, count)


class _Agent(LocalElasticAgent):
    """Torch's agent; passes on the signals that were noted each time it looks after its processes."""

    def __init__(self, spec: WorkerSpec, logs: LogsSpecs, stop: list[signal.Signals]) -> None:
        super().__init__(spec, logs, shutdown_timeout=_SECONDS_AFTER_SECOND_INTERRUPT)
        self._stop, self._passed_on = stop, 0

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        while self._passed_on < len(self._stop):
            number = self._stop[self._passed_on]
            self._passed_on += 1
            if number is signal.SIGINT and self._stop[: self._passed_on].count(number) > 1:
                self._shutdown(number, timeout=_SECONDS_AFTER_SECOND_INTERRUPT)
                continue
            for worker in worker_group.workers:
                with suppress(ProcessLookupError):
                    os.kill(worker.id, number)
        result: RunResult = super()._monitor_workers(worker_group)
        return result


def verdict(failures: Mapping[int, ProcessFailure], asked: Sequence[signal.Signals], count: int) -> ExitCode:
    """What to return for all the processes: the exit code of the one that failed first, for it has said why.

    Args:
        failures: by rank, as the agent found them.
        asked: the signals that were passed on.
        count: how many processes there were.

    Raises:
        JobError: the first was killed.
        Preempted, Interrupted: it ended by a signal that was passed on, before it could save.
    """
    if not failures:
        return ExitCode.DONE
    rank, first = min(failures.items(), key=_when)
    if first.exitcode > 0:
        return ExitCode(first.exitcode) if first.exitcode in set(ExitCode) else ExitCode.FAILED
    name = first.signal_name()
    if name in {number.name for number in asked}:
        story = f"stopped by {name} before there was anything to save; run the same command again"
        raise Interrupted(story) if name == "SIGINT" else Preempted(story)
    what = f"process {rank} of {count} was killed by {name}"
    raise JobError(f"{what}; the others were ended; run the same command again to go on from the last checkpoint")


def _when(failure: tuple[int, ProcessFailure]) -> int:
    return failure[1].timestamp


@contextmanager
def _noted_signals() -> Iterator[list[signal.Signals]]:
    """The stop signals that came so far, in order; outside the main thread, which alone gets signals, none."""
    noted: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        noted.append(signal.Signals(number))

    ours = dict.fromkeys(STOP_SIGNALS, note)
    theirs = [signal.Signals[name] for name in _AGENT_SIGNALS]
    before = {number: signal.getsignal(number) for number in (*ours, *theirs)}
    try:
        for number in ours:
            signal.signal(number, note)
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """The processes inherit this one's environment, and the agent lets nothing be added to it."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _silent_agent() -> Iterator[None]:
    """Nothing of what the agent logs is printed: the processes have said it, or `verdict` does."""
    log, nobody = logging.getLogger("torch.distributed.elastic"), logging.NullHandler()
    before, log.propagate = log.propagate, False
    log.addHandler(nobody)
    try:
        yield
    finally:
        log.removeHandler(nobody)
        log.propagate = before


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
