from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console as RichConsole

from vtk_cli.console import Console
from vtk_cli.data.augmentation import Augmentation, train_transform
from vtk_cli.data.augmented import AugmentedImages
from vtk_cli.data.byproducts import Byproducts, PointTargets
from vtk_cli.data.byproducts.marks import no_marks
from vtk_cli.data.classification_source import ImageSource
from vtk_cli.data.images import BrokenImage
from vtk_cli.errors import UserError
from vtk_cli.train.byproduct_check import CELL, ByproductCheck, check_byproducts, draw_positions, drawn, shown_samples


def read(index: int) -> Image.Image:
    if index == 3:
        raise BrokenImage("not an image", "3.png")
    return Image.new("RGB", (40, 20 + index), (10 * index, 0, 0))


SOURCE = ImageSource("few", ("a", "b"), torch.tensor([0, 0, 0, 0, 1, 1]), read, [f"a/{n}.png" for n in range(6)])
POINTS = torch.tensor([[0.25, 0.5], [0.75, 0.5], [0.5, 0.5], [0.5, 1.0], [0.5, 0.0], [0.5, 0.5]])[:, None]
PRESENT = torch.tensor([True, True, False, True, True, False])[:, None]
BOX = [[0.0, 0.0, 0.5, 1.0]]
TARGETS = PointTargets(POINTS, PRESENT, torch.tensor([BOX, BOX, BOX, [[0.0] * 4], [[0.4, 0.0, 0.6, 0.1]], BOX]))
BYPRODUCTS = Byproducts(
    Path("clicks.csv"), "csv", "clicks", "last", "fraction", (), (), no_marks(2), None, None, {"repeated rows": 3}
)


def check(folder: Path, byproducts: Byproducts = BYPRODUCTS, said: io.StringIO | None = None) -> ByproductCheck:
    augmented = AugmentedImages(SOURCE, train_transform(Augmentation(16, auto_augment="rand-m9")), TARGETS)
    console = Console(_out=RichConsole(file=said or io.StringIO(), width=200), _err=RichConsole(file=io.StringIO()))
    return check_byproducts(byproducts, TARGETS, SOURCE, augmented, folder=folder, seed=1, console=console)


def test_the_numbers_are_those_of_the_points(tmp_path: Path) -> None:
    said = io.StringIO()
    found = check(tmp_path, said=said)
    assert (found.samples, found.covered, found.points) == (6, 4, 4)
    assert (found.boxed, found.inside) == (3, 2)
    assert found.mean == (0.5, 0.5)
    assert found.spread == pytest.approx((0.125**0.5 / 2, 0.5**0.5 / 2))
    assert found.per_class == {"a": 3, "b": 1}
    assert "4 of 6 (66.7%)" in said.getvalue()
    assert "2 of 3 (66.7%)" in said.getvalue()
    assert "skipped: repeated rows" in said.getvalue()
    assert found.summary()["coverage"] == pytest.approx(4 / 6)


def test_the_same_seed_draws_the_same_pictures_and_leaves_the_generators_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = check(tmp_path / "first"), check(tmp_path / "second")
    assert torch.equal(torch.get_rng_state(), before)
    assert first.sheet.read_bytes() == second.sheet.read_bytes()
    assert first.positions.png.read_bytes() == second.positions.png.read_bytes()


def test_the_mouse_has_a_map_where_it_was_recorded(tmp_path: Path) -> None:
    without = check(tmp_path / "without")
    with_mouse = check(tmp_path / "with", dataclasses.replace(BYPRODUCTS, trace=np.eye(64, dtype=np.int64)))
    widths = []
    for found in (without, with_mouse):
        with Image.open(found.positions.png) as picture:
            widths.append(picture.width)
    assert widths[1] > 1.5 * widths[0]


def test_every_class_is_shown_before_any_is_shown_twice() -> None:
    labels = torch.arange(1200) // 100
    many = ImageSource("many", tuple(map(str, range(12))), labels, lambda _: Image.new("RGB", (2, 2)), [""] * 1200)
    targets = PointTargets(torch.full((1200, 1, 2), 0.5), torch.ones(1200, 1, dtype=torch.bool))
    shown = shown_samples(targets, many, seed=0)
    assert sorted(labels[shown].tolist()) == list(range(12))
    assert shown != shown_samples(targets, many, seed=1)


def test_only_readable_images_with_a_point_are_shown() -> None:
    assert shown_samples(TARGETS, SOURCE, seed=0) == [0, 1, 4]
    broken = PointTargets(POINTS, torch.tensor([[n == 3] for n in range(6)]))
    with pytest.raises(UserError, match="no image with a point can be read"):
        shown_samples(broken, SOURCE, seed=0)


@pytest.mark.parametrize("size", [(CELL, CELL), (32, 32), (500, 200), (100, 150)])
def test_the_ring_is_round_the_point(size: tuple[int, int]) -> None:
    image = drawn(Image.new("RGB", size), torch.tensor([[0.3, 0.6], [0.9, 0.1]]), torch.tensor([True, False]))
    assert max(image.size) == CELL
    rows, columns = np.nonzero(np.asarray(image).max(axis=2))
    assert columns.mean() + 0.5 == pytest.approx(0.3 * image.width, abs=1.0)
    assert rows.mean() + 0.5 == pytest.approx(0.6 * image.height, abs=1.0)


def test_a_box_is_drawn_on_its_edges_and_not_without_an_area() -> None:
    nowhere = torch.tensor([[2.0, 2.0]])
    black = Image.new("RGB", (CELL, CELL))
    boxed = drawn(black, nowhere, torch.tensor([True]), torch.tensor([[0.25, 0.5, 0.75, 1.0]]))
    assert boxed.getbbox() == (CELL // 4, CELL // 2, 3 * CELL // 4, CELL)
    assert drawn(black, nowhere, torch.tensor([True]), torch.zeros(1, 4)).getbbox() is None


def test_samples_of_several_classes_are_counted_and_drawn_class_by_class(tmp_path: Path) -> None:
    several = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    source = ImageSource("several", ("a", "b"), several, lambda _: Image.new("RGB", (64, 64)), ["0.png", "1.png"])
    targets = PointTargets(torch.full((2, 2, 2), 0.5), several.bool())
    augmented = AugmentedImages(source, train_transform(Augmentation(16)), targets)
    quiet = Console(json_output=True, quiet=True)
    found = check_byproducts(BYPRODUCTS, targets, source, augmented, folder=tmp_path, seed=0, console=quiet)
    assert (found.points, found.covered, found.per_class) == (3, 2, {"a": 2, "b": 1})
    assert found.boxed is None
    assert found.sheet.stat().st_size > 1000


def test_a_map_of_one_point_can_be_drawn(tmp_path: Path) -> None:
    picture = draw_positions(tmp_path / "one", np.array([[1.0, 1.0]]), np.zeros((64, 64), np.int64))
    assert picture.png.stat().st_size > 1000
