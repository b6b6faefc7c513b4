from __future__ import annotations

import torch

from vtk_cli.segment.solov2.padding import pad_images, padded_size, resized_size


def test_the_short_side_is_reached_unless_the_long_one_would_be_too_long() -> None:
    assert resized_size(480, 640, 800, 1333) == (800, 1067)
    assert resized_size(640, 480, 800, 1333) == (1067, 800)
    assert resized_size(300, 1000, 800, 1333) == (400, 1333)
    assert resized_size(1, 5000, 800, 1333) == (1, 1333)


def test_a_batch_has_the_next_multiples_of_its_largest_sides() -> None:
    assert padded_size([(800, 1067), (801, 640)], 32) == (832, 1088)
    assert padded_size([(64, 96)], 32) == (64, 96)


def test_images_lie_at_the_top_left_with_zeros_around() -> None:
    images = [torch.ones(3, 2, 5), 2 * torch.ones(3, 4, 3)]
    batch = pad_images(images, (4, 6))
    assert batch.shape == (2, 3, 4, 6)
    assert torch.equal(batch[0, :, :2, :5], images[0])
    assert torch.equal(batch[1, :, :4, :3], images[1])
    assert batch.sum() == images[0].sum() + images[1].sum()
