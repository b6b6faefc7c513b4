"""The images of a comparison."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.digits import load_digits_split
from vtk_cli.errors import UserError
from vtk_cli.similarity.images import View, digits_images, folder_images


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


@pytest.fixture
def wordnet_folder(tmp_path):
    """Three images a class of two of ImageNet's classes, named by their WordNet ids, wider than high."""
    for synset, grey in (("n01443537", 60), ("n02123045", 190)):  # goldfish, tabby cat
        (tmp_path / synset).mkdir()
        for number in range(3):
            image = np.full((40, 60, 3), grey, dtype=np.uint8)
            image[:, :5] = 255  # what a centre crop of the whole height leaves out
            Image.fromarray(image).save(tmp_path / synset / f"{number}.png")
    return tmp_path


def opened(folder, **changes):
    settings = {"labels": "folders", "class_map": None, "limit": None, "seed": 0, "console": Console(quiet=True)}
    return folder_images(folder, **{**settings, **changes})


def test_some_of_imagenet_s_classes_have_their_places_among_all_thousand(wordnet_folder):
    images = opened(wordnet_folder)
    assert images.labels.tolist() == [1, 1, 1, 281, 281, 281]
    assert images.classes == 282


def test_a_wordnet_id_that_is_not_in_imagenet_1k_is_named(wordnet_folder):
    (wordnet_folder / "n00000001").mkdir()
    (wordnet_folder / "n00000001" / "a.png").write_bytes((wordnet_folder / "n01443537" / "0.png").read_bytes())
    with pytest.raises(UserError, match="n00000001 is not one of ImageNet-1k's 1,000 classes"):
        opened(wordnet_folder)


def test_a_class_map_wins_over_the_wordnet_ids(wordnet_folder, tmp_path_factory):
    table = tmp_path_factory.mktemp("map") / "map.json"
    table.write_text(json.dumps({"n01443537": 4, "n02123045": 2}))
    assert opened(wordnet_folder, class_map=table).labels.tolist() == [4, 4, 4, 2, 2, 2]


def test_a_view_is_the_centre_of_the_image_in_its_own_colours(wordnet_folder):
    pixels = opened(wordnet_folder).pixels(View(16, crop=1.0))
    assert pixels.shape == (6, 3, 16, 16)
    assert pixels.dtype == torch.uint8
    assert pixels[:3].unique().tolist() == [60]
    assert pixels[3:].unique().tolist() == [190]


def test_an_image_is_keyed_by_its_name_alone(wordnet_folder):
    images = opened(wordnet_folder)
    fewer = opened(wordnet_folder, limit=4, seed=1)
    number = dict(zip(images.ids, images.numbers.tolist(), strict=True))
    assert len(set(number.values())) == 6
    assert [number[identity] for identity in fewer.ids] == fewer.numbers.tolist()
