from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from vtk_cli.reports import heatmap
from vtk_cli.reports.heatmap import SecondScale, draw_heatmap

pytestmark = pytest.mark.filterwarnings("error")


def texts(svg: Path) -> list[str]:
    """What is written in a picture, in drawing order: matplotlib notes every text in a comment."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text(encoding="utf-8"))


def matrix_of(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    matrix = random.uniform(1.0, 4.0, (count, count))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 4.605)
    return matrix


def tree_of(matrix: np.ndarray) -> np.ndarray:
    distance = 4.605 - matrix
    np.fill_diagonal(distance, 0.0)
    return linkage(squareform(distance, checks=False), "average", optimal_ordering=True)


def test_rows_and_columns_stand_in_the_order_of_the_tree(tmp_path: Path) -> None:
    matrix, names = matrix_of(7), [f"net{i}" for i in range(7)]
    tree = tree_of(matrix)
    written = texts(draw_heatmap(tmp_path / "h", matrix, names, title="t", linkage=tree).svg)
    expected = [names[i] for i in leaves_list(tree)]
    assert [text for text in written if text.startswith("net")] == expected * 2
    assert expected != names


def test_values_move_with_their_names(tmp_path: Path) -> None:
    matrix, names = matrix_of(5), [f"net{i}" for i in range(5)]
    tree = tree_of(matrix)
    written = texts(draw_heatmap(tmp_path / "h", matrix, names, title="t", linkage=tree).svg)
    order = leaves_list(tree)
    expected = [f"{matrix[i, j]:.2f}" for i in order for j in order]
    values = [text for text in written if re.fullmatch(r"\d\.\d\d", text)]
    assert "|".join(expected) in "|".join(values)


def test_without_a_tree_the_order_is_kept(tmp_path: Path) -> None:
    names = ["b", "c", "a"]
    written = texts(draw_heatmap(tmp_path / "h", matrix_of(3), names, title="t").svg)
    assert [text for text in written if text in names] == names * 2


@pytest.mark.parametrize(("count", "printed"), [(2, True), (12, True), (13, False)])
def test_values_are_printed_up_to_twelve_rows(tmp_path: Path, count: int, printed: bool) -> None:
    names = [f"n{i}" for i in range(count)]
    written = texts(draw_heatmap(tmp_path / "h", matrix_of(count), names, title="t").svg)
    assert written.count("4.61" if np.round(4.605, 2) == 4.61 else "4.60") == (count if printed else 0)


def test_a_pair_without_a_value_says_none_and_does_not_spoil_the_colours(tmp_path: Path) -> None:
    matrix = matrix_of(3)
    matrix[0, 1] = matrix[1, 0] = np.nan
    written = texts(draw_heatmap(tmp_path / "h", matrix, ["a", "b", "c"], title="t").svg)
    assert written.count("none") == 2
    _, scale = heatmap._colours(matrix)
    assert (scale.vmin, scale.vmax) == (min(matrix[0, 2], matrix[1, 2]), max(matrix[0, 2], matrix[1, 2]))


def test_a_matrix_of_equal_values_or_of_none_can_be_drawn(tmp_path: Path) -> None:
    draw_heatmap(tmp_path / "equal", np.full((3, 3), 2.0), ["a", "b", "c"], title="t")
    draw_heatmap(tmp_path / "none", np.full((2, 2), np.nan), ["a", "b"], title="t")


def test_colours_span_the_values_off_the_diagonal() -> None:
    matrix = matrix_of(6)
    _, scale = heatmap._colours(matrix)
    off = matrix[~np.eye(6, dtype=bool)]
    assert (scale.vmin, scale.vmax) == (off.min(), off.max())


def contrast(one: object, other: object) -> float:
    def luminance(colour: object) -> float:
        rgb = np.asarray(to_rgb(colour))  # type: ignore[arg-type]
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_printed_values_are_readable_on_every_colour() -> None:
    colours, _ = heatmap._colours(matrix_of(3))
    every = [colours(value) for value in np.linspace(0.0, 1.0, 256)] + [colours(2.0), colours(np.nan)]
    assert min(contrast(colour, heatmap._readable_on(colour)) for colour in every) > 3.5


def test_darker_always_means_more() -> None:
    colours = mpl.colormaps["YlGnBu"](np.linspace(0.0, 1.0, 64))
    to_white = [contrast(colour, "white") for colour in colours]
    assert (np.diff(to_white) > 0).all()


def test_marks_of_the_second_scale_outside_the_colours_are_left_out(tmp_path: Path) -> None:
    matrix = np.array([[4.6, 2.0, 2.5], [2.0, 4.6, 3.0], [2.5, 3.0, 4.6]])
    second = SecondScale("transfer, %", {1.9: "seven", 2.0: "eight", 2.7: "fifteen", 3.1: "twenty"})
    written = texts(draw_heatmap(tmp_path / "h", matrix, ["a", "b", "c"], title="t", second_scale=second).svg)
    assert [text for text in written if text in {"seven", "eight", "fifteen", "twenty"}] == ["eight", "fifteen"]
    assert "transfer, %" in written


def test_groups_are_explained(tmp_path: Path) -> None:
    written = texts(
        draw_heatmap(tmp_path / "h", matrix_of(4), list("abcd"), title="t", groups=["vit", "cnn", "vit", "cnn"]).svg
    )
    assert [text for text in written if text in {"vit", "cnn"}] == ["cnn", "vit"]


def test_sixty_nine_networks_make_a_picture_of_bearable_size(tmp_path: Path) -> None:
    matrix, names = matrix_of(69), [f"some_network_{i}_patch16_224" for i in range(69)]
    picture = draw_heatmap(tmp_path / "h", matrix, names, title="t", linkage=tree_of(matrix))
    assert picture.svg.stat().st_size < 1_500_000
    assert picture.png.stat().st_size < 1_500_000
    assert len([text for text in texts(picture.svg) if text.startswith("some_network")]) == 2 * 69
