"""Independent pieces: computed once whoever asks, found again, torn files made anew, others' results waited for."""

from __future__ import annotations

import signal
import threading
import time
from multiprocessing import get_context

import pytest

from vtk_cli.engine.pieces.results import ResultStore, work_through
from vtk_cli.engine.signals import StopRequest
from vtk_cli.errors import Preempted


def _through(store, pieces, compute, stop=None, **more):
    return work_through(
        pieces,
        key=lambda piece: f"{piece:020d}",
        compute=compute,
        store=store,
        stop=stop or StopRequest(),
        kept="scores",
        **more,
    )


def test_results_come_in_the_order_of_the_pieces_and_are_computed_once(tmp_path):
    store, computed = ResultStore(tmp_path), []

    def square(piece):
        computed.append(piece)
        return {"square": piece**2}

    assert [one["square"] for one in _through(store, [3, 1, 2], square)] == [9, 1, 4]
    assert [one["square"] for one in _through(store, [2, 4, 3], square)] == [4, 16, 9]
    assert computed == [3, 1, 2, 4]


@pytest.mark.parametrize("torn", ["", "{", "[1]", "\x00\x01"])
def test_a_torn_result_is_made_anew(tmp_path, torn):
    store = ResultStore(tmp_path)
    store.put("k" * 20, {"value": 1})
    (file,) = tmp_path.glob("*/*.json")
    file.write_text(torn)
    assert store.get("k" * 20) is None
    assert not file.exists()


def test_what_is_no_result_of_the_piece_is_made_anew(tmp_path):
    store = ResultStore(tmp_path)
    store.put(f"{1:020d}", {"other": 0})
    found = _through(store, [1], lambda piece: {"value": piece}, sound=lambda _piece, result: "value" in result)
    assert found == [{"value": 1}] == [store.get(f"{1:020d}")]


def test_no_lock_is_left_behind(tmp_path):
    _through(ResultStore(tmp_path), [1, 2], lambda piece: {"value": piece})
    assert not any((tmp_path / "locks").iterdir())


def test_what_another_process_works_on_is_left_to_it_and_waited_for(tmp_path):
    store, computed = ResultStore(tmp_path), []
    holding, release = threading.Event(), threading.Event()

    def hold():
        with store.working_on(f"{1:020d}"):
            holding.set()
            release.wait(10)
            store.put(f"{1:020d}", {"value": "theirs"})

    other = threading.Thread(target=hold)
    other.start()
    holding.wait(10)

    def ours(piece):
        computed.append(piece)
        release.set()
        return {"value": "ours"}

    found = _through(store, [1, 2], ours)
    other.join()
    assert [one["value"] for one in found] == ["theirs", "ours"]
    assert computed == [2]


def test_a_signal_is_obeyed_between_two_pieces_and_what_was_finished_is_kept(tmp_path):
    store, stop = ResultStore(tmp_path), StopRequest()

    def compute(piece):
        stop.signal = signal.SIGTERM
        return {"value": piece}

    with pytest.raises(Preempted, match="scores"):
        _through(store, [1, 2], compute, stop)
    assert store.get(f"{1:020d}") == {"value": 1}
    assert store.get(f"{2:020d}") is None


def _slow(folder, log):
    def compute(piece):
        time.sleep(0.01)
        with log.open("a") as stream:
            stream.write(f"{piece}\n")
        return {"value": piece}

    _through(ResultStore(folder), list(range(12)), compute)


@pytest.mark.slow
def test_processes_share_the_work_and_repeat_none(tmp_path):
    log = tmp_path / "log"
    context = get_context("fork")
    workers = [context.Process(target=_slow, args=(tmp_path / "store", log)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(map(int, log.read_text().split())) == list(range(12))
