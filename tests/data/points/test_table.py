from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vtk_cli.console import Console
from vtk_cli.data.points import Classes, open_points
from vtk_cli.data.points.table import write_point_table
from vtk_cli.errors import UserError

CLASSES = Classes(("cat", "dog"), (3, 7))


def opened(path: Path, photos: Path, **how: object):
    return open_points(path, images=photos, console=Console(quiet=True), **how)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", "a.png,cat,1.5,2\na.png,7,9,8\nc.png,cat,0,0\n"),
        ("p.csv", "image,category,x,y\na.png,cat,1.5,2\n\na.png,7,9,8\nc.png,cat,0,0\n"),
        ("p.csv", "\ufeffY;X;Who;Category;Image\n2;1.5;me;cat;a.png\n8;9;me;7;a.png\n0;0;me;cat;c.png"),
        ("p.tsv", "image\tcategory\tx\ty\r\na.png\tcat\t1.5\t2\r\na.png\t7\t9\t8\r\nc.png\tcat\t0\t0\r\n"),
    ],
)
def test_tables_are_read_with_and_without_names_of_columns(tmp_path: Path, photos: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    points = opened(path, photos, classes=CLASSES, first_id=5)
    assert [(image.id, image.file.name) for image in points.images] == [(5, "a.png"), (6, "c.png")]
    assert points.images[0].points.tolist() == [[1.5, 2], [9, 8]]
    assert points.images[0].labels.tolist() == [0, 1]


def test_without_given_classes_they_are_the_sorted_names(tmp_path: Path, photos: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("a.png,dog,1,1\na.png,ant,5,5\n")
    assert opened(path, photos).classes == Classes(("ant", "dog"), (1, 2))


def test_a_line_with_an_image_alone_is_an_image_without_a_click(tmp_path: Path, photos: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("image,category,x,y\na.png,cat,1,1\nb.png,,,\n")
    points = opened(path, photos)
    assert [len(image) for image in points.images] == [1, 0]
    assert points.without_click == 1


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("a.png,cow,1,1", r"1 x category is unknown \(first .*p.csv:2 \(category 'cow'\)"),
        ("a.png,cat,1,31", r"point is outside the image \(first .*p.csv:2 \(point \(1, 31\), image 40x30\)"),
        ("a.png,cat,1,nan", "point is not two numbers"),
        ("a.png,cat,,", "point is not two numbers"),
        ("z.png,cat,1,1", r"image is missing \(first .*p.csv:2 \(z.png\)"),
        ("../z.png,cat,1,1", "image file lies outside the folder"),
        (",cat,1,1", "line names no image"),
    ],
)
def test_a_wrong_line_is_refused_with_its_place_or_left_out(tmp_path: Path, photos: Path, line: str, what: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f"a.png,cat,30,20\n{line}\n")
    with pytest.raises(UserError, match=what):
        opened(path, photos, classes=CLASSES)
    assert opened(path, photos, classes=CLASSES, skip_bad=True).clicks == 1


@pytest.mark.parametrize("text", ["", "image,x,y\na.png,1,1\n", "image,category,x,y\n"])
def test_a_table_without_clicks_or_columns_is_refused(tmp_path: Path, photos: Path, text: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"column|no clicks"):
        opened(path, photos)


def test_what_is_written_as_a_table_is_read_back(coco: Callable[..., Path], photos: Path, tmp_path: Path) -> None:
    points = opened(coco([{"point": [1 / 3, 2]}, {"point": [7, 7], "category_id": 7, "image_id": 12}]), photos)
    path = tmp_path / "p.csv"
    write_point_table(path, points, photos)
    again = opened(path, photos, classes=points.classes, first_id=10)
    for one, other in zip(points.images, again.images, strict=True):
        assert (one.file, one.id, one.labels.tolist()) == (other.file, other.id, other.labels.tolist())
        assert abs(one.points - other.points).max(initial=0) < 1e-9
