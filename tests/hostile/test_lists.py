"""Lists, tables and options from strangers: what was found wrong with them, one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from tests.cases import held
from vtk_cli.data.video.lists import read_video_list
from vtk_cli.engine.pieces.shard_options import ShardOptions
from vtk_cli.engine.run_config import RunConfig
from vtk_cli.errors import LONGEST, UserError
from vtk_cli.families.proof import parse_seeds
from vtk_cli.models.names import parse_network
from vtk_cli.models.spaces.architecture import read_architecture
from vtk_cli.models.spaces.catalog import SPACES
from vtk_cli.options import RUN_CONFIG, RunOptions, read_config
from vtk_cli.search.benchmarks.opening import open_benchmark
from vtk_cli.search.scored import read_scores
from vtk_cli.similarity.matrix_file import read_matrix_csv

SECONDS = 10
"""What refusing a line or a file may take, on a busy machine also."""
LONG_CELL = "x" * 140_000
"""More than Python's CSV takes in a cell."""
DIGITS = "9" * 5000
"""More than Python takes in an integer."""


def refused(read: Callable[[], object]) -> str:
    """The line with which it is refused, in time."""
    start = monotonic()
    with pytest.raises(UserError) as error:
        read()
    assert monotonic() - start < SECONDS
    assert len(str(error.value)) <= LONGEST + 5
    return str(error.value)


KINETICS = "label,youtube_id,time_start,time_end,split\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("kinetics.csv", KINETICS + f"{LONG_CELL},a,0,1,train\n", id="Kinetics, a cell of 140,000 letters"),
        pytest.param("list.csv", f"path,label\n{LONG_CELL},0\n", id="vtk, a cell of 140,000 letters"),
    ],
)
def test_a_video_list_with_an_endless_cell_is_refused(tmp_path: Path, name: str, text: str):
    path = tmp_path / name
    path.write_text(text)
    assert "is no CSV" in refused(lambda: read_video_list(path))
    held("hostile", "video lists: cells of 140,000 letters", "exit code 2: the line is named")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("kinetics.csv", KINETICS + f"a,b,{DIGITS},1,train\n", id="Kinetics"),
        pytest.param("kinetics.csv", KINETICS.replace("split", "split2") + "a,b,0,1,train\n", id="Kinetics, no split"),
        pytest.param("gym99_train.txt", f"a {DIGITS}\n", id="Gym99"),
        pytest.param("list.txt", f"a.mp4 0\nb.mp4 {DIGITS}\n", id="paths"),
        pytest.param("diving.json", json.dumps([{"vid_name": "a", "label": float("inf")}]), id="Diving48"),
        pytest.param("diving.json", json.dumps([{"vid_name": "a", "label": 10**300}]), id="Diving48, 300 digits"),
    ],
)
def test_a_label_or_time_of_any_length_is_a_problem_of_its_line(tmp_path: Path, name: str, text: str):
    path = tmp_path / name
    path.write_text(text)
    assert read_video_list(path).problems
    held("hostile", "video lists: numbers of 5,000 digits, infinite labels", "the line is counted as wrong")


def test_labels_of_something_something_must_be_numbers(tmp_path: Path):
    (tmp_path / "v2.json").write_text("[]")
    (tmp_path / "something-something-v2-labels.json").write_text('{"a": Infinity}')
    assert "template -> label" in refused(lambda: read_video_list(tmp_path / "v2.json"))


def test_names_that_no_file_can_have_are_missing_videos(tmp_path: Path):
    long = "n" * 300
    (tmp_path / "diving.json").write_text(json.dumps([{"vid_name": long, "label": 0}]))
    (tmp_path / "kinetics.csv").write_text(KINETICS + f"{long},{long},0,1,train\n")
    for name in ("diving.json", "kinetics.csv"):
        assert len(read_video_list(tmp_path / name).videos) == 1


def test_a_line_of_blanks_does_not_take_the_square_of_its_length(tmp_path: Path):
    (tmp_path / "list.txt").write_text("a" + " " * 100_000 + "b\n" + "1" * 100_000 + "x\n")
    start = monotonic()
    assert len(read_video_list(tmp_path / "list.txt").videos) == 2
    assert monotonic() - start < SECONDS
    held("hostile", "video lists: 100,000 blanks in a line", f"read in < {SECONDS} s")


@pytest.mark.parametrize(
    ("line", "path", "label"),
    [
        ("a.mp4 3", "a.mp4", 3),
        ("a b.mp4\t3", "a b.mp4", 3),
        ("a.mp4,3", "a.mp4", 3),
        ("a.mp4, 3", "a.mp4", 3),
        ("a.mp4 , 3", "a.mp4", 3),
        ("a.mp4 ,3", "a.mp4", 3),
        ("a,b.mp4   3", "a,b.mp4", 3),
    ],
)
def test_the_last_separator_parts_a_path_from_its_label(tmp_path: Path, line: str, path: str, label: int):
    (tmp_path / "list.txt").write_text(f"{line}\n")
    (video,) = read_video_list(tmp_path / "list.txt").videos
    assert (video.path, video.label) == (tmp_path / path, label)


def test_kinetics_with_as_many_classes_as_lines_does_not_take_the_square_of_them(tmp_path: Path):
    (tmp_path / "kinetics.csv").write_text(KINETICS + "".join(f"c{n},v{n},0,1,train\n" for n in range(20_000)))
    start = monotonic()
    assert len(read_video_list(tmp_path / "kinetics.csv").videos) == 20_000
    assert monotonic() - start < 2 * SECONDS


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("text", ["1" * 5000 + "x", "1 " * 5000 + "x", DIGITS, "-" * 5000, "0 " * 10_000, "1,|" * 3000])
def test_genes_that_go_on_and_on_are_refused(name: str, text: str):
    refused(lambda: SPACES[name].parse(text))
    held("hostile", "genes: 5,000 digits, 10,000 numbers", f"exit code 2 in < {SECONDS} s")


def test_a_genotype_of_brackets_in_brackets_is_refused(tmp_path: Path):
    path = tmp_path / "architecture.json"
    for depth in (900, 950, 980, 100_000):
        path.write_text('{"normal": ' + "[" * depth + "]" * depth + ', "reduce": []}')
        refused(lambda: read_architecture(path))
    refused(lambda: SPACES["darts"].parse('{"normal": ' + "[" * 100_000))
    held("hostile", "genotypes: up to 10^5 brackets in brackets", "exit code 2")


@pytest.mark.parametrize("text", ["0/" + DIGITS, DIGITS + "/1", "-1/2", "1/1", "0/0", "a/b", "/", "0/2/3", "²/3"])
def test_a_shard_that_is_none_is_refused(text: str):
    assert "is no shard" in refused(lambda: ShardOptions(shard=text))


@pytest.mark.parametrize("text", ["0-999999999", "0-" + DIGITS, "5-1", "", ",", "0--1", "1e3"])
def test_seeds_that_nobody_waits_for_are_refused(text: str):
    refused(lambda: parse_seeds(text))
    held("hostile", "--seeds, --shard: too many, too long, backwards", "exit code 2")


@pytest.mark.parametrize(
    "text", ["n" * 5000, "~nobody-has-this-name/a.pt", "a=" + "n" * 5000, "a\0b.pt", "~\0", "\ud800"]
)
def test_a_network_that_can_be_no_file_is_refused(text: str):
    refused(lambda: parse_network(text))


@pytest.mark.parametrize("text", ["seed = " + DIGITS, "seed = " + "[" * 100_000, "seed = " + "[" * 500, "a.b." * 2000])
def test_a_config_of_brackets_or_digits_is_refused(tmp_path: Path, text: str):
    path = tmp_path / RUN_CONFIG
    path.write_text(text)
    assert "is not TOML" in refused(lambda: read_config(path, RunOptions, "train"))
    assert RunConfig.read(tmp_path) is None
    held("hostile", "--config: 5,000 digits, 10^5 brackets", "exit code 2: is not TOML")


def test_a_table_of_scores_with_an_endless_cell_is_refused(tmp_path: Path):
    path = tmp_path / "scores.csv"
    for text in (f"arch,score\n{LONG_CELL},1\n", f"arch,{LONG_CELL}\n"):
        path.write_text(text)
        assert "no table" in refused(lambda: read_scores(path, SPACES["chain-a"]))


def test_hyperparameters_of_any_digits_are_a_name(tmp_path: Path):
    path = tmp_path / "bench.csv"
    path.write_text(f"arch,hp,accuracy\n0 1 2,{DIGITS},50\n")
    assert open_benchmark(path).choose().hp == DIGITS


def test_a_matrix_of_many_names_does_not_take_the_square_of_them(tmp_path: Path):
    path = tmp_path / "matrix.csv"
    path.write_text("," + ",".join(f"n{number}" for number in range(60_000)) + "\n")
    assert "not square" in refused(lambda: read_matrix_csv(path))
    held("hostile", "similarity matrix of 60,000 names and no rows", f"exit code 2 in < {SECONDS} s")


def test_a_message_has_an_end():
    assert len(str(UserError("x" * 10**6, "y" * 10**6))) < LONGEST + 10
    assert str(UserError("short", "there")) == "there: short"
