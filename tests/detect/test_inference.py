"""Batches of one size, and what a detector sees in them."""

from __future__ import annotations

import pytest
import torch

from vtk_cli.detect.inference import Inference, same_sized
from vtk_cli.detect.preprocessing import Preprocessing
from vtk_cli.errors import JobError

CPU = torch.device("cpu")


def test_a_batch_holds_images_of_one_size_and_every_image_is_in_one():
    extents = [(4, 4), (8, 4), (4, 4), (8, 4), (4, 4), (2, 2)]
    batches = same_sized(extents, 2)
    assert batches == [[1, 3], [0, 2], [4], [5]]
    assert all(len({extents[index] for index in batch}) == 1 for batch in batches)


@pytest.mark.parametrize("resize", ["short", "stretch", "letterbox"])
@pytest.mark.parametrize(("height", "width"), [(480, 640), (427, 640), (375, 1242), (10, 900), (64, 64)])
def test_the_size_that_is_told_is_the_size_that_is_made(resize, height, width):
    from PIL import Image

    from vtk_cli.data.detection.scenes import image_scene
    from vtk_cli.detect.samples import sample_of

    preprocessing = Preprocessing(resize, 96)
    scene = preprocessing.transform(image_scene(Image.new("RGB", (width, height))))
    batch, _ = preprocessing.collate([sample_of(scene)])
    assert tuple(scene.size) == preprocessing.content(height, width)
    assert tuple(batch.images.shape[2:]) == preprocessing.extent(height, width)


def test_preprocessing_comes_back_from_a_file_as_it_was_written():
    written = Preprocessing("letterbox", 512)
    assert Preprocessing.of_note(written.note()) == written
    assert Preprocessing.of_note({}) == Preprocessing("short", 800)
    assert written.resized(64) == Preprocessing("letterbox", 64)
    assert written.resized(None) == written
    with pytest.raises(ValueError, match="no preprocessing"):
        Preprocessing.of_note({"preprocessing": '{"resize": "crop", "size": 3}'})


@pytest.mark.parametrize("name", ["vidt-micro", "vidt-plus-micro", "vidt-neck-free-micro"])
def test_an_image_is_seen_as_it_is_by_itself(name, detector, padded):
    network = detector(name)
    look = Inference(network, CPU)
    batch = padded((64, 64), (64, 64))
    both = look(batch, [(60, 80), (30, 20)])
    for index, size in enumerate([(60, 80), (30, 20)]):
        alone = type(batch)(batch.images[index : index + 1], batch.mask[index : index + 1], batch.sizes[:1])
        (one,) = look(alone, [size])
        torch.testing.assert_close(one.scores, both[index].scores, atol=1e-5, rtol=1e-4)
        assert one.boxes.shape == both[index].boxes.shape
    with torch.no_grad():
        assert torch.equal(look.final(batch).boxes, network(batch, for_losses=False).final.boxes)


def test_weights_that_are_not_finite_are_said(detector, padded):
    network = detector("vidt-micro")
    with torch.no_grad():
        network.heads.bbox_embed[-1].layers[2].bias.fill_(torch.nan)
    with pytest.raises(JobError, match="not finite"):
        Inference(network, CPU)(padded((64, 64)), [(64, 64)])
