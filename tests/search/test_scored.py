"""Scored architectures where losses are not finite, and latencies that several processes ask for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from threading import Event, Thread
from unittest import mock

import pytest
import torch

from vtk_cli.engine.pieces.results import ResultStore
from vtk_cli.errors import UserError
from vtk_cli.models.spaces.catalog import SPACES
from vtk_cli.search.judgement import Judgement
from vtk_cli.search.latency import Latency
from vtk_cli.search.options import SupernetOptions
from vtk_cli.search.pictures import draw_pareto
from vtk_cli.search.scored import Scores, read_scores
from vtk_cli.search.scores.combination import combination
from vtk_cli.search.scores.settings import ScoreSettings
from vtk_cli.search.supernet_file import SupernetRun
from vtk_cli.search.winner import winner_of

SPACE = SPACES["digits-mini"]
SHAPE = SPACE.shape("stand-alone", 10)
CHEAPEST, BETTER, DEAR = (0, 0, 0), (2, 0, 0), (3, 3, 3)


def scores_of(**losses: float | None) -> Scores:
    """By the loss: None stands for one that is not finite."""
    settings = ScoreSettings()
    judgement = Judgement("loss", combination("loss", settings), settings)
    measured = {
        tuple(int(gene) for gene in genes[1:]): {"clean": {"loss": loss, "accuracy": 0.5, "images": 4}}
        for genes, loss in losses.items()
    }
    return Scores.of(measured, SPACE, SHAPE, judgement)


def test_the_front_is_of_those_that_nothing_cheaper_beats() -> None:
    scores = scores_of(_333=1.0, _000=3.0, _200=2.0, _300=2.5, _330=1.5)
    macs = [row.cost.macs for row in scores.pareto()]
    assert macs == sorted(macs)
    for row in scores.rows:
        beaten = any(one.score > row.score and one.cost.macs <= row.cost.macs for one in scores.rows)
        assert (row in scores.pareto()) == (not beaten)


def test_what_has_no_finite_score_is_last_and_on_no_front(tmp_path: Path) -> None:
    scores = scores_of(_000=None, _200=2.0, _333=1.0)
    assert [row.genes for row in scores.rows] == [DEAR, BETTER, CHEAPEST]
    assert [row.genes for row in scores.pareto()] == [BETTER, DEAR]
    assert scores.notes == ["0 0 0: the loss is not finite"]
    assert json.loads(json.dumps(scores.as_json(), allow_nan=False))["architectures"][2]["score"] is None
    scores.write(tmp_path)
    assert read_scores(tmp_path / "scores.csv", SPACE)["loss"][CHEAPEST] == -math.inf
    assert draw_pareto(tmp_path / "pareto", scores).png.stat().st_size


def test_where_nothing_has_a_finite_score_there_is_no_winner(tmp_path: Path) -> None:
    run = SupernetRun(tmp_path, SupernetOptions(), SPACE.shape("supernet", 10), tuple("0123456789"))
    with pytest.raises(UserError, match="none of 2 architectures has a finite loss"):
        winner_of(scores_of(_000=None, _200=None), run)


def test_a_latency_that_another_process_measures_is_waited_for(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    latency = Latency(SPACE, SHAPE, torch.device("cpu"), store)
    held, asked = Event(), Event()
    keys: list[str] = []

    def other() -> None:
        keys.append(latency._key(DEAR))
        with store.working_on(keys[0]):
            held.set()
            asked.wait(0.5)
            store.put(keys[0], {"milliseconds": 123.0})

    process = Thread(target=other)
    process.start()
    held.wait()
    with mock.patch.object(Latency, "_measured", side_effect=AssertionError("it is being measured")):
        assert latency.milliseconds(DEAR) == 123.0
        assert Latency(SPACE, SHAPE, torch.device("cpu"), store).milliseconds(DEAR) == 123.0
    process.join()


def test_a_latency_is_measured_once_for_each_network(tmp_path: Path) -> None:
    with mock.patch.object(Latency, "_measured", side_effect=[1.0, 2.0]):
        latency = Latency(SPACE, SHAPE, torch.device("cpu"), ResultStore(tmp_path))
        assert [latency.milliseconds(genes) for genes in (DEAR, CHEAPEST, DEAR)] == [1.0, 2.0, 1.0]
