from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from vtk_cli.errors import UserError
from vtk_cli.reports.plots import MARKERS, PALETTE, group_styles, save, style, write_titles

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]


def lab(colour: object, sight: object) -> np.ndarray:
    """CIE L*a*b* (D65) of a colour as someone with `sight` sees it."""
    rgb = np.asarray(to_rgb(colour))  # type: ignore[arg-type]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(sight) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.asarray(to_xyz) @ linear / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def simple(path: Path):  # type: ignore[no-untyped-def]
    with style():
        figure = Figure(figsize=(2, 2))
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1])
        write_titles(axes, "title", "subtitle")
    return save(figure, path)


@pytest.mark.parametrize(
    "sight", [np.eye(3), PROTANOPIA, DEUTERANOPIA], ids=["all cones", "protanopia", "deuteranopia"]
)
def test_colours_stay_apart_without_red_green_vision(sight: object) -> None:
    closest = min(np.linalg.norm(lab(a, sight) - lab(b, sight)) for a, b in itertools.combinations(PALETTE, 2))
    assert closest > 15.0  # about 2.3 is just noticeable


def test_a_picture_is_written_as_png_and_svg_and_nothing_else(tmp_path: Path) -> None:
    picture = simple(tmp_path / "plots" / "picture")
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["picture.png", "picture.svg"]
    assert picture.png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in picture.svg.read_text(encoding="utf-8")


def test_the_same_figure_makes_the_same_bytes(tmp_path: Path) -> None:
    one, other = simple(tmp_path / "one"), simple(tmp_path / "other")
    assert one.png.read_bytes() == other.png.read_bytes()
    assert one.svg.read_bytes() == other.svg.read_bytes()


def test_global_settings_are_left_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    simple(tmp_path / "picture")
    assert dict(mpl.rcParams) == before


def test_a_folder_that_may_not_be_written_is_the_user_s_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Figure, "savefig", refuse)
    with pytest.raises(UserError, match="cannot be written"):
        simple(tmp_path / "picture")
    assert list(tmp_path.iterdir()) == []


def test_a_hundred_groups_are_all_drawn_differently() -> None:
    styles = group_styles([f"group {i}" for i in range(100)])
    assert len(set(styles.values())) == 100


def test_the_first_ten_groups_differ_in_colour_and_in_shape() -> None:
    styles = list(group_styles([f"{i}" for i in range(10)]).values())
    assert len({colour for colour, _ in styles}) == len({marker for _, marker in styles}) == 10 == len(MARKERS)


def test_groups_are_ordered_with_numbers_as_numbers() -> None:
    assert list(group_styles(["cluster 10", "cluster 9", "cluster 9", "a", "10", "9"])) == [
        "9",
        "10",
        "a",
        "cluster 9",
        "cluster 10",
    ]
