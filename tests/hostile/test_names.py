"""Files and classes with names that mean harm: to terminals, spreadsheets, browsers, formulas and file systems."""

from __future__ import annotations

import csv
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cases import held
from tests.hostile.attempts import Attempts

pytestmark = pytest.mark.slow

NAMES = (
    "=1+1",
    "-dash",
    "@SUM(A1)",
    "[red]bold[",
    "<script>alert(1)",
    "a|b `c` *d*",
    "\x1b[31mred\x1b[0m",
    "new\nline\ttab",
    "$x^{$ \\frac{",
    "\u202egpj.exe",
    "e\u0301",  # the same two letters to a person, other bytes: decomposed
    "\u00e9",  # composed
    "%s {} {0}",
    os.fsdecode(b"\xff\xfe"),  # no UTF-8
    "n" * 255,
    "'\";--",
)
_OBEYED = ("\x1b", "\u202e", "\r")


@pytest.fixture(scope="module")
def attempt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attempts]:
    folder = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for index, name in enumerate(NAMES):
            place = folder / "data" / part / name
            place.mkdir(parents=True)
            file = place / f"{NAMES[(index + 1) % len(NAMES)][:250]}.png"
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    attempts = Attempts(
        folder, "vtk_cli.train.use", "vtk_cli.train.job", "vtk_cli.runs.command", "vtk_cli.data.command"
    )
    yield attempts
    attempts.close()


@pytest.fixture(scope="module")
def run(attempt: Attempts) -> Path:
    """A classifier of those classes, and its predictions in `predictions`."""
    words = ("--epochs", "1", "--batch-size", "8", "--img-size", "32", "--workers", "0", "--device", "cpu")
    for command in (
        ("train", "data", "--model", "test_vit", "--out", "run", *words),
        ("train", "predict", "data/val", "--model", "run", "--device", "cpu", "--out", "predictions", "--top-k", "16"),
    ):
        said = attempt(*command)
        assert (said.code, said.within_bounds) == (0, True), said.err
        assert not any(mark in said.out + said.err for mark in _OBEYED)
    return attempt.folder / "run"


@pytest.mark.parametrize("command", [("runs", "show", "run"), ("runs", "report", "run"), ("data", "check", "data")])
def test_what_a_terminal_would_obey_is_spelled_out(attempt: Attempts, run: Path, command: tuple[str, ...]) -> None:
    said = attempt(*command)
    assert (said.code, said.within_bounds) == (0, True), said.err
    assert not any(mark in said.out + said.err for mark in _OBEYED)
    held("hostile", "names: escape sequences, turned text, bytes that are no UTF-8, 255 bytes", "exit 0; spelled out")


@pytest.mark.parametrize("name", ["\x1b[2J", "\u202efig", "a\nwarning: forged", os.fsdecode(b"\xff")])
def test_errors_spell_names_out_on_one_line(attempt: Attempts, name: str) -> None:
    said = attempt("train", f"nothing/{name}", "--dry-run")
    assert not any(mark in said.refusal for mark in _OBEYED)
    assert len(said.err.splitlines()) == 1
    held("hostile", "names: in errors", "exit 2, one line, spelled out")


def test_spreadsheets_find_no_formula(attempt: Attempts, run: Path) -> None:
    with (attempt.folder / "predictions/predictions.csv").open(encoding="utf-8", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert "'=1+1" in cells
    assert "'@SUM(A1)" in cells
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    assert not any(mark in cell for cell in cells for mark in ("\x1b", "\n", "\0"))
    held("hostile", "names: formulas in CSV", "written as text: '=1+1")


def test_json_keeps_every_name(run: Path) -> None:
    found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert found
    rows = json.loads((run.parent / "predictions/predictions.json").read_text(encoding="utf-8"))
    assert "new\\nline\\ttab" in json.dumps(rows)


def test_pages_run_no_name_and_pictures_read_no_formula(attempt: Attempts, run: Path) -> None:
    for page in (run / "report.html", run / "run.html"):
        text = page.read_text(encoding="utf-8")
        assert "<script>alert" not in text
        assert not any(ord(letter) < 32 and letter != "\n" for letter in text)
    assert "&lt;script&gt;alert" in (run / "report.html").read_text(encoding="utf-8")
    for picture in (run / "plots").glob("*.svg"):
        ET.fromstring(picture.read_bytes())  # noqa: S314  (ours; well-formed, or it raises)
    held("hostile", "names: script, quotes, formulas, control characters in pages and pictures", "escaped, well-formed")


def test_loops_end_and_links_out_of_the_folder_are_read_where_they_lead(attempt: Attempts) -> None:
    """A link is the word of whoever owns the folder: an image behind it is read, anything else is none."""
    folder = attempt.folder / "linked/a"
    folder.mkdir(parents=True)
    (folder / "self").symlink_to("self")
    (folder / "up").symlink_to("..")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "secret.png").symlink_to("/etc/passwd")
    Image.new("RGB", (8, 8)).save(folder / "0.png")
    said = attempt("data", "check", "linked")
    assert (said.code, said.within_bounds) == (2, True), said.err
    assert "root:" not in said.out + said.err
    held(
        "hostile",
        "names: links in loops, links out of the folder",
        "loops end; a file behind a link is an image or none",
    )
