"""The images of a comparison."""

import numpy as np
import pytest
import torch

from vtk_cli.data.digits import load_digits_split
from vtk_cli.similarity.images import View, digits_images


def test_all_validation_digits_are_taken_and_no_other():
    images, digits = digits_images(None), load_digits_split("val")
    assert len(images) == 360
    assert np.array_equal(images.pixels(View(32)).numpy(), digits.images)
    assert np.array_equal(images.labels.numpy(), digits.labels)
    assert digits_images(1000).ids == images.ids


@pytest.mark.parametrize("limit", [10, 25, 200])
def test_a_limit_takes_as_many_digits_of_each_class_and_a_part_of_a_larger_limit(limit):
    images = digits_images(limit)
    counts = torch.bincount(images.labels, minlength=10)
    assert counts.sum() == limit
    assert counts.max() - counts.min() <= 1
    assert set(images.ids) < set(digits_images(limit + 7).ids)
    whole = digits_images(None)
    places = [whole.ids.index(identity) for identity in images.ids]
    assert torch.equal(images.pixels(View(32)), whole.pixels(View(32))[places])
    assert torch.equal(images.labels, whole.labels[places])
