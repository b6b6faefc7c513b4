"""`vtk prune sweep`: every point once, whoever makes it, and a picture with the baselines in it."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.prune.conftest import TINY, Prune
from vtk_cli.prune.options import TrialOptions
from vtk_cli.prune.pictures import Curve, draw_sweep
from vtk_cli.prune.preparation import Arm
from vtk_cli.prune.recipes import RECIPES
from vtk_cli.prune.sweep import arms_of, curves_of
from vtk_cli.prune.verb_options import Algorithm, ScopeName, SweepOptions

SMALL = (*TINY, "--keeps", 0.1, "--keeps", 0.5, "--seeds", 2, "--store", "store", "--quiet")


def test_the_points_are_all_combinations_and_the_baselines_of_every_seed() -> None:
    options = SweepOptions(
        **RECIPES["digits"],
        keeps=("0.5", "0.1"),
        algos=(Algorithm.EDGE_POPUP, Algorithm.SPARSE),
        scopes=(ScopeName.GLOBAL, ScopeName.LAYER),
        seeds=2,
        seed=4,
    )
    arms = arms_of(options)
    assert len(arms) == len(set(arms)) == 2 * (1 + 3 + 2 * 2 * 2)
    assert Arm("edge-popup", Fraction("0.1"), "layer", 5) in arms
    assert sum(arm.algorithm == "dense" for arm in arms) == 2


def test_a_sweep_draws_every_point_and_makes_none_twice(prune: Prune, tmp_path: Path) -> None:
    assert "12 of 12 searches are missing: trained dense from seed 0, " in prune("sweep", *SMALL, "--merge").complaint
    assert prune("sweep", *SMALL, "--shard", "queue").code == 0
    made = {path: path.stat().st_mtime_ns for path in Path("store").rglob("*.json")}
    assert len(made) == 12
    found = prune("sweep", *SMALL, "--out", "run", "--merge", "--json").object
    assert len(found["searches"]) == 12
    assert all(path.stat().st_mtime_ns == then for path, then in made.items())
    assert len(list(Path("store").rglob("*.json"))) == 12
    with (tmp_path / "run" / "sweep.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["algorithm"] for row in rows} == {"dense", "random", "edge-popup"}
    assert float(rows[0]["fd"]) == found["searches"][0]["fd"]
    for name in ("plots/sweep.png", "plots/sweep.svg", "plots/samples.png", "report.html", "summary.json"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    again = prune("sweep", *SMALL, "--out", "run", "--json").object
    assert again == found


@pytest.mark.slow
def test_two_processes_share_a_sweep(prune: Prune) -> None:
    found = prune("sweep", *SMALL, "--seeds", 1, "--devices", "cpu,cpu", "--out", "run", "--json").object
    assert len(found["searches"]) == 6


def test_curves_hold_every_seed_and_random_masks_come_last() -> None:
    def one(name: str, algorithm: str, keep: float, fd: float) -> dict[str, object]:
        return {"name": name, "algorithm": algorithm, "keep": keep, "fd": fd}

    results = [
        one("trained dense", "dense", 1.0, 9.0),
        *(one(f"random mask, {keep}", "random", keep, fd) for keep, fd in ((0.5, 60.0), (0.1, 90.0))),
        *(one(f"ticket, global, {keep}", "edge-popup", keep, fd) for keep, fd in ((0.1, 20.0), (0.5, 10.0))),
        one("ticket, global, 0.1", "edge-popup", 0.1, 22.0),
        one("ticket, global, 0.5", "edge-popup", 0.5, 12.0),
        *(one(f"random mask, {keep}", "random", keep, fd) for keep, fd in ((0.5, 62.0), (0.1, 92.0))),
    ]
    ticket, random = curves_of(results)
    assert (ticket.name, random.name) == ("ticket, global", "random mask")
    assert list(ticket.keeps) == list(random.keeps) == [0.1, 0.5]
    assert ticket.distances.tolist() == [[20.0, 22.0], [10.0, 12.0]]
    assert random.distances.tolist() == [[90.0, 92.0], [60.0, 62.0]]


def test_the_picture_of_a_sweep_is_the_same_bytes_for_the_same_points(tmp_path: Path) -> None:
    curves = [Curve("ticket", [0.1, 0.5], np.array([[20.0, 22.0], [10.0, 12.0]]))]
    levels = [("dense", [11.0, 13.0]), ("floor", [2.0])]
    drawn = [
        draw_sweep(tmp_path / name, curves, levels=levels, title="t", subtitle="s", y_label="FD").png.read_bytes()
        for name in ("one", "two")
    ]
    assert drawn[0] == drawn[1]


def test_a_sweep_refuses_what_it_cannot_search(prune: Prune) -> None:
    assert "--keeps" in prune("sweep", *TINY, "--keeps", "1.2").complaint
    assert "--score-init uniform" in prune("sweep", *TINY, "--score-init", "kaiming", "--scope", "layer").complaint
    assert "leave out --devices" in prune("sweep", *TINY, "--shard", "queue", "--devices", "cpu").complaint
    assert TrialOptions(**RECIPES["digits"]).kept == Fraction(1, 10)
