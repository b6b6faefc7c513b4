from __future__ import annotations

import numpy as np
from PIL import Image

from vtk_cli.data.digits import SPLITS, load_digits_split
from vtk_cli.data.digits_m import build_digits_m, load_digits_m_split, photo_backgrounds


def test_an_image_is_the_absolute_difference_of_photo_crop_and_digit():
    for split in SPLITS:
        plain, blended = load_digits_split(split), load_digits_m_split(split)
        backgrounds = photo_backgrounds(plain.ids)
        expected = np.where(backgrounds > plain.images, backgrounds - plain.images, plain.images - backgrounds)
        assert blended.images.dtype == np.uint8
        assert np.array_equal(blended.images, expected)


def test_ids_and_labels_are_those_of_digits():
    for split in SPLITS:
        plain, blended = load_digits_split(split), load_digits_m_split(split)
        assert np.array_equal(plain.ids, blended.ids)
        assert np.array_equal(plain.labels, blended.labels)


def test_sample_ids_name_the_digit_whatever_the_split():
    names = load_digits_m_split("val").sample_ids("digits-m")
    ids = load_digits_split("val").ids
    assert names[7] == f"digits-m/{ids[7]:06d}"
    assert not set(names) & set(load_digits_m_split("train").sample_ids("digits-m"))


def test_the_background_of_a_digit_depends_on_its_id_alone():
    some = np.array([3, 1000, 17])
    assert np.array_equal(photo_backgrounds(some)[1], photo_backgrounds(some[1:])[0])


def test_both_photos_are_backgrounds_and_crops_are_not_flat():
    backgrounds = photo_backgrounds(np.arange(200)).astype(float)
    blue_minus_red = (backgrounds[:, 2] - backgrounds[:, 0]).mean((1, 2))
    assert (blue_minus_red < -20).sum() > 20  # the orange flower
    assert (blue_minus_red > 0).sum() > 20  # the sky, the teal leaves
    assert np.median(backgrounds.std((1, 2, 3))) > 20


def test_the_folder_holds_every_image_under_its_class_and_id(tmp_path):
    build_digits_m(tmp_path)
    val = load_digits_m_split("val")
    files = sorted((tmp_path / "val").rglob("*.png"))
    assert len(files) == len(val)
    assert len(list((tmp_path / "train").rglob("*.png"))) == 1437
    for image, label, identity in zip(val.images, val.labels, val.ids, strict=True):
        stored = np.asarray(Image.open(tmp_path / "val" / str(label) / f"{identity:06d}.png"))
        assert np.array_equal(stored.transpose(2, 0, 1), image)
