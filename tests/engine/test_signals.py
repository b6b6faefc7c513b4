"""A signal is noted, and obeyed when the state is saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from vtk_cli.engine.signals import STOP_SIGNALS, StopRequest, prompt_stops, stop_requests
from vtk_cli.errors import ExitCode, Preempted, Stopped


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_noted_and_does_not_stop_anything(number: signal.Signals) -> None:
    with stop_requests() as stop:
        stop.raise_if_requested("nothing")
        os.kill(os.getpid(), number)
        assert stop.signal is number
        stop.signal = None  # else SIGINT would be passed on


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_schedulers_signals_preempt_with_code_75_and_say_what_is_saved(number: signal.Signals) -> None:
    with pytest.raises(Preempted, match=rf"stopped by {number.name} after saving step 3;") as caught:
        StopRequest(number).raise_if_requested("step 3")
    assert caught.value.exit_code == ExitCode.PREEMPTED == 75


def test_sigint_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT after saving step 3;"):
        StopRequest(signal.SIGINT).raise_if_requested("step 3")


def test_the_first_signal_counts() -> None:
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is signal.SIGUSR1


def test_a_second_sigint_interrupts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), stop_requests() as stop:
        _interrupt_twice(stop)


def _interrupt_twice(stop: StopRequest) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal is signal.SIGINT
    os.kill(os.getpid(), signal.SIGINT)
    pytest.fail("it goes on")


def test_the_handlers_before_are_put_back_also_after_an_error() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with pytest.raises(ZeroDivisionError), stop_requests():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_the_inner_of_two_contexts_takes_the_signal() -> None:
    with stop_requests() as outer:
        with stop_requests() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            assert (outer.signal, inner.signal) == (None, signal.SIGTERM)
            inner.signal = None
        assert outer.signal is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert outer.signal is signal.SIGTERM


def test_a_signal_that_the_inner_context_never_obeyed_is_passed_to_the_outer() -> None:
    with stop_requests() as outer:
        with stop_requests():
            os.kill(os.getpid(), signal.SIGUSR1)
        assert outer.signal is signal.SIGUSR1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_command_that_makes_no_step_ends_at_once_by_an_exception_and_only_the_first_signal_counts(
    number: signal.Signals,
) -> None:
    with prompt_stops():
        with stop_requests() as stop:
            os.kill(os.getpid(), number)
            assert stop.signal is number
            stop.signal = None
        with pytest.raises(Stopped, match=f"stopped by {number.name}; .*; run the same command to go on"):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_comes_after_the_last_step_ends_the_command() -> None:
    with pytest.raises(Stopped), prompt_stops(), stop_requests():
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with prompt_stops():
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_process_that_was_forked_dies_of_the_signal() -> None:
    with prompt_stops():
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_outside_the_main_thread_nothing_is_installed() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    seen = []

    def work() -> None:
        with stop_requests() as stop:
            seen.append((stop.signal, [signal.getsignal(number) for number in STOP_SIGNALS]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


def test_a_worker_outlives_signals_also_where_their_sender_is_not_told() -> None:
    code = (
        "import os, signal; del signal.sigwaitinfo; from vtk_cli.engine.workers import outlive_stop_signals;"
        " outlive_stop_signals(0); os.kill(os.getpid(), signal.SIGTERM); print('alive')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "alive\n"
