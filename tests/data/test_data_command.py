from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image

from vtk_cli.app import main
from vtk_cli.data.catalog import ENTRIES
from vtk_cli.files import CACHE_VARIABLE


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def test_list_names_every_dataset_and_what_is_cached(capsys):
    assert main(["data", "list"]) == 0
    table = capsys.readouterr().out
    assert all(entry.name in table for entry in ENTRIES)
    assert main(["data", "make", "digits-m"]) == 0
    capsys.readouterr()
    assert main(["data", "list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}
    assert listed["digits-m"]["cached"]
    assert listed["digits-m"]["bytes"] > 1e6
    assert not listed["digits"]["cached"]


def test_the_list_fits_80_columns_and_its_json_says_all_that_the_table_does(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["data", "list"]) == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 80
    assert main(["data", "list", "--json"]) == 0
    for row in json.loads(capsys.readouterr().out)["datasets"]:
        shown = [row["name"], row["kind"], *row["used_by"], *row["what"].split()]
        assert all(word in table for word in shown)
        assert set(row) == {"name", "kind", "what", "used_by", "cached", "bytes", "folder"}
        assert row["cached"] == (row["bytes"] is not None)


def test_an_unknown_verb_of_data_gets_the_nearest(capsys):
    assert main(["data", "lst"]) == 2
    assert "list" in capsys.readouterr().err


def test_make_puts_a_copy_where_asked(tmp_path, capsys):
    assert main(["data", "make", "digits", "--out", str(tmp_path / "out"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["datasets"]
    assert row["folder"] == str(tmp_path / "out" / "digits")
    assert len(list((tmp_path / "out" / "digits" / "val").rglob("*.png"))) == 360


def test_check_exits_with_0_when_clean_and_2_when_not(tmp_path, capsys):
    assert main(["data", "make", "digits", "--out", str(tmp_path)]) == 0
    assert main(["data", "check", str(tmp_path / "digits")]) == 0
    assert "1797 entries read as images, no problems" in capsys.readouterr().out
    next((tmp_path / "digits" / "val" / "3").iterdir()).write_bytes(b"x")
    assert main(["data", "check", str(tmp_path / "digits"), "--as", "images", "--json"]) == 2
    result = json.loads(capsys.readouterr().out)
    assert result["counts"] == {"image does not decode": 1}
    assert len(result["problems"]) == 1


def test_check_of_a_name_reports_what_is_torn_and_does_not_mend_it(tmp_path, capsys):
    assert main(["data", "make", "digits-m", "--json"]) == 0
    folder = json.loads(capsys.readouterr().out)["datasets"][0]["folder"]
    image = next((tmp_path / "cache" / "data").rglob("val/7/*.png"))
    assert str(image).startswith(folder)
    Image.new("RGB", (32, 32)).save(image)
    assert main(["data", "check", "digits-m", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["counts"] == {"file is missing or not as it was made": 1}
    assert main(["data", "make", "digits-m"]) == 0
    assert main(["data", "check", "digits-m"]) == 0


def test_check_makes_a_dataset_that_was_not_made(capsys):
    assert main(["data", "check", "digits"]) == 0
    assert "making digits" in capsys.readouterr().err


def test_many_problems_are_cut_short_but_counted(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    for index in range(80):
        (tmp_path / "a" / f"{index}.png").write_bytes(b"x")
    assert main(["data", "check", str(tmp_path / "a")]) == 2
    short = capsys.readouterr().out
    assert short.count(": image does not decode") == 50
    assert "and 30 more" in short
    assert "80 problems" in short
    assert main(["data", "check", str(tmp_path / "a"), "--verbose"]) == 2
    assert capsys.readouterr().out.count(": image does not decode") == 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["make", "digts"], "did you mean digits"),
        (["make"], "NAME"),
        (["check", "gone"], "no such file, folder or embedded dataset"),
        (["check", "digits", "--as", "sound"], "sound"),
    ],
)
def test_wrong_usage_exits_with_2_and_one_line(arguments, message, capsys):
    assert main(["data", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_help_and_list_import_nothing_heavy():
    code = (
        "import sys\nfrom vtk_cli.app import main\nmain(['data', 'list'])\nmain(['data', 'check', '--help'])\n"
        "heavy = [m for m in ('torch', 'sklearn', 'numpy', 'av', 'PIL') if m in sys.modules]\n"
        "sys.stderr.write(f'{heavy}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]"
