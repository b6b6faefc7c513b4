from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from vtk_cli.console import Console
from vtk_cli.data.embedded import open_embedded
from vtk_cli.data.points import open_points
from vtk_cli.files import CACHE_VARIABLE
from vtk_cli.segment.labels.points import make_points, prompts_of, write_points

from ..scenes_with_masks import clicked, paint, point_set

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))


def labelled(folder: Path) -> Path:
    """A COCO file with an object with a misleading point, a box alone, and a crowd."""
    paint(folder / "a.png")
    entries = [
        {"segmentation": [[4, 6, 10, 6, 10, 16, 4, 16]], "point": [39, 29], "bbox": [4, 6, 6, 10]},
        {"bbox": [20, 4, 10, 6]},
        {"bbox": [0, 0, 40, 30], "iscrowd": 1},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 3, **entry} for number, entry in enumerate(entries)
        ],
        "categories": [{"id": 3, "name": "cat"}],
    }
    path = folder / "full.json"
    path.write_text(json.dumps(content))
    return path


def test_points_are_made_anew_from_masks_and_of_boxes_the_centre(tmp_path: Path) -> None:
    points = make_points(labelled(tmp_path), mode="centroid", console=QUIET)
    assert points.images[0].points.tolist() == [[6.5, 10.5], [24.5, 6.5]]
    assert points.sources == {"segmentation": 1, "bbox": 1}


@pytest.mark.parametrize("name", ["weak.json", "weak.csv"])
def test_made_points_are_written_without_masks_and_opened_again(tmp_path: Path, name: str) -> None:
    points = make_points(labelled(tmp_path), mode="random", seed=4, console=QUIET)
    write_points(tmp_path / name, points, tmp_path)
    assert "segmentation" not in (tmp_path / name).read_text().replace('"point_from": "segmentation"', "")
    again = open_points(tmp_path / name, images=tmp_path, classes=points.classes, console=QUIET)
    assert again.images[0].points.tolist() == points.images[0].points.tolist()
    assert again.sources == {"point": 2}


def test_random_clicks_of_digits_lie_on_their_masks_and_repeat(tmp_path: Path) -> None:
    folder = open_embedded("digits-coco", train=6, val=2).folder
    path = folder / "annotations" / "instances_train.json"
    one, same, other = (make_points(path, mode="random", seed=seed, console=QUIET) for seed in (0, 0, 1))
    full = {entry["id"]: entry for entry in json.loads(path.read_text())["annotations"]}
    for image in one.images:
        for identity, (x, y) in zip(image.annotation_ids.tolist(), image.points.astype(int).tolist(), strict=True):
            assert coco_mask.decode(full[identity]["segmentation"])[y, x]
    stacked = [np.concatenate([image.points for image in points.images]) for points in (one, same, other)]
    assert (stacked[0] == stacked[1]).all()
    assert not (stacked[0] == stacked[2]).all()


def test_inside_clicks_of_digits_are_the_points_the_data_set_comes_with() -> None:
    path = open_embedded("digits-coco", train=6, val=2).folder / "annotations" / "instances_train.json"
    made, given = make_points(path, mode="inside", console=QUIET), open_points(path, console=QUIET)
    assert given.sources == {"point": given.clicks}
    for one, other in zip(made.images, given.images, strict=True):
        assert one.points.tolist() == other.points.tolist()


def test_prompts_keep_the_order_of_the_clicks(tmp_path: Path) -> None:
    points = point_set([clicked(tmp_path / "a.png", 9, [(1.5, 2, 1), (3, 4, 0)]), clicked(tmp_path / "b.png", 10, [])])
    first, second = prompts_of(points)
    assert [(prompt.x, prompt.y, prompt.label, prompt.image_id) for prompt in first] == [(1.5, 2, 1, 9), (3, 4, 0, 9)]
    assert second == []
