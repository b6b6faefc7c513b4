"""Pictures of architectures: everything that an architecture is, is in its picture, and nothing covers anything."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Circle, FancyBboxPatch
from PIL import Image

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.catalog import RELEASED, SPACES
from vtk_cli.search import drawing
from vtk_cli.search.drawing import draw_architecture

DARTS, CELLS = SPACES["darts"], SPACES["nasbench201"]


@pytest.fixture
def sketch(monkeypatch, tmp_path):
    """Draws an architecture and gives the figure instead of files."""

    def draw(space, genes, form=None, classes=10, **sizes):
        figures = []
        monkeypatch.setattr(drawing, "save", lambda figure, path: figures.append(figure))
        draw_architecture(tmp_path / "x", space, genes, space.shape(form or space.alone, classes, **sizes), title="t")
        return figures[0]

    return draw


def _texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def _samples(space, count):
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(count)]


@pytest.mark.parametrize("name", RELEASED)
def test_released_genotypes_are_drawn_under_their_names(name, tmp_path) -> None:
    space, released = RELEASED[name]
    shape = space.shape(released.form, 1000, width=released.width)
    picture = draw_architecture(tmp_path / name, space, released.genes, shape, title=name)
    with Image.open(picture.png) as image:
        assert image.width > 900
        assert np.asarray(image.convert("L")).min() < 100
    assert picture.svg.read_text().startswith("<?xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{name}.png", f"{name}.svg"])


def test_the_same_architecture_gives_the_same_bytes(space, tmp_path) -> None:
    genes, shape = _samples(space, 1)[0], space.shape(space.alone, 10)
    first, second = (draw_architecture(tmp_path / name, space, genes, shape) for name in "ab")
    assert first.svg.read_bytes() == second.svg.read_bytes()
    assert first.png.read_bytes() == second.png.read_bytes()


def test_a_cell_shows_each_operation_once_for_each_edge(sketch) -> None:
    genes = DARTS.parse("genas-flatness-cifar100")
    texts = _texts(sketch(DARTS, genes))
    normal = ["skip_connect", "sep_conv_5x5", "sep_conv_3x3", "sep_conv_3x3", "sep_conv_3x3", "sep_conv_5x5"]
    normal += ["sep_conv_3x3", "dil_conv_5x5"]
    reduction = ["dil_conv_3x3\nstride 2", "skip_connect\nstride 2", "avg_pool_3x3\nstride 2", "sep_conv_5x5"]
    reduction += ["sep_conv_5x5\nstride 2", "dil_conv_5x5", "max_pool_3x3\nstride 2", "max_pool_3x3"]
    operations = [text for text in texts if "_" in text]
    assert operations == normal + reduction


def test_an_edge_that_is_none_is_not_drawn(sketch) -> None:
    genes = CELLS.parse("|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|none~0|none~1|skip_connect~2|")
    texts = _texts(sketch(CELLS, genes))
    assert [text for text in texts if "_" in text] == ["nor_conv_3x3", "avg_pool_3x3", "skip_connect"]
    assert texts.count("no input") == 0
    assert _texts(sketch(CELLS, (0,) * 6)).count("no input") == 3


def _ends_of_operations(figure):
    """For each operation box: how high the lines that begin above it begin."""
    axes = figure.axes[0]
    boxes = {text.get_text(): text.get_position()[0] for text in axes.texts if "_" in text.get_text()}
    tops = {
        round(float(line.get_xdata()[0]), 6): float(line.get_ydata()[0])
        for line in axes.lines
        if len(line.get_xdata()) == 3
    }
    return {name: tops[round(x, 6)] for name, x in boxes.items()}


def test_an_operation_hangs_from_the_line_of_its_source(sketch) -> None:
    """Higher lines are earlier nodes: of the same node the same height, of a later one a lower one."""
    genes = CELLS.parse("|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|")
    tops = _ends_of_operations(sketch(CELLS, genes))
    assert tops["nor_conv_3x3"] == tops["skip_connect"] > tops["avg_pool_3x3"] == tops["nor_conv_1x1"]


@pytest.mark.parametrize("name", list(SPACES))
def test_no_words_cover_others_and_none_leave_their_box(name, sketch) -> None:
    space = SPACES[name]
    architectures = _samples(space, 4) + ([(0,) * 6, (3,) * 6] if space is CELLS else [])
    for genes in architectures:
        figure = sketch(space, genes)
        renderer = FigureCanvasAgg(figure).get_renderer()
        axes = figure.axes[0]
        places = [text.get_window_extent(renderer) for text in axes.texts]
        for number, place in enumerate(places):
            for other in places[:number]:
                assert not place.overlaps(other), (genes, axes.texts[number].get_text())
        boxes = [patch.get_window_extent(renderer) for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
        for place in places:
            around = [box for box in boxes if box.overlaps(place)]
            assert all(box.x0 <= place.x0 and place.x1 <= box.x1 for box in around)
            assert all(box.y0 <= place.y0 and place.y1 <= box.y1 for box in around)
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:number])


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_no_line_runs_through_a_box_that_is_not_its_own(name, sketch) -> None:
    """Upright lines meet a box in its middle or not at all, level ones never; nor do they meet another's node."""
    space = SPACES[name]
    for genes in _samples(space, 20):
        axes = sketch(space, genes).axes[0]
        boxes = [
            (patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height())
            for patch in axes.patches
            if isinstance(patch, FancyBboxPatch)
        ]
        rings = [patch.center for patch in axes.patches if isinstance(patch, Circle) and patch.radius > 0.1]
        for line in axes.lines:
            (x, *_), (top, bottom, *_) = line.get_xdata(), line.get_ydata()
            if x == line.get_xdata()[1]:
                meets = [box for box in boxes if box[0] < x < box[0] + box[2] and bottom < box[1] < top]
                assert all(box[0] + box[2] / 2 == pytest.approx(x) for box in meets)
                assert line.get_linewidth() > 2 or len(meets) == 1
                assert not any(abs(x - ring[0]) < 0.15 and bottom < ring[1] < top for ring in rings)
            else:
                assert not any(box[1] < top < box[1] + box[3] for box in boxes)


def test_a_chain_shows_every_layer_in_its_stage(sketch) -> None:
    space = SPACES["mobilenet"]
    genes = (0, -1, 5, 2) + (1,) * 16 + (4,)
    texts = _texts(sketch(space, genes))
    assert texts.count("left out") == 1
    assert "MBConv 7x7\nexpand 6" in texts
    assert [text for text in texts if text.isdecimal()] == [str(number) for number in range(21)]
    assert [text for text in texts if "channels" in text] == [
        "32 channels, 56x56",
        "56 channels, 28x28",
        "112 channels, 14x14",
        "128 channels, 14x14",
        "256 channels, 7x7",
        "432 channels, 7x7",
    ]


def test_the_network_is_told_with_its_widths_and_its_cost(sketch) -> None:
    texts = _texts(sketch(DARTS, DARTS.parse("genas-flatness-cifar100"), "imagenet", 1000, width=46))
    assert [text for text in texts if text.count("x") == 1 and "\n" in text and "_" not in text] == [
        "46\n28x28",
        "184\n28x28",
        "368\n14x14",
        "736\n7x7",
    ]
    assert any(text.startswith("579.5 M multiply-accumulates, 5.2 M parameters") for text in texts)
    assert [text for text in texts if text in {"stem", "4 x N", "R", "FC"}] == [
        "stem",
        *["4 x N", "R"] * 2,
        "4 x N",
        "FC",
    ]


def test_what_is_no_architecture_is_not_drawn(tmp_path) -> None:
    with pytest.raises(UserError, match="darts needs 28 genes"):
        draw_architecture(tmp_path / "x", DARTS, (1, 2), DARTS.shape("cifar", 10))
    assert not list(tmp_path.iterdir())
