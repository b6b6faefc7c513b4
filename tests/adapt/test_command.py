"""The verbs of `vtk adapt`, end to end."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from tests.adapt.conftest import TINY, Vtk, bought
from tests.adapt.drawn_domains import class_tree
from vtk_cli.adapt.run_files import RunFiles, held
from vtk_cli.models.zoo import create_network


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_rounds_by_hand_from_the_source_to_the_end(started: Vtk) -> None:
    vtk, run = started, started.folder / "r"
    asked: list[str] = []
    for number in (1, 2):
        found = vtk.done("query", "r")
        assert found["phase"] == "await_labels"
        assert len(found["asked"]) == 3
        assert {"query.csv", "query.json", "contact_sheet_01.png", "label.html"} <= set(
            files_of(run / f"rounds/0{number}")
        )
        asked += found["asked"]
        assert vtk.done("label", "r", vtk.answered("r"))["phase"] == "await_train"
        trained = vtk.done("train", "r")
        assert trained["budget"] == {"total": 6, "used": 3 * number, "pending": 0}
    assert len(set(asked)) == 6
    assert trained["phase"] == "done"
    assert [row["labels"] for row in trained["metrics"]] == [0, 3, 6]
    last = trained["metrics"][-1]
    whole = (6 * _percent_of_labelled(last) + 9 * last["acc_pool_unlabelled"]) / 15
    assert last["acc_pool_all"] == pytest.approx(whole)
    assert (run / "report.html").is_file()
    assert (run / "plots/accuracy.png").is_file()
    assert json.loads((run / "summary.json").read_text())["phase"] == "done"


def _percent_of_labelled(row: dict[str, float]) -> float:
    """Accuracy on the six labelled images: it must be a whole number of them."""
    value = (15 * row["acc_pool_all"] - 9 * row["acc_pool_unlabelled"]) / 6
    right = value * 6 / 100
    assert right == pytest.approx(round(right), abs=1e-6)
    assert 0 <= round(right) <= 6
    return value


def test_a_query_asked_again_is_the_same_files_and_the_same_labels_change_nothing(started: Vtk) -> None:
    vtk, folder = started, started.folder / "r/rounds/01"
    first = vtk.done("query", "r")
    before = files_of(folder)
    assert vtk.done("query", "r")["asked"] == first["asked"]
    assert files_of(folder) == before
    (folder / "query.json").unlink()  # as if the process had ended before it was written
    vtk.done("query", "r")
    assert files_of(folder) == before
    answers = vtk.answered("r")
    assert vtk.done("label", "r", answers)["new"] == 3
    ledger = (started.folder / "r/labels.csv").read_bytes()
    assert vtk.done("label", "r", answers)["repeated"] == 3
    assert (started.folder / "r/labels.csv").read_bytes() == ledger


def test_a_simulated_person_and_one_who_knows_the_same_come_to_the_same(started: Vtk) -> None:
    vtk = started
    for _ in range(2):
        vtk.done("query", "r")
        vtk.done("label", "r", vtk.answered("r"))
        by_hand = vtk.done("train", "r")
    simulated = vtk.done("run", "s", *TINY)
    assert bought(vtk.folder / "r") == bought(vtk.folder / "s")
    assert by_hand["metrics"] == simulated["metrics"]
    assert (vtk.folder / "r/metrics.csv").read_bytes() == (vtk.folder / "s/metrics.csv").read_bytes()


def test_labels_that_were_not_bought_change_nothing_but_what_is_measured(vtk: Vtk) -> None:
    tree = sorted(path.relative_to(vtk.folder) for path in (vtk.folder / "target").rglob("*.png"))
    lists = [[f"{path.as_posix()},{path.parent.name}" for path in tree]]
    (vtk.folder / "clean.csv").write_text("\n".join(["path,label", *lists[0]]) + "\n")
    options = [*TINY]
    options[options.index("target")] = "clean.csv"
    clean = vtk.done("run", "clean", *options)
    asked = {name for name, _, _ in bought(vtk.folder / "clean")}
    poisoned = [f"{path.as_posix()},{path.parent.name if path.as_posix() in asked else 'pen'}" for path in tree]
    assert poisoned != lists[0]
    (vtk.folder / "poisoned.csv").write_text("\n".join(["path,label", *poisoned]) + "\n")
    options[options.index("clean.csv")] = "poisoned.csv"
    other = vtk.done("run", "poisoned", *options)
    assert bought(vtk.folder / "clean") == bought(vtk.folder / "poisoned")
    blind = ("mean_entropy", "agreement", "histogram")
    assert [[row[name] for name in blind] for row in clean["metrics"]] == [
        [row[name] for name in blind] for row in other["metrics"]
    ]
    assert clean["metrics"][-1]["acc_pool_unlabelled"] != other["metrics"][-1]["acc_pool_unlabelled"]
    queries = [json.loads((vtk.folder / run / "rounds/02/query.json").read_text()) for run in ("clean", "poisoned")]
    assert queries[0] == queries[1]  # with the checksum of the weights that were asked


def test_undoing_a_round_gives_back_the_run_before_it(started: Vtk) -> None:
    vtk, run = started, started.folder / "r"
    before = json.loads((run / "state.json").read_text())
    metrics = (run / "metrics.csv").read_bytes()
    first = vtk.done("query", "r")["asked"]
    vtk.done("label", "r", vtk.answered("r"))
    vtk.done("train", "r")
    assert vtk.done("undo", "r")["round"] == 0
    assert json.loads((run / "state.json").read_text()) == before
    assert (run / "metrics.csv").read_bytes() == metrics
    assert not (run / "rounds/01").exists()
    assert [row for row in bought(run) if not row[0]] == [("", "", "1")]
    assert vtk.done("query", "r")["asked"] == first
    assert vtk.done("undo", "r")["phase"] == "adapted"  # an open round can be taken back as well
    assert "there is no round to undo" in vtk("undo", "r").complaint


def test_answers_that_cost_nothing_and_images_in_their_place(started: Vtk) -> None:
    vtk = started
    asked = vtk.done("query", "r")["asked"]
    marked = {asked[0]: "?", asked[1]: "bad", asked[2]: "other"}
    found = vtk.done("label", "r", vtk.answered("r", marked))
    assert (found["skip"], found["bad"], found["other"]) == (1, 1, 1)
    assert found["budget"]["used"] == 1
    more = vtk.done("query", "r", "--further")["asked"]
    assert more[:3] == asked
    assert len(set(more)) == 5
    assert vtk.done("label", "r", vtk.answered("r", marked))["budget"] == {"total": 6, "used": 3, "pending": 0}
    pool = vtk.done("train", "r")["pool"]
    assert (pool["labelled"], pool["other"], pool["bad"], pool["unlabelled"]) == (2, 1, 1, 11)


def test_partial_answers_train_when_asked_to(started: Vtk) -> None:
    vtk = started
    asked = vtk.done("query", "r")["asked"]
    found = vtk.done("label", "r", vtk.answered("r", {asked[0]: ""}))
    assert found["missing"] == [asked[0]]
    assert "2 of 3 answers of round 1 are in" in vtk("train", "r").complaint
    assert vtk.done("train", "r", "--allow-partial")["budget"]["used"] == 2
    again = vtk.done("query", "r")["asked"]
    assert asked[0] not in again
    assert len(again) == 4  # the whole budget is met


def test_a_query_is_drawn_anew_while_no_label_is_in(started: Vtk) -> None:
    vtk = started
    first = vtk.done("query", "r", "--strategy", "random")["asked"]
    second = vtk.done("query", "r", "--redo", "--strategy", "random")["asked"]
    assert first != second
    assert "is asked already" in vtk("query", "r", "--n", "2").complaint
    vtk.done("label", "r", vtk.answered("r"))
    assert vtk("query", "r", "--redo").code == 2


def test_blind_questions_show_no_guess(started: Vtk) -> None:
    started.done("query", "r", "--blind")
    rows = list(csv.DictReader((started.folder / "r/rounds/01/query.csv").open()))
    assert {row["pred"] for row in rows} == {""}


def test_a_question_that_is_asked_again_blind_shows_no_guess_and_keeps_its_images(started: Vtk) -> None:
    asked = started.done("query", "r")["asked"]
    assert started.done("query", "r", "--blind")["asked"] == asked
    rows = list(csv.DictReader((started.folder / "r/rounds/01/query.csv").open()))
    assert [(row["sample_id"], row["pred"]) for row in rows] == [(name, "") for name in asked]


def test_labels_by_folders(started: Vtk) -> None:
    vtk = started
    asked = vtk.done("query", "r", "--copies")["asked"]
    copies = sorted((vtk.folder / "r/rounds/01/images").iterdir())
    for copy, name in zip(copies, asked, strict=True):
        place = vtk.folder / "sorted" / name.partition("/")[0]
        place.mkdir(parents=True, exist_ok=True)
        copy.rename(place / copy.name)
    assert vtk.done("label", "r", "--from-folders", "sorted")["new"] == 3
    assert {(name, label) for name, label, _ in bought(vtk.folder / "r")} == {
        (name, name.partition("/")[0]) for name in asked
    }


def test_labels_on_the_terminal(started: Vtk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = started.done("query", "r")["asked"]
    said = iter(["nonsense", "cup", "1", ""])
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(said))
    assert started("label", "r", "--interactive").code == 0
    assert [(name, label) for name, label, _ in bought(started.folder / "r")] == [(asked[0], "cup"), (asked[1], "cup")]


def test_an_audit_is_measured_with_and_costs_nothing(vtk: Vtk) -> None:
    found = vtk.done("run", "r", *TINY, "--audit", "4")
    assert found["budget"]["used"] == 6
    assert found["pool"]["audit"] == 4
    judged = [row["audit"]["judged"] for row in found["metrics"]]
    assert judged[1:] == [4, 4]
    audited = {name for name, _, _ in bought(vtk.folder / "r")}
    assert len(audited) == 10


def test_every_phase_names_the_command_that_comes_next(started: Vtk) -> None:
    vtk = started
    for wrong in (["train", "r"], ["label", "r", "--oracle"], ["start", "r", *TINY]):
        assert "next: vtk adapt query r" in vtk(*wrong).complaint
    vtk.done("query", "r")
    assert "vtk adapt label r FILE" in vtk("train", "r").complaint
    vtk.done("label", "r", "--oracle")
    assert "next: vtk adapt train r" in vtk("query", "r").complaint
    assert vtk.done("status", "r")["next"] == "vtk adapt train r"


def test_a_held_run_names_the_process(started: Vtk) -> None:
    with held(RunFiles(started.folder / "r")):
        complaint = started("query", "r").complaint
    assert "in use by another process (process " in complaint
    assert " since 20" in complaint


def test_changed_images_are_noticed(started: Vtk) -> None:
    (started.folder / "target/cup/1.png").unlink()
    assert "1 target images are missing since the run began, first cup/1.png" in started("query", "r").complaint


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (["--budget", "0"], "a budget of 0 buys no label"),
        (["--budget", "16"], "16 is 16 labels, but the pool has 15 images"),
        (["--budget", "five"], "is no budget"),
        (["--query", "aada"], "aada asks the discriminator, which only the recipe tl-ada has"),
        (["--query", "los"], "did you mean loss"),
        (["--adv", "1"], "has no discriminator"),
        (["--preset", "office32"], "did you mean office31"),
        (["--audit", "12"], "a budget of 6 and an audit of 12"),
        (["--target", "nothing"], "nothing"),
        (["--model", "source", "--recipe", "joint", "--source", "source"], "holds neither FE.pt"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(vtk: Vtk, further: list[str], said: str) -> None:
    assert said in vtk("start", "r", *TINY, *further).complaint
    assert not (vtk.folder / "r").exists()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("cup/9.png,cup", "is no image of the target"),
        ("{free},cup", "was not asked for; leave it out, or use --allow-extra"),
        ("{asked},cub", "the closest are cup"),
        ("{asked},cup\n{asked},pen", "has two labels: cup"),
        ("{asked},3", "the label 3 is out of range; give 0 to 2"),
    ],
)
def test_wrong_labels_are_one_line_and_nothing_is_taken(started: Vtk, rows: str, said: str) -> None:
    asked = started.done("query", "r")["asked"]
    pool = {f"{name}/{number}.png" for name in ("bike", "cup", "pen") for number in range(5)}
    text = rows.format(asked=asked[0], free=min(pool - set(asked)))
    (started.folder / "l.csv").write_text(f"sample_id,label\n{text}\n")
    complaint = started("label", "r", "l.csv").complaint
    assert said in complaint
    assert "l.csv:2" in complaint or "l.csv:3" in complaint
    assert not (started.folder / "r/labels.csv").exists()


def test_a_checkpoint_of_other_classes_is_refused_and_one_without_source_adapts(started: Vtk) -> None:
    vtk = started
    class_tree(vtk.folder / "other", ("a", "b"), 3)
    free = [*TINY[2:]]
    complaint = vtk(
        "start", "t", "--source", "other", *free, "--target", "other", "--model", "r/source.safetensors"
    ).complaint
    assert "is of 3 classes" in complaint
    found = vtk.done("start", "t", *free, "--model", "r/source.safetensors")
    assert found["phase"] == "adapted"


def test_a_budget_of_the_whole_pool_leaves_the_unlabelled_stage_out(vtk: Vtk) -> None:
    said = vtk("run", "r", *TINY, "--budget", "100%", "--rounds", "1")
    assert said.code == 0, said.err
    assert "every image is labelled: the unlabelled stage is left out" in said.err
    assert vtk.done("status", "r")["pool"]["labelled"] == 15
    assert vtk("query", "r").code == 2


def test_images_that_cannot_be_read_are_left_out_with_a_count(vtk: Vtk) -> None:
    (vtk.folder / "target/cup/2.png").write_bytes(b"no image")
    said = vtk("start", "r", *TINY)
    assert said.code == 0
    assert "target: 1 of 15 images cannot be read and are left out: cup/2.png" in " ".join(said.err.split())
    assert vtk.done("status", "r")["pool"]["images"] == 14
    assert "cup/2.png" not in vtk.done("query", "r", "--n", "6")["asked"]


@pytest.mark.parametrize("recipe", ["joint", "labelled", "tl-ada"])
def test_every_recipe_runs(vtk: Vtk, recipe: str) -> None:
    assert vtk.done("run", "r", *TINY, "--recipe", recipe, "--query", "random")["phase"] == "done"


def test_a_plain_network_gives_the_accuracy_of_the_run(started: Vtk) -> None:
    vtk = started
    assert vtk.done("evaluate", "r")["acc_pool_all"] == vtk.done("status", "r")["metrics"][0]["acc_pool_all"]
    by_data = vtk.done("evaluate", "r", "--data", "target")
    assert by_data["accuracy"] == pytest.approx(vtk.done("evaluate", "r")["acc_pool_all"])
    path = vtk.done("export", "r", "plain.safetensors")["model"]
    name = f"py:vtk_cli.adapt.backbones:digits_classifier={path}"
    said = vtk("export", "r", "plain.safetensors")
    assert name in "".join((said.out + said.err).split())
    assert create_network(name, num_classes=3, side=16).module(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
    assert vtk.done("predict", "r", "target", "--to", "p.csv")["images"] == 15
    rows = list(csv.DictReader((vtk.folder / "p.csv").open()))
    right = sum(row["path"].startswith(row["label"] + "/") for row in rows)
    assert 100 * right / 15 == pytest.approx(by_data["accuracy"])


def test_wrong_labels_are_among_the_suspicious_ones(vtk: Vtk) -> None:
    vtk.done("run", "r", *TINY, "--source-epochs", "20", "--stage1-steps", "20")
    found = vtk.done("status", "r", "--suspicious", "3")["suspicious"]
    assert len(found) <= 3
    assert all(one["model"] != one["label"] for one in found)
    assert [one["probability"] for one in found] == sorted(one["probability"] for one in found)


def test_plans_write_nothing(vtk: Vtk) -> None:
    found = vtk.done("start", "r", *TINY, "--dry-run")
    assert found["rounds"] == "3, 3"
    assert vtk.done("compare", *TINY, "--dry-run")["runs"] == 12
    assert not (vtk.folder / "r").exists()


def test_recipes_and_presets_are_listed(vtk: Vtk) -> None:
    assert vtk.done("recipes")["recipes"][0]["name"] == "sequential"
    assert vtk.done("recipes", "visda")["recipes"][0]["options"]["pl-late"] is True
    assert "did you mean visda" in vtk("recipes", "visd").complaint
