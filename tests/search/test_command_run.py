"""`vtk search run` as a user runs it: what is written and said, and what stops it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.search.command_line import SEARCH, Vtk, calls_of, same_weights, terminated_at, tree
from vtk_cli.engine.pieces.results import ResultStore
from vtk_cli.search.retrain_preparation import RetrainObjective
from vtk_cli.search.scores.scorer import Scorer
from vtk_cli.search.supernet_training import PathObjective

WEIGHTS = ("supernet/initial.safetensors", "supernet/final.safetensors", "retrained/model.safetensors")
SHOWN = ("architecture", "search", "pareto")


def content(run: Path, name: str) -> object:
    return json.loads((run / name).read_text(encoding="utf-8"))


def test_a_run_leaves_the_supernet_scores_the_winner_its_training_pictures_and_a_page(vtk: Vtk, tmp_path: Path) -> None:
    found = vtk("run", *SEARCH, "-o", "run", "--json").object
    run = tmp_path / "run"
    assert found == content(run, "summary.json")
    assert not {*WEIGHTS, "supernet/halves.json", "scores.csv", "report.html", "evolution.json"} - tree(run).keys()
    assert all((run / "plots" / f"{name}.{suffix}").stat().st_size for name in SHOWN for suffix in ("png", "svg"))
    assert (found["evaluated"], found["generations"]) == (18, 3)
    scored = content(run, "scores.json")["architectures"]  # type: ignore[index]
    assert len({tuple(one["genes"]) for one in scored}) == 18
    assert [one["score"] for one in scored] == sorted((one["score"] for one in scored), reverse=True)
    assert found["genes"] == scored[0]["genes"] == content(run, "architecture.json")["genes"]  # type: ignore[index]
    assert Path(found["retrained"]["weights"]).is_file()
    assert found["retrained"]["images"] == 1437
    assert 0 < found["retrained"]["top1"] <= 1


def test_the_same_command_on_a_finished_run_computes_nothing_again(vtk: Vtk) -> None:
    first = vtk("run", *SEARCH, "-o", "run", "--json").object
    with calls_of(Scorer, "measure") as measured, calls_of(PathObjective, "__call__") as steps:
        again = vtk("run", *SEARCH, "-o", "run", "--json").object
    assert not measured
    assert not steps
    for one in (first, again):
        one["retrained"].pop("images_per_second")
    assert again == first


def test_a_dry_run_tells_the_plan_and_writes_nothing(vtk: Vtk, tmp_path: Path) -> None:
    plan = vtk("run", *SEARCH, "--max-flops", "0.1M", "--max-latency", "5", "--dry-run", "-o", "run", "--json").object
    assert plan["evolution"] == "3 generations of 6 architectures"
    assert plan["limits"] == "at most 0.1 M multiply-accumulates, at most 5 ms an image"
    assert plan["config"]["population"] == 6
    assert "judged by" in vtk("run", *SEARCH, "--dry-run").out
    assert not tree(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "method", "call"),
    [(PathObjective, "__call__", 20), (Scorer, "measure", 9), (RetrainObjective, "__call__", 33)],
    ids=["in the supernet", "in the evolution", "in the re-training"],
)
def test_a_search_that_was_stopped_goes_on_to_the_very_same_end(
    vtk: Vtk, tmp_path: Path, place: type, method: str, call: int
) -> None:
    alone = vtk("run", *SEARCH, "-o", "alone", "--store", "one", "--json").object
    with calls_of(place, method, terminated_at(call)):
        stopped = vtk("run", *SEARCH, "-o", "stopped", "--store", "other")
    assert stopped.code == 75
    assert "run the same command to go on" in stopped.err
    assert not (tmp_path / "stopped" / "summary.json").exists()
    assert content(tmp_path / "stopped", "run.json")["status"] == "preempted"  # type: ignore[index]
    with calls_of(ResultStore, "put") as kept:
        again = vtk("run", *SEARCH, "-o", "stopped", "--store", "other", "--json").object
    assert again["genes"] == alone["genes"]
    for name in WEIGHTS:
        assert same_weights(tmp_path / "alone" / name, tmp_path / "stopped" / name), name
    for name in ("scores.json", "supernet/halves.json"):
        assert content(tmp_path / "alone", name) == content(tmp_path / "stopped", name)
    whole, begun = content(tmp_path / "alone", "evolution.json"), content(tmp_path / "stopped", "evolution.json")
    assert whole == begun
    assert len({key for key, _ in kept}) == len(kept), "nothing is measured twice"
    measured_before = {PathObjective: 0, Scorer: 9, RetrainObjective: 18}[place]
    assert len(kept) == 2 * (18 - measured_before)  # of each the noise, and the clean pass that came along


def test_by_its_folder_alone_a_stopped_run_goes_on(vtk: Vtk, tmp_path: Path) -> None:
    with calls_of(Scorer, "measure", terminated_at(2)):
        assert vtk("run", *SEARCH, "--no-retrain", "-o", "run").code == 75
    assert vtk("run", "--resume", "run").code == 0
    assert not (tmp_path / "run" / "retrained").exists()


def test_more_generations_that_find_a_better_one_train_that_one_from_scratch(vtk: Vtk, tmp_path: Path) -> None:
    first = vtk("run", *SEARCH, "-o", "run", "--generations", 1, "--json").object
    more = vtk("run", *SEARCH, "-o", "run", "--generations", 6, "--json").object
    assert more["genes"] != first["genes"], "else this tests nothing"
    alone = vtk("run", *SEARCH, "-o", "alone", "--generations", 6, "--json").object
    assert more["genes"] == alone["genes"]
    assert same_weights(tmp_path / "run" / WEIGHTS[2], tmp_path / "alone" / WEIGHTS[2])


def test_a_torn_state_of_the_evolution_is_made_anew_from_what_was_measured(vtk: Vtk, tmp_path: Path) -> None:
    vtk("run", *SEARCH, "--no-retrain", "-o", "run")
    state = tmp_path / "run" / "evolution.json"
    whole = state.read_bytes()
    state.write_bytes(whole[:100])
    with calls_of(Scorer, "measure") as measured:
        assert vtk("run", *SEARCH, "--no-retrain", "-o", "run").code == 0
    assert not measured
    assert state.read_bytes() == whole


def test_limits_hold_for_everything_that_is_scored(vtk: Vtk, tmp_path: Path) -> None:
    assert vtk("run", *SEARCH, "--no-retrain", "-o", "run", "--max-flops", "0.1M", "--min-flops", "50k").code == 0
    scored = content(tmp_path / "run", "scores.json")["architectures"]  # type: ignore[index]
    assert scored
    assert all(50e3 <= one["flops"] <= 0.1e6 for one in scored)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (["--max-flops", "1k"], "--max-flops: limit 0.001 M is below the space minimum 0.044 M; attainable are"),
        (["--max-params", "5"], "--max-params: limit 5e-06 M is below the space minimum"),
        (["--min-flops", "1G"], "--min-flops: limit 1000 M is above the space maximum"),
        (["--min-flops", "100k", "--max-flops", "90k"], "is above --max-flops"),
        (["--min-flops", "200000", "--max-flops", "200001"], "no architecture of digits-mini meets all limits at once"),
        (["--min-flops", "200k", "--max-params", "2k"], "meets all limits at once; give wider ones; attainable are"),
        (["--max-latency", "1e-9"], "--max-latency: limit 1e-09 ms is below the"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_limits_that_nothing_meets_are_refused_before_anything_is_trained(
    vtk: Vtk, tmp_path: Path, limits: list[str], said: str
) -> None:
    complaint = vtk("run", *SEARCH, *limits, "-o", "run").complaint
    assert said in complaint
    assert not (tmp_path / "run").exists()


def test_a_whole_search_is_no_share(vtk: Vtk) -> None:
    assert "vtk search evolve --supernet RUN --shard queue" in vtk("run", *SEARCH, "--shard", "queue").complaint


def test_a_run_goes_on_with_its_own_space_only(vtk: Vtk) -> None:
    assert vtk("run", *SEARCH, "--no-retrain", "-o", "run").code == 0
    complaint = vtk("run", *SEARCH, "--no-retrain", "-o", "run", "--space", "chain-a").complaint
    assert "space" in complaint
    assert "run" in complaint


def test_a_folder_that_another_process_works_in_is_left_alone(vtk: Vtk, tmp_path: Path) -> None:
    from vtk_cli.files import lock

    assert vtk("run", *SEARCH, "--no-retrain", "-o", "run").code == 0
    before = tree(tmp_path / "run")
    with lock(tmp_path / "run" / ".lock"):
        assert "in use by another process" in vtk("run", *SEARCH, "--no-retrain", "-o", "run").complaint
    after = tree(tmp_path / "run")
    assert {name: when for name, when in after.items() if name != ".lock"} == {
        name: when for name, when in before.items() if name != ".lock"
    }


def test_images_of_a_folder_grey_and_of_any_shape_are_searched_on(vtk: Vtk, pictures: Path) -> None:
    words = ("--space", "chain-a", "--batch-size", 4, "--augmentation", "digits", "--workers", 0)
    found = vtk("run", pictures, *SEARCH, *words, "--generations", 1, "--json").object
    assert found["num_classes"] == 2
    assert found["retrained"]["images"] == 12


@pytest.mark.parametrize("combine", ["sum", "rank"])
@pytest.mark.parametrize("score", ["loss", "accuracy", "angle", "angle+flatness", "accuracy+flatness"])
def test_every_score_leads_a_search(vtk: Vtk, trained: Path, score: str, combine: str) -> None:
    words = ("--supernet", trained, "--device", "cpu", "--draws", 1, "--bn-images", 64, "--val-images", 60)
    small = ("--population", 4, "--generations", 2, "--mutations", 2, "--crossovers", 1)
    found = vtk("evolve", *words, *small, "--score", score, "--combine", combine, "--json").object
    assert found["evaluated"] == 8
    assert score in found["score"]


def test_the_next_command_is_told_with_the_images_it_needs(vtk: Vtk, pictures: Path, tmp_path: Path) -> None:
    words = ("--space", "chain-a", "--batch-size", 4, "--augmentation", "digits", "--workers", 0, "--generations", 1)
    said = vtk("run", pictures, *SEARCH, *words, "--no-retrain", "-o", "run")
    (line,) = (line for line in said.out.splitlines() if line.startswith("Train it alone: vtk search "))
    following = line.removeprefix("Train it alone: vtk search ").split()
    said = vtk(*following, "--epochs", 1, "--batch-size", 4, "--workers", 0, "--device", "cpu", "-o", "alone")
    (line,) = (line for line in said.out.splitlines() if line.startswith("Use it: vtk train "))
    use = line.removeprefix("Use it: vtk train ").split()
    assert vtk(*use, "--device", "cpu", "--workers", 0, command="train").code == 0
