"""`--nproc N`: what is refused, what is started, and how the exit codes of processes become one."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pytest
import torch
from torch.distributed.elastic.agent.server.api import RunResult, WorkerState
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from vtk_cli import __version__
from vtk_cli.app import main
from vtk_cli.engine.processes import local_processes
from vtk_cli.engine.processes.local_processes import require_devices, run_processes, verdict
from vtk_cli.engine.signals import STOP_SIGNALS
from vtk_cli.errors import ExitCode, Interrupted, JobError, Preempted, UserError

TINY = ["train", "--model", "test_vit", "--img-size", "32", "--images-per-class", "4", "--device", "cpu"]


def failed(*codes: int) -> dict[int, ProcessFailure]:
    """Failures of ranks 0, 1 ...: found one after another."""
    return {rank: ProcessFailure(rank, 1000 + rank, code, "") for rank, code in enumerate(codes)}


# What is refused, and what is no work for several


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", "--nproc: 3 processes need a GPU each, and there are 2; give at most --nproc 2, or --device cpu"),
        ("auto", "--nproc: 3 processes need a GPU each, and there are 2; give at most --nproc 2, or --device cpu"),
        ("cuda:1", "--device cuda:1: is one device, and there are to be 3 processes"),
    ],
)
def test_more_processes_than_devices_are_refused(device: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    with pytest.raises(UserError) as refused:
        require_devices(device, 3)
    assert str(refused.value).startswith(words)


def test_as_many_processes_as_devices_and_any_number_on_the_cpu_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    require_devices("cpu", 99)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    require_devices("cuda", 2)


@pytest.mark.parametrize("words", [["--nproc", "2"], ["--nproc", "1"]])
def test_a_plan_and_a_single_process_are_made_here(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_processes, "run_processes", lambda *_, **__: pytest.fail("processes were started"))
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")  # which is put back afterwards
    assert main([*TINY, *words, "--dry-run", "--quiet"]) == 0


# What is started


def test_what_is_started_again_is_the_command_line_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start(arguments: Sequence[str], count: int, *, show_agent: bool) -> ExitCode:
        started.append((list(arguments), count, show_agent))
        return ExitCode.PREEMPTED

    monkeypatch.setattr(local_processes, "run_processes", start)
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")  # which is put back afterwards
    words = [*TINY, "--nproc", "3"]
    assert main(words) == 75
    assert started == [(words, 3, False)]


def test_the_first_process_alone_writes_to_stdout_and_all_is_left_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    numbers = (*STOP_SIGNALS, signal.SIGHUP, signal.SIGQUIT)
    before = dict(os.environ), [signal.getsignal(number) for number in numbers]
    assert run_processes(["--version"], 3) is ExitCode.DONE
    assert capfd.readouterr() == (f"vtk {__version__}\n", "")
    assert before == (dict(os.environ), [signal.getsignal(number) for number in numbers])


@pytest.mark.parametrize(("set_before", "given"), [(None, "2"), ("5", "5")])
def test_the_processes_share_the_cores(set_before: str | None, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Agent:
        def __init__(self, *_: object) -> None:
            pass

        def run(self) -> RunResult:
            seen.append(os.environ["OMP_NUM_THREADS"])
            return RunResult(WorkerState.SUCCEEDED)

    monkeypatch.setattr(local_processes, "_Agent", Agent)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    if set_before is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", set_before)
    assert run_processes([], 3) is ExitCode.DONE
    assert seen == [given]
    assert os.environ.get("OMP_NUM_THREADS") == set_before


# How it ends


@pytest.mark.parametrize(
    ("codes", "one"),
    [((), 0), ((2, 2), 2), ((1, -15), 1), ((75, -15), 75), ((130, 130), 130), ((1, -9), 1), ((99, 1), 1)],
)
def test_the_exit_code_is_that_of_the_process_that_failed_first(codes: tuple[int, ...], one: int) -> None:
    assert verdict(failed(*codes), [], 2) == one


def test_a_killed_process_is_named() -> None:
    with pytest.raises(JobError, match="process 1 of 4 was killed by SIGKILL"):
        verdict({1: failed(0, -9)[1], **failed(-15)}, [], 4)
    with pytest.raises(JobError, match="killed by SIGSEGV"):
        verdict(failed(-11), [signal.SIGTERM], 1)


def test_a_process_that_ends_by_a_signal_passed_on_has_been_stopped() -> None:
    with pytest.raises(Preempted, match="stopped by SIGTERM before there was anything to save"):
        verdict(failed(-15, -15), [signal.SIGTERM], 2)
    with pytest.raises(Interrupted, match="stopped by SIGINT"):
        verdict(failed(-2, 1), [signal.SIGINT, signal.SIGINT], 2)
