"""Names that mean harm in every picture, page and table that names are put into."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cases import held
from vtk_cli.reports import page
from vtk_cli.reports.confusion import draw_confusion
from vtk_cli.reports.contact_sheet import Tile, contact_sheet
from vtk_cli.reports.curves import Curve, Points, draw_curves, draw_points
from vtk_cli.reports.detection_curves import PrecisionCurve, draw_precision_recall
from vtk_cli.reports.detection_curves import draw_confusion as draw_detected
from vtk_cli.reports.evidence import markdown_table
from vtk_cli.reports.heatmap import draw_heatmap
from vtk_cli.reports.overlay import Mark, draw_overlay
from vtk_cli.reports.plain_names import spreadsheet_cell
from vtk_cli.reports.plots import Picture
from vtk_cli.reports.scatter import draw_scatter
from vtk_cli.reports.small_multiples import Line, Small, draw_small_multiples

NAMES = (
    "<script>alert(1)</script>",
    "--><svg onload=alert(1)>",
    "$x^{$ \\frac{",
    "a|b\n\x1b[2J\x00",
    os.fsdecode(b"\xff"),
    "\"quoted\" 'twice' &amp;",
)
N = len(NAMES)
_HALF = np.linspace(1.0, 0.5, 11)
_SQUARE = np.arange(N * N, dtype=np.float64).reshape(N, N)

DRAWINGS: dict[str, Callable[[Path], Picture]] = {
    "confusion": lambda path: draw_confusion(path, np.eye(N, dtype=np.int64) + 1, NAMES, title=NAMES[2]),
    "curves": lambda path: draw_curves(
        path, [Curve(name, _HALF * 10, _HALF) for name in NAMES], title=NAMES[2], x_label="x", y_label="y"
    ),
    "points": lambda path: draw_points(path, [Points(name, _HALF) for name in NAMES], title=NAMES[2], x_label="x"),
    "precision": lambda path: draw_precision_recall(
        path,
        np.linspace(0, 1, 11),
        [PrecisionCurve(NAMES[2], _HALF)],
        [PrecisionCurve(name, _HALF) for name in NAMES],
        title=NAMES[2],
    ),
    "detected": lambda path: draw_detected(path, np.eye(N + 1, dtype=np.int64), NAMES, title=NAMES[2]),
    "heatmap": lambda path: draw_heatmap(path, _SQUARE, NAMES, title=NAMES[2], groups=NAMES),
    "scatter": lambda path: draw_scatter(path, _SQUARE[:, :2], NAMES, title=NAMES[2], groups=NAMES),
    "small multiples": lambda path: draw_small_multiples(
        path, [Small(NAMES[2], [Line(name, _HALF, _HALF) for name in NAMES])], x_label="x", title=NAMES[2]
    ),
}


@pytest.mark.parametrize("kind", DRAWINGS)
def test_a_plot_shows_every_name_and_stays_a_picture(tmp_path: Path, kind: str) -> None:
    drawn = DRAWINGS[kind](tmp_path / "plot")
    text = drawn.svg.read_text(encoding="utf-8")
    ET.fromstring(text)  # noqa: S314  (ours; well-formed, or it raises)
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(text).iter()}  # noqa: S314
    assert "script" not in tags
    assert not any("onload" in element.attrib for element in ET.fromstring(text).iter())  # noqa: S314
    held("hostile", "reports: script, formulas, half and control characters in plots", "well-formed SVG, no script")


def test_labels_on_images_take_every_name() -> None:
    image = Image.new("RGB", (64, 64))
    drawn = draw_overlay(image, [Mark(name, index, (4, 4, 40, 40)) for index, name in enumerate(NAMES)])
    assert drawn.size >= image.size
    sheet = contact_sheet([Tile(image, name) for name in NAMES], title=NAMES[3])
    assert sheet.mode == "RGB"


def test_a_page_escapes_every_name() -> None:
    table = page.Table(("name", NAMES[3]), [(name, 1) for name in NAMES], NAMES[0])
    html = page.render_page(page.Page(NAMES[0], NAMES[1], {NAMES[0]: NAMES[1]}, [page.Section(NAMES[0], [table])], ""))
    html.encode("utf-8")
    assert "<script>alert" not in html
    assert "<svg onload" not in html
    assert not any(ord(letter) < 32 and letter != "\n" for letter in html)
    held("hostile", "reports: names in HTML", "escaped")


def test_a_markdown_table_keeps_its_cells() -> None:
    lines = markdown_table(("name", "value"), [(name, "1") for name in NAMES])
    assert len(lines) == 2 + N
    assert all(line.replace("\\|", "").count("|") == 3 for line in lines)
    assert "<script" not in "".join(lines)
    assert not any(ord(letter) < 32 for line in lines for letter in line)
    held("hostile", "reports: names in Markdown tables", "one cell each, no tag")


@pytest.mark.parametrize(
    ("name", "cell"),
    [("=1+1", "'=1+1"), ("@a", "'@a"), ("a=1", "a=1"), ("\t=1", "\\x09=1"), ("", ""), ("x\0", "x\\x00")],
)
def test_a_cell_of_a_spreadsheet_is_text(name: str, cell: str) -> None:
    assert spreadsheet_cell(name) == cell
