from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from vtk_cli.data.digits import SPLITS, load_digits_split, load_glyphs, upscale


def test_every_digit_is_in_exactly_one_split():
    train, val = (load_digits_split(split) for split in SPLITS)
    assert len(train) == 1437
    assert len(val) == 360
    assert sorted([*train.ids, *val.ids]) == list(range(1797))


def test_the_splits_hold_every_class_in_the_same_proportion():
    whole = np.bincount(load_digits().target) / 1797
    for split in SPLITS:
        labels = load_digits_split(split).labels
        assert np.abs(np.bincount(labels) / len(labels) - whole).max() < 1 / len(labels)


def test_the_split_is_the_published_one():
    ids = load_digits_split("val").ids.astype("<i8")
    assert hashlib.sha256(ids.tobytes()).hexdigest()[:16] == "2fbaae31b8c6aad1"


def test_images_are_the_digits_interpolated_as_torch_does_and_scaled_to_bytes():
    source = load_digits()
    split = load_digits_split("val")
    ink = torch.from_numpy(source.images[split.ids])[:, None]
    expected = (F.interpolate(ink, size=(32, 32), mode="bilinear", align_corners=False) * (255 / 16)).round()
    assert split.images.dtype == np.uint8
    assert split.images.shape == (360, 3, 32, 32)
    for channel in range(3):
        assert np.array_equal(split.images[:, channel], expected[:, 0].to(torch.uint8).numpy())


def test_labels_are_those_of_the_source():
    split = load_digits_split("train")
    assert split.labels.dtype == np.int64
    assert np.array_equal(split.labels, load_digits().target[split.ids])


@pytest.mark.parametrize("side", [8, 21, 22, 56, 70])
def test_upscaling_agrees_with_torch_at_any_size(side):
    glyphs = load_glyphs("val").ink[:20]
    expected = F.interpolate(torch.from_numpy(glyphs)[:, None], size=(side, side), mode="bilinear", align_corners=False)
    assert np.abs(upscale(glyphs, side) - expected[:, 0].numpy()).max() < 1e-12
