from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.adapt.drawn_domains import draw_images
from vtk_cli.adapt.labels import Answers, Question, check_answers, meant, question_of, read_answers
from vtk_cli.adapt.ledger import BAD, OTHER, SKIP, LabelRow
from vtk_cli.adapt.manifest import make_manifest
from vtk_cli.adapt.pool import files_pool, memory_pool
from vtk_cli.adapt.sorted_folders import read_sorted, write_images
from vtk_cli.adapt.state import new_state
from vtk_cli.adapt.verb_options import LabelOptions
from vtk_cli.console import Console
from vtk_cli.data.digits import load_digits_split
from vtk_cli.errors import UserError

CLASSES = ("bike", "cup", "pen")
POOL = tuple(f"t/{number}.png" for number in range(12))
QUESTION = Question(POOL, POOL[:4], POOL[10:], CLASSES, 2, 9)
EARLIER = LabelRow(POOL[8], "pen", 1, "human", "then")
SKIPPED = LabelRow(POOL[9], SKIP, 1, "human", "then")


def given(tmp_path: Path, text: str, name: str = "labels.csv", **more: object) -> Answers:
    (tmp_path / name).write_text(text)
    rows = more.pop("rows", (EARLIER, SKIPPED))
    return check_answers(read_answers(tmp_path / name), QUESTION, rows, time="now", **more)  # type: ignore[arg-type]


def table(*pairs: tuple[str, str]) -> str:
    return "sample_id,label\n" + "".join(f"{name},{label}\n" for name, label in pairs)


def test_names_numbers_and_marks_are_understood(tmp_path: Path) -> None:
    answers = given(tmp_path, table((POOL[0], "cup"), (POOL[1], "2"), (POOL[2], "?"), (POOL[3], "other")))
    assert [row.label for row in answers.rows] == ["cup", "pen", SKIP, OTHER]
    assert {(row.round, row.origin, row.time) for row in answers.rows} == {(2, "human", "now")}
    assert answers.missing == ()
    assert answers.marks == {"skip": 1, "bad": 0, "other": 1}


@pytest.mark.parametrize(
    ("text", "label"), [("skip", SKIP), ("Bad", BAD), (":bad", BAD), (" other ", OTHER), ("?", SKIP)]
)
def test_marks_may_be_written_in_several_ways(text: str, label: str) -> None:
    assert meant(text, CLASSES, "here") == label


def test_a_class_that_is_called_like_a_mark_or_a_number_is_that_class() -> None:
    assert meant("bad", ("bad", "good"), "here") == "bad"
    assert meant(":bad", ("bad", "good"), "here") == BAD
    assert meant("1", ("3", "2", "1"), "here") == "1"
    with pytest.raises(UserError, match="unknown class '0'"):
        meant("0", ("3", "2", "1"), "here")


def test_the_table_of_the_question_can_be_handed_back_half_filled_in(tmp_path: Path) -> None:
    text = "rank;sample_id;path;score;pred;pred_conf;second;label;note\n"
    filled = zip(POOL[:4], ["pen", "", " ", "cup"], strict=True)
    text += "".join(f"{rank};{name};/x;0.1;cup;0.5;pen;{label};\n" for rank, (name, label) in enumerate(filled, 1))
    answers = given(tmp_path, "\ufeff" + text)
    assert [(row.sample_id, row.label) for row in answers.rows] == [(POOL[0], "pen"), (POOL[3], "cup")]
    assert answers.missing == (POOL[1], POOL[2])


def test_the_same_file_twice_changes_nothing(tmp_path: Path) -> None:
    text = table((POOL[0], "cup"), (POOL[1], "bad"), (POOL[2], "skip"))
    first = given(tmp_path, text)
    again = given(tmp_path, text, rows=(EARLIER, SKIPPED, *first.rows))
    assert again.rows == ()
    assert again.repeated == 3
    assert again.missing == first.missing == (POOL[3],)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([(POOL[5], "cup")], r"labels\.csv:2: t/5\.png was not asked for; leave it out, or use --allow-extra"),
        ([("t/44.png", "cup")], r"labels\.csv:2: t/44\.png is no image of the target"),
        ([(POOL[0], "pin")], r"labels\.csv:2: unknown class 'pin'; the closest are pen, cup, bike"),
        ([(POOL[0], "3")], r"labels\.csv:2: the label 3 is out of range; give 0 to 2"),
        ([(POOL[0], "-1")], r"labels\.csv:2: the label -1 is out of range"),
        (
            [(POOL[0], "cup"), (POOL[1], "pen"), (POOL[0], "2")],
            r"t/0\.png has two labels: cup \(.*labels\.csv:2\) and 2 \(.*labels\.csv:4\)",
        ),
        ([("", "cup")], r"labels\.csv:2: the label 'cup' has no sample_id"),
        ([(POOL[8], "cup")], r"t/8\.png is labelled pen since round 1, not cup; .* undo that round"),
    ],
)
def test_a_wrong_label_is_refused_with_its_line(tmp_path: Path, lines: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        given(tmp_path, table(*lines))


def test_the_same_label_twice_in_a_file_is_one_label(tmp_path: Path) -> None:
    assert len(given(tmp_path, table((POOL[0], "cup"), (POOL[0], "1"))).rows) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [("id,label\na,b\n", "has no column sample_id"), ("", "has no column sample_id and no column label")],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=f"{said}; give at least sample_id,label"):
        given(tmp_path, text)
    with pytest.raises(UserError, match="cannot be read as text"):
        read_answers(tmp_path / "none.csv")


def test_labels_that_nobody_asked_for_are_taken_where_allowed_and_the_budget_has_room(tmp_path: Path) -> None:
    answers = given(tmp_path, table((POOL[5], "cup"), (POOL[9], "pen")), allow_extra=True)
    assert [(row.sample_id, row.origin) for row in answers.rows] == [(POOL[5], "extra"), (POOL[9], "extra")]
    assert answers.extra == 2
    full = Question(POOL, POOL[:4], (), CLASSES, 2, 6)
    (tmp_path / "l.csv").write_text(table((POOL[5], "cup"), (POOL[6], "cup")))
    with pytest.raises(UserError, match=r"3 labels, and 4 that are asked for, are more than the budget of 6"):
        check_answers(read_answers(tmp_path / "l.csv"), full, (EARLIER,), time="now", allow_extra=True)


def test_a_label_of_the_open_round_can_be_changed_when_asked_to(tmp_path: Path) -> None:
    first = given(tmp_path, table((POOL[0], "cup")))
    rows = (EARLIER, *first.rows)
    with pytest.raises(UserError, match=r"t/0\.png is labelled cup since round 2, not pen; give --replace"):
        given(tmp_path, table((POOL[0], "pen")), rows=rows)
    changed = given(tmp_path, table((POOL[0], "pen")), rows=rows, replace=True)
    assert [row.label for row in changed.rows] == ["pen"]


def test_images_of_the_audit_are_labelled_apart(tmp_path: Path) -> None:
    answers = given(tmp_path, table((POOL[10], "cup")))
    assert [row.origin for row in answers.rows] == ["audit"]
    assert not answers.rows[0].is_charged


def test_a_question_is_what_the_state_asks() -> None:
    state = new_state(total=9, rounds=2, strategy="loss", recipe="sequential", seed=0, manifest_sha1="", audit=POOL[:1])
    question = question_of(state, POOL, CLASSES)
    assert (question.asked, question.audit, question.budget) == ((), POOL[:1], 9)


def test_an_export_of_label_studio_is_read(tmp_path: Path) -> None:
    def task(name: str, *choices: str, cancelled: bool = False) -> dict[str, object]:
        result = [{"value": {"choices": list(choices)}}] if choices else []
        return {"data": {"sample_id": name}, "annotations": [{"result": result, "was_cancelled": cancelled}]}

    tasks = [task(POOL[0], "cup"), task(POOL[1], cancelled=True), {"data": {"sample_id": POOL[2]}}]
    answers = given(tmp_path, json.dumps(tasks), "export.json")
    assert [(row.sample_id, row.label) for row in answers.rows] == [(POOL[0], "cup"), (POOL[1], SKIP)]
    assert answers.missing == (POOL[2], POOL[3])
    with pytest.raises(UserError, match=r"t/0\.png has two labels"):
        given(tmp_path, json.dumps([task(POOL[0], "cup", "pen")]), "export.json")
    with pytest.raises(UserError, match=r"task 1\): the task has no data\.sample_id"):
        given(tmp_path, json.dumps([{"data": {}}]), "export.json")
    with pytest.raises(UserError, match="is not JSON"):
        given(tmp_path, "[", "export.json")


def test_images_sorted_into_class_folders_are_known_by_their_content(tmp_path: Path) -> None:
    pool = files_pool("t", draw_images(tmp_path / "all", POOL), POOL)
    manifest = make_manifest(pool, Console(quiet=True))
    write_images(tmp_path / "out", pool, POOL[:4])
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["0001_0.png", "0002_1.png", "0003_2.png", "0004_3.png"]
    for file, label in zip(files, ["cup", "pen", "bad"], strict=False):
        (tmp_path / "out" / label).mkdir()
        shutil.move(file, tmp_path / "out" / label / f"renamed-{file.name}")
    answers = check_answers(read_sorted(tmp_path / "out", pool, manifest, POOL[:4]), QUESTION, (), time="now")
    assert [(row.sample_id, row.label) for row in answers.rows] == [(POOL[2], BAD), (POOL[0], "cup"), (POOL[1], "pen")]
    assert answers.missing == (POOL[3],)
    Image.new("RGB", (3, 3)).save(tmp_path / "out" / "cup" / "mine.png")
    with pytest.raises(UserError, match=r"mine\.png: is no image of the target"):
        read_sorted(tmp_path / "out", pool, manifest, POOL[:4])


def test_images_in_memory_can_be_sorted_as_well(tmp_path: Path) -> None:
    digits = load_digits_split("val")
    ids = digits.sample_ids("digits")[:5]
    pool = memory_pool("digits", ids, digits.images[:5])
    write_images(tmp_path / "seven", pool, ids[:1])
    found = read_sorted(tmp_path, pool, make_manifest(pool, Console(quiet=True)), ids)
    assert [(one.sample_id, one.label) for one in found] == [(ids[0], "seven")]


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    pool = files_pool("t", draw_images(tmp_path / "all", POOL), POOL)
    draw_images(tmp_path / "flat", ["a.png"])
    with pytest.raises(UserError, match="has no class folders"):
        read_sorted(tmp_path / "flat", pool, make_manifest(pool, Console(quiet=True)), POOL)


LONG = "x" * 200_000


@pytest.mark.parametrize("text", [f'sample_id,label\n{POOL[0]},"{LONG}"\n', f'"{LONG}",label\n'])
def test_a_file_that_is_no_table_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"labels\.csv:[12]: is no CSV table \(field larger"):
        given(tmp_path, text)


def test_a_file_of_labels_in_the_place_of_the_run_is_told_from_it(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(table())
    with pytest.raises(UserError, match="is a file, and no run; type vtk adapt label RUN"):
        LabelOptions(run=tmp_path / "labels.csv").check()


def test_short_and_long_rows_of_a_table_are_read(tmp_path: Path) -> None:
    answers = given(tmp_path, f"sample_id,label\n{POOL[0]}\n\n{POOL[1]},cup,a,note\n")
    assert [(row.sample_id, row.label) for row in answers.rows] == [(POOL[1], "cup")]


@pytest.mark.parametrize(
    "task",
    [
        {"data": 3},
        {"data": {"sample_id": 3}},
        3,
        {"data": {"sample_id": POOL[0]}, "annotations": 3},
        {"data": {"sample_id": POOL[0]}, "annotations": [3]},
        {"data": {"sample_id": POOL[0]}, "annotations": [{"result": [3]}]},
        {"data": {"sample_id": POOL[0]}, "annotations": [{"result": [{"value": 3}]}]},
    ],
)
def test_a_task_of_another_shape_is_refused_by_its_number(tmp_path: Path, task: object) -> None:
    with pytest.raises(UserError, match=r"task 2\): the task has no data\.sample_id, or"):
        given(tmp_path, json.dumps([{"data": {"sample_id": POOL[0]}}, task]), "export.json")


def test_json_of_endless_depth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not JSON"):
        given(tmp_path, "[" * 100_000, "export.json")
