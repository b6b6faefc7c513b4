from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.detection.outlines import outline_mask, outline_of_mask
from vtk_cli.data.points.importing import read_marks
from vtk_cli.data.points.records import PointImage
from vtk_cli.files import CACHE_VARIABLE
from vtk_cli.segment.pseudo.doubts import MissingClick
from vtk_cli.segment.pseudo.labels import UnresolvedClick
from vtk_cli.segment.pseudo.preview import Preview, export_labelme, image_overlay, object_tiles, write_preview

from ..scenes_with_masks import CLASSES, box_mask, clicked, paint, point_set, pseudo

ONE, TWO = box_mask(30, 40, 3, 4, 10, 12), box_mask(30, 40, 20, 4, 36, 25)


@pytest.fixture
def preview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Preview:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    points = point_set(
        [
            clicked(tmp_path / "in" / "a.png", 1, [(5, 6, 0), (30, 20, 1)]),
            clicked(tmp_path / "in" / "b.png", 2, [(5, 6, 0)], first=3),
        ]
    )
    rough = [pseudo(1, 1, ONE, point=(5.0, 6.0)), pseudo(1, 2, TWO, 1, point=(30.0, 20.0))]
    labels = [rough[0].refined(outline_of_mask(ONE)), rough[1].refined(outline_of_mask(ONE), ["<odd>"])]
    lost = [UnresolvedClick(2, 3, 0, (5.0, 6.0), "the mask is too small")]
    return Preview(points, labels, rough, lost, [MissingClick(2, 1, 0.75, outline_of_mask(TWO))])


def test_the_page_carries_every_sheet_and_its_counts(preview: Preview, tmp_path: Path) -> None:
    page = write_preview(tmp_path / "out", preview, order="flags")
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "images-001.png",
        "index.html",
        "labels-001.png",
        "missing-001.png",
        "unresolved-001.png",
    ]
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 4
    assert "the mask is too small" in html
    assert "1 &lt;odd&gt;" in html
    text = " ".join(re.sub("<[^>]*>", " ", html[html.index("<body") :]).split())
    for told in ("unresolved clicks", "IoU rough, refined", "0.500", "those with most flags first"):
        assert told in text


def test_without_labels_or_refinement_there_is_a_page_too(preview: Preview, tmp_path: Path) -> None:
    rough_only = Preview(preview.points, preview.rough)
    html = write_preview(tmp_path / "one", rough_only, count=1).read_text()
    assert "refined mask" not in html
    assert "1 more are not shown" in html
    nothing = Preview(preview.points, [])
    assert write_preview(tmp_path / "two", nothing).is_file()


def test_the_tiles_of_an_object_show_image_click_rough_and_refined_mask(preview: Preview) -> None:
    image = preview.points.images[0]
    tiles = object_tiles(image, preview.labels[1], preview.rough[1], CLASSES.names, image.read())
    assert [tile.caption.split("\n")[0] for tile in tiles] == ["dog", "click 2", "rough, level 1", "refined"]
    assert all(tile.frame for tile in tiles)
    assert "<odd>" in tiles[3].caption
    shown = [np.asarray(tile.image.resize(tiles[0].image.size, Image.Resampling.NEAREST)) for tile in tiles]
    assert all((one != shown[0]).any() for one in shown[1:])
    assert len(object_tiles(image, preview.rough[0], None, CLASSES.names, image.read())) == 3


@pytest.mark.parametrize("side", [48, 96, 128, 180, 300])
def test_tiles_fill_their_place_on_the_sheet_whatever_the_size_of_the_object(tmp_path: Path, side: int) -> None:
    click = PointImage(
        paint(tmp_path / "a.png", side, side), 1, side, side, np.zeros((1, 2)), np.zeros(1, int), np.ones(1, int), ("",)
    )
    label = pseudo(1, 1, box_mask(side, side, 0, 0, side, side))
    for tile in object_tiles(click, label, None, CLASSES.names, click.read()):
        assert isinstance(tile.image, Image.Image)
        assert max(tile.image.size) == 192


def test_clicks_without_a_mask_are_marked_where_they_are(preview: Preview) -> None:
    image = preview.points.images[1]
    plain = np.asarray(image_overlay(image, [], [], [], CLASSES.names))
    marked = np.asarray(image_overlay(image, [], preview.unresolved, [], CLASSES.names))
    factor = plain.shape[0] // 30
    changed = (plain != marked).any(-1)
    assert changed[6 * factor + factor // 2, 5 * factor + factor // 2]
    assert not changed[20 * factor :, 25 * factor :].any()


def test_labels_go_to_labelme_and_come_back_as_masks(preview: Preview, tmp_path: Path) -> None:
    assert export_labelme(tmp_path / "labelme", preview) == 2
    marked = read_marks(tmp_path / "labelme", Console(quiet=True), tmp_path / "in")
    assert not marked.problems
    first, second = marked.images
    assert [mark.name for mark in first.marks] == ["cat", "dog"]
    assert all((outline_mask(mark.outline, 30, 40) == ONE).all() for mark in first.marks)
    assert first.marks[1].click.tolist() == [30, 20]
    (lost,) = second.marks
    assert lost.outline is None
    assert lost.click.tolist() == [5, 6]
