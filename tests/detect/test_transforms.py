from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.ops import box_convert

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet, ImageRecord, open_detection
from vtk_cli.data.detection.outlines import outline_of_mask
from vtk_cli.data.detection.scenes import Scene, cropped, flipped, image_scene, padded, resized, scene_of
from vtk_cli.data.embedded import open_embedded
from vtk_cli.detect.mosaic import mixup, mosaic
from vtk_cli.detect.samples import (
    Collate,
    EvaluationImages,
    Mixing,
    TrainingImages,
    normalised,
    padded_images,
    pixels,
    sample_of,
)
from vtk_cli.detect.transforms import (
    GREY,
    Letterbox,
    ModernTraining,
    PaperTraining,
    ShortSide,
    Stretch,
    fitted_size,
    resized_size,
)
from vtk_cli.files import CACHE_VARIABLE

COLOURS = torch.tensor([[250, 10, 10], [10, 250, 10], [10, 10, 250]], dtype=torch.uint8)


def scene(height: int = 60, width: int = 80, *, masks: bool = True) -> Scene:
    """Three rectangles of one colour each, by label, on black; every box and mask is exactly its rectangle."""
    boxes = torch.tensor([[5, 10, 30, 30], [40, 20, 75, 50], [10, 40, 35, 55]], dtype=torch.float32)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    shapes = torch.zeros(3, height, width, dtype=torch.bool)
    for label, (left, top, right, bottom) in enumerate(boxes.int().tolist()):
        image[:, top:bottom, left:right] = COLOURS[label][:, None, None]
        shapes[label, top:bottom, left:right] = True
    return Scene(
        tv_tensors.Image(image),
        tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
        torch.arange(3),
        tv_tensors.Mask(shapes) if masks else None,
        torch.tensor([500.0, 1050.0, 375.0]),
        torch.tensor([False, True, False]),
        5,
        (height, width),
    )


def empty(height: int, width: int) -> Scene:
    return image_scene(Image.fromarray(np.full((height, width, 3), 90, np.uint8)))


def colour_boxes(scene: Scene) -> torch.Tensor:
    """Where the colours of the labels are: what boxes must say, read off the pixels."""
    image = scene.image.as_subclass(torch.Tensor).int()
    found = []
    for label in scene.labels.tolist():
        near = (image - COLOURS[label].int()[:, None, None]).abs().amax(dim=0) < 60
        rows, columns = torch.nonzero(near.any(dim=1)).ravel(), torch.nonzero(near.any(dim=0)).ravel()
        found.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return torch.tensor(found, dtype=torch.float32).reshape(-1, 4)


def check_agrees(result: Scene, slack: float = 1.5) -> None:
    """Boxes and masks say what the pixels say."""
    seen = colour_boxes(result)
    assert (result.boxes.as_subclass(torch.Tensor) - seen).abs().max() <= slack
    if result.masks is not None:
        assert result.masks.shape[-2:] == result.image.shape[-2:]
        for mask, box in zip(result.masks, result.boxes, strict=True):
            rows, columns = torch.nonzero(mask.any(dim=1)).ravel(), torch.nonzero(mask.any(dim=0)).ravel()
            edges = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert (edges - box.as_subclass(torch.Tensor)).abs().max() <= slack


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (640, 480, (800, 1056)),
        (640, 427, (800, 1184)),
        (1242, 375, (400, 1328)),
        (427, 640, (1184, 800)),
        (500, 500, (800, 800)),
    ],
)
def test_sizes_after_the_papers_resize(width, height, expected):
    assert resized_size(height, width, 800, 1333) == expected


def test_a_resize_never_vanishes_and_keeps_its_bounds():
    for height, width in [(1, 1000), (1000, 1), (3, 5), (2000, 1999)]:
        result = resized_size(height, width, 800, 1333)
        assert min(result) >= 16
        assert max(result) <= 1333
        assert all(side % 16 == 0 for side in result)


def test_boxes_scale_with_the_true_ratio_of_each_axis():
    before = scene()
    after = resized(before, 800, 1056)
    np.testing.assert_allclose(after.boxes, before.boxes * torch.tensor([13.2, 800 / 60, 13.2, 800 / 60]), rtol=1e-6)
    check_agrees(after, slack=10)


def test_two_flips_change_nothing():
    before = scene()
    once, twice = flipped(before), flipped(flipped(before))
    check_agrees(once)
    assert not torch.equal(once.boxes, before.boxes)
    assert torch.equal(twice.boxes, before.boxes)
    assert torch.equal(twice.masks, before.masks)
    assert torch.equal(twice.image, before.image)


def test_a_crop_keeps_what_is_inside_and_drops_what_is_not():
    result = cropped(scene(), 15, 20, 30, 40)
    assert result.labels.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(result.boxes, [[0, 0, 10, 15], [20, 5, 40, 30], [0, 25, 15, 30]])
    check_agrees(result)
    assert cropped(scene(), 15, 20, 30, 40, least_visible=0.4).labels.tolist() == [1]
    assert cropped(scene(), 0, 30, 20, 10).labels.tolist() == []
    assert result.crowd.tolist() == [False, True, False]


def test_a_border_moves_the_objects():
    result = padded(scene(), (7, 11, 3, 2), GREY)
    assert result.size == (73, 90)
    check_agrees(result)
    assert result.image[:, 0, 0].tolist() == list(GREY)


@pytest.mark.parametrize(
    "transform", [PaperTraining.scaled(128), ModernTraining(Stretch(96)), ModernTraining(Letterbox(96))]
)
@pytest.mark.parametrize("masks", [True, False])
def test_boxes_and_masks_follow_the_pixels_through_every_augmentation(transform, masks):
    torch.manual_seed(0)
    if isinstance(transform, ModernTraining):  # the colours stay, so that the pixels can be read
        object.__setattr__(transform, "_jitter", lambda image: image)
    kept = 0
    for _ in range(60):
        result = transform(scene(masks=masks))
        kept += len(result)
        if len(result):
            check_agrees(result, slack=3)
        assert (result.masks is not None) == masks
    assert kept > 100


@pytest.mark.parametrize("transform", [PaperTraining.scaled(128), ModernTraining(Stretch(96)), ShortSide.scaled(128)])
def test_images_without_objects_go_through(transform):
    torch.manual_seed(0)
    bare = scene().objects(torch.zeros(3, dtype=torch.bool))
    for _ in range(12):
        image, target = sample_of(transform(bare))
        assert target.boxes.shape == (0, 4)
        assert target.masks.shape == (0, *image.shape[-2:])


def test_the_papers_sizes_are_those_published():
    paper = PaperTraining.scaled(800)
    assert paper == PaperTraining()
    assert paper.sides == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    assert PaperTraining.scaled(128).sides == (80, 96, 112, 128)
    assert ShortSide.scaled(800) == ShortSide()
    torch.manual_seed(0)
    sizes = {PaperTraining()(empty(48, 64)).size for _ in range(40)}
    shorts = {min(size) for size in sizes}
    assert shorts <= set(paper.sides)
    assert len(shorts) > 8
    assert max(max(size) for size in sizes) <= 1333


def test_a_letterbox_keeps_the_shape_and_its_padding_is_masked():
    result = Letterbox(100)(scene(60, 80))
    assert result.size == fitted_size(60, 80, 100) == (75, 100)
    batch, (target,) = Collate(side=100)([sample_of(result)])
    assert batch.images.shape == (1, 3, 100, 100)
    assert batch.mask[0, 75:].all()
    assert not batch.mask[0, :75].any()
    assert target.size == (75, 100)
    assert Stretch(100)(scene()).size == (100, 100)


def test_a_mosaic_holds_the_objects_of_all_four():
    torch.manual_seed(1)
    counts = []
    for _ in range(20):
        result = mosaic([scene(60 + 10 * n, 80) for n in range(4)], 128)
        assert result.size == (128, 128)
        assert result.masks.shape == (len(result), 128, 128)
        counts.append(len(result))
        image = result.image.as_subclass(torch.Tensor).int()
        for box, label, mask in zip(result.boxes.round().int().tolist(), result.labels, result.masks, strict=True):
            left, top, right, bottom = box
            inner = image[:, top + 2 : bottom - 2, left + 2 : right - 2]
            if inner.numel():
                assert (inner - COLOURS[label].int()[:, None, None]).abs().float().mean() < 40
            assert mask[top + 1 : bottom - 1, left + 1 : right - 1].all()
            assert mask.sum() == mask[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1].sum()
    assert 4 < np.mean(counts) <= 12


def test_a_mixup_is_about_half_of_each_with_the_objects_of_both():
    torch.manual_seed(0)
    result = mixup(scene(), scene(90, 100))
    assert result.size == (60, 80)
    assert result.labels.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_allclose(result.boxes[3], scene().boxes[0] * torch.tensor([0.8, 2 / 3, 0.8, 2 / 3]), rtol=1e-6)
    white = mixup(scene(), image_scene(Image.new("RGB", (80, 60), "white")).objects(torch.zeros(0, dtype=torch.bool)))
    shares = white.image[0, 0, 0] / 255  # black and white
    assert 0.3 < float(shares) < 0.7


def test_normalising_is_undone_by_pixels():
    image = torch.randint(0, 256, (3, 9, 7), dtype=torch.uint8)
    assert torch.equal(pixels(normalised(image)), image)
    white = normalised(torch.full((3, 1, 1), 255, dtype=torch.uint8)).ravel()
    np.testing.assert_allclose(white, [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rtol=1e-6)


def test_a_batch_is_padded_with_zeros_to_its_largest_sides_and_masked():
    images = [torch.ones(3, 20, 30), torch.ones(3, 25, 10)]
    batch = padded_images(images)
    assert batch.images.shape == (2, 3, 25, 30)
    assert torch.equal(batch.images.amin(dim=1) == 0, batch.mask)
    assert batch.sizes.tolist() == [[20, 30], [25, 10]]
    assert (~batch.mask).sum(dim=(1, 2)).tolist() == [600, 250]
    with pytest.raises(ValueError, match="do not fit"):
        padded_images(images, side=24)


def test_a_target_is_in_shares_of_the_unpadded_image():
    resized_scene = resized(scene(), 120, 240)
    _, target = sample_of(resized_scene)
    expected = box_convert(scene().boxes.as_subclass(torch.Tensor), "xyxy", "cxcywh") / torch.tensor([80, 60, 80, 60])
    np.testing.assert_allclose(target.boxes, expected, rtol=1e-6)
    assert type(target.boxes) is torch.Tensor
    assert type(target.masks) is torch.Tensor
    assert (target.size, target.original_size, target.image_id) == ((120, 240), (60, 80), 5)


@pytest.fixture
def dataset(tmp_path) -> DetectionSet:
    """Four images of different sizes, each with two objects and a crowd."""
    records = []
    for number in range(4):
        width, height = 60 + 20 * number, 90 - 15 * number
        file = tmp_path / f"{number}.png"
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
        mask = np.zeros((height, width), bool)
        mask[5:20, 3:33] = True
        boxes = np.array([[3, 5, 33, 20], [10, 10, 50, 40], [0, 0, width, height]], np.float64)
        given = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        outlines = (outline_of_mask(mask), None, None)
        crowd = np.array([False, False, True])
        records.append(
            ImageRecord(
                file, 10 + number, width, height, boxes, given, np.array([0, 1, 1]), np.ones(3), crowd, outlines
            )
        )
    return DetectionSet("made", "coco", tuple(records), ("a", "b"), (1, 2))


def test_training_leaves_crowds_out_and_evaluation_keeps_them(dataset):
    training, evaluation = TrainingImages(dataset, Stretch(64), masks=True), EvaluationImages(dataset, Stretch(64))
    for index in range(4):
        image, target = training[index]
        assert image.shape == (3, 64, 64)
        assert target.labels.tolist() == [0, 1]
        assert target.masks.shape == (2, 64, 64)
        _, target = evaluation[index]
        assert target.crowd.tolist() == [False, False, True]
        assert target.masks is None
        assert target.image_id == 10 + index


def test_a_seed_makes_the_same_sample_and_mixing_more_objects(dataset):
    mixed = TrainingImages(dataset, ModernTraining(Stretch(64)), masks=True, mixing=Mixing(128, 1.0, 1.0))
    torch.manual_seed(3)
    image, target = mixed[0]
    torch.manual_seed(3)
    again, same = mixed[0]
    assert torch.equal(image, again)
    assert torch.equal(target.boxes, same.boxes)
    assert len(target.labels) > 2
    assert ((target.boxes >= 0) & (target.boxes <= 1)).all()


def test_records_become_scenes(dataset):
    whole = scene_of(dataset.records[0], masks=True, crowds=True)
    assert whole.masks[0].sum() == 15 * 30
    assert whole.masks[1].sum() == 40 * 30
    assert whole.masks[2].all()


def test_masks_of_a_dataset_stay_within_their_boxes_and_fill_them_where_nothing_is_cut(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    folder = open_embedded("digits-coco", train=1, val=6).folder
    digits = open_detection(folder, "val", console=Console(quiet=True))
    torch.manual_seed(0)
    for transform, tight in ((PaperTraining.scaled(128), False), (Stretch(192), True)):
        _, targets = Collate()([TrainingImages(digits, transform, masks=True)[index] for index in range(6)])
        for target in targets:
            height, width = target.size
            boxes = box_convert(target.boxes, "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
            for mask, box in zip(target.masks, boxes, strict=True):
                rows, columns = torch.nonzero(mask.any(dim=1)).ravel(), torch.nonzero(mask.any(dim=0)).ravel()
                edges = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                inside = (edges - box) * torch.tensor([1, 1, -1, -1])
                assert inside.min() > -1.5
                assert not tight or inside.max() < 1.5
