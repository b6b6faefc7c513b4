from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from vtk_cli.data import digits_coco
from vtk_cli.data.digits import SPLITS, load_digits_split
from vtk_cli.data.digits_coco import (
    LARGEST_CROP,
    SIDE,
    SMALLEST_CROP,
    STREAM,
    build_digits_coco,
    draw_scenes,
    visible_masks,
)
from vtk_cli.data.painting import load_photos, photo_crop


@pytest.fixture(scope="module")
def loaded(coco_folder: Path) -> dict[str, COCO]:
    return {split: COCO(str(coco_folder / "annotations" / f"instances_{split}.json")) for split in SPLITS}


def test_no_digit_of_the_validation_scenes_is_in_a_train_scene(loaded):
    used = {split: {a["digit_id"] for a in coco.anns.values()} for split, coco in loaded.items()}
    assert not used["train"] & used["val"]
    for split in SPLITS:
        assert used[split] <= set(load_digits_split(split).ids.tolist())


def test_the_category_is_the_class_of_the_digit(loaded):
    for split, coco in loaded.items():
        source = load_digits_split(split)
        label_of = dict(zip(source.ids.tolist(), source.labels.tolist(), strict=True))
        for a in coco.anns.values():
            assert coco.cats[a["category_id"]]["name"] == str(label_of[a["digit_id"]])


def test_boxes_and_areas_are_tight_to_the_masks_and_points_lie_on_them(loaded):
    for coco in loaded.values():
        for a in coco.anns.values():
            mask = coco.annToMask(a).astype(bool)
            rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            tight = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
            assert a["bbox"] == tight
            assert a["bbox"] == coco_mask.toBbox(a["segmentation"]).tolist()
            assert a["area"] == mask.sum()
            x, y = a["point"]
            assert mask[int(y), int(x)]
            assert (x, y) == (int(x), int(y))


def test_the_point_is_the_mask_pixel_nearest_to_the_centroid(loaded):
    for a in list(loaded["train"].anns.values())[:30]:
        pixels = np.argwhere(loaded["train"].annToMask(a))
        distance = np.linalg.norm(pixels - pixels.mean(0), axis=1)
        x, y = a["point"]
        assert np.linalg.norm(np.array([y, x]) - pixels.mean(0)) == pytest.approx(distance.min())


def test_every_scene_is_on_disk_with_one_to_five_digits(loaded, coco_folder):
    for split, coco in loaded.items():
        for image in coco.imgs.values():
            assert Image.open(coco_folder / split / image["file_name"]).size == (image["width"], image["height"])
            assert 1 <= len(coco.getAnnIds(imgIds=[image["id"]])) <= 5
    assert len(loaded["train"].imgs) == 40
    assert len(loaded["val"].imgs) == 20
    assert min(loaded["train"].anns) == 1  # pycocotools takes annotation 0 for "not matched"


def test_the_masks_of_a_scene_are_disjoint_and_some_digits_are_occluded(loaded):
    occluded = 0
    for image_id in loaded["train"].imgs:
        annotations = loaded["train"].loadAnns(loaded["train"].getAnnIds(imgIds=[image_id]))
        assert np.sum([loaded["train"].annToMask(a) for a in annotations], axis=0).max() == 1
        boxes = [a["bbox"] for a in annotations]
        overlaps = coco_mask.iou(boxes, boxes, [0] * len(boxes)) if boxes else np.zeros((0, 0))
        occluded += int((overlaps > 0).sum() > len(boxes))
    assert occluded >= 5


def test_a_mask_is_where_the_digit_outweighs_the_background():
    """Of scenes with one digit: opacity as seen, |image - background| / |colour - background|, against one half."""
    photos, compared = load_photos(), 0
    for index, scene in enumerate(draw_scenes("train", 30)):
        if len(scene.instances) > 1:
            continue
        rng = np.random.default_rng([STREAM, 0, index])
        photo = photos[int(rng.integers(2))]
        background = photo_crop(photo, SIDE, rng, smallest=SMALLEST_CROP, largest=LARGEST_CROP).astype(float)
        mask = scene.instances[0].visible
        colour = np.median(scene.image[mask], 0)
        distance = np.linalg.norm(colour - background, axis=-1)
        seen = np.linalg.norm(scene.image - background, axis=-1) / np.maximum(distance, 1)
        clear = (np.abs(seen - 0.5) > 0.03) & (distance > 50)  # bytes are rounded, the colour is estimated
        assert ((seen > 0.5) != mask)[clear].sum() <= 0.01 * mask.sum()
        compared += 1
    assert compared >= 3


def test_a_later_layer_hides_what_it_covers():
    back, front = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
    back[:10, :10] = True
    front[5:15, :10] = True
    seen = visible_masks([back, front])
    assert seen[0].sum() == 50
    assert np.array_equal(seen[1], front)
    assert not (seen[0] & seen[1]).any()


def test_no_digit_is_hidden_by_more_than_half(monkeypatch):
    seen: list[tuple[list[np.ndarray], list[np.ndarray]]] = []

    def recorded(layers):
        seen.append((list(layers), visible_masks(layers)))
        return seen[-1][1]

    monkeypatch.setattr(digits_coco, "visible_masks", recorded)
    shares = []
    for scene in draw_scenes("val", 60):
        wholes, parts = seen[-1]  # the call that made the scene's instances
        assert [part.sum() for part in parts] == [instance.visible.sum() for instance in scene.instances]
        shares += [part.sum() / whole.sum() for part, whole in zip(parts, wholes, strict=True)]
    assert min(shares) >= 0.5
    assert min(shares) < 0.9


def test_digits_vary_in_size_and_class(loaded):
    heights = [a["bbox"][3] for a in loaded["train"].anns.values()]
    assert min(heights) < 30
    assert max(heights) > 48
    assert len({a["category_id"] for a in loaded["train"].anns.values()}) == 10


def test_fewer_scenes_are_the_first_of_more(tmp_path, coco_folder):
    build_digits_coco(tmp_path, train=3, val=2)
    for path in sorted(tmp_path.rglob("*.png")):
        assert path.read_bytes() == (coco_folder / path.relative_to(tmp_path)).read_bytes()
