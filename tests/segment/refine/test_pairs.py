from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vtk_cli.data.detection.outlines import outline_of_mask
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.errors import UserError
from vtk_cli.segment.pseudo.labels import PseudoLabel
from vtk_cli.segment.refine.configurations import MICRO, RESNET101
from vtk_cli.segment.refine.evaluation import evaluate_refinement
from vtk_cli.segment.refine.pairs import (
    RefinePairs,
    collate_crops,
    hold_out,
    match_rough_masks,
    training_crop,
)

from ..scenes_with_masks import box_mask, full_set, pseudo, record

ALONE = World(0, 1, 0, torch.device("cpu"))


def at(x: float, y: float, label: int = 0, image: int = 1) -> PseudoLabel:
    mask = box_mask(60, 80, 1, 1, 9, 9)
    return PseudoLabel(image, 1, label, (x, y), outline_of_mask(mask), 0, 1.0, 1.0)


def test_a_rough_mask_is_matched_to_the_nearest_centroid_of_its_class(tmp_path: Path) -> None:
    objects = [
        (0, box_mask(60, 80, 0, 0, 10, 10)),
        (0, box_mask(60, 80, 40, 20, 60, 40)),
        (1, box_mask(60, 80, 10, 10, 14, 14)),
        (0, box_mask(60, 80, 12, 12, 15, 15)),
    ]
    dataset = full_set([record(tmp_path / "a.png", 1, objects, crowds=[3])])
    pairs = match_rough_masks(dataset, [at(12, 12), at(30, 25), at(79, 59, label=1), at(1, 1, image=2)])
    assert [pair.index for pair in pairs] == [0, 1, 2]
    assert pairs[1].centroid == (49.5, 29.5)
    assert (pairs[2].truth().numpy() == objects[2][1]).all()


def test_a_rough_mask_of_a_class_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    dataset = full_set([record(tmp_path / "a.png", 1, [(0, box_mask(60, 80, 0, 0, 10, 10))])])
    assert match_rough_masks(dataset, [at(5, 5, label=1)]) == []


def test_a_tenth_of_the_images_and_at_least_one_is_held_out_by_the_seed_alone() -> None:
    ids = list(range(100, 140))
    train, held = hold_out(ids, 3)
    assert len(held) == 4
    assert sorted(train + held) == ids
    assert hold_out(ids[::-1], 3) == (train, held)
    assert hold_out(ids, 4) != (train, held)
    assert [len(part) for part in hold_out([5, 6], 0)] == [1, 1]
    with pytest.raises(UserError, match="1 fully labelled image"):
        hold_out([5], 0)


@pytest.mark.parametrize("size", [(40, 40), (20, 90), (3, 400), (2, 2), (300, 120)])
@pytest.mark.parametrize("config", [MICRO, RESNET101])
def test_a_training_crop_is_square_and_its_parts_stay_aligned(config, size: tuple[int, int]) -> None:
    seed_everything(sum(size))
    truth = torch.rand(size) < 0.5
    truth[size[0] // 2 - 1 : size[0] // 2 + 1, size[1] // 2 - 1 : size[1] // 2 + 1] = True
    image = torch.rand(3, *size)
    crop = training_crop(image, truth, truth, label=1, config=config)
    assert crop.images.shape == (1, 3, config.side, config.side)
    assert torch.equal(crop.rough, crop.targets)
    assert bool(crop.present)
    rows, columns = np.nonzero(crop.targets[0].numpy())
    assert crop.clicks[0].tolist() == pytest.approx([columns.mean(), rows.mean()], abs=1e-3)


def test_a_training_crop_resized_to_1_is_the_crop_itself_or_its_mirror() -> None:
    config = RESNET101
    exact = type(config)(**{**vars(config), "train_sizes": (1.0, 1.0), "side": 48})
    image, truth = torch.rand(3, 48, 48), torch.rand(48, 48) < 0.5
    mirrored = 0
    for seed in range(20):
        torch.manual_seed(seed)
        crop = training_crop(image, truth, truth, label=0, config=exact)
        flipped = torch.equal(crop.targets[0], truth.flip(-1))
        assert flipped or torch.equal(crop.targets[0], truth)
        assert torch.allclose(crop.images[0], image.flip(-1) if flipped else image, atol=1e-6)
        mirrored += flipped
    assert 4 <= mirrored <= 16


def test_what_is_too_small_is_padded_with_zeros_about_its_centre() -> None:
    exact = type(MICRO)(**{**vars(MICRO), "train_sizes": (0.5, 0.5)})
    crop = training_crop(
        torch.ones(3, 48, 48), torch.ones(48, 48, dtype=bool), torch.ones(48, 48, dtype=bool), label=0, config=exact
    )
    inner = torch.from_numpy(box_mask(48, 48, 12, 12, 36, 36))
    assert torch.equal(crop.targets[0], inner)
    assert torch.equal(crop.images[0, 0] > 0.5, inner)


def test_without_the_object_in_the_crop_there_is_no_click() -> None:
    crop = training_crop(
        torch.rand(3, 30, 30), torch.ones(30, 30, dtype=bool), torch.zeros(30, 30, dtype=bool), label=0, config=MICRO
    )
    assert not crop.present
    assert not crop.inputs(MICRO, 2)[:, 3:6].any()


def test_batches_of_pairs_are_repeatable_and_become_the_networks_input(tmp_path: Path) -> None:
    masks = [box_mask(60, 80, 5, 5, 25, 30), box_mask(60, 80, 40, 20, 60, 40)]
    dataset = full_set([record(tmp_path / "a.png", 1, [(0, masks[0]), (1, masks[1])])])
    pairs = match_rough_masks(dataset, [pseudo(1, 1, masks[0]), pseudo(1, 2, masks[1], 1)])
    samples = RefinePairs(pairs, MICRO)

    def batch():
        torch.manual_seed(5)
        return collate_crops([samples[0], samples[1]])

    first = batch()
    assert torch.equal(first.images, batch().images)
    inputs = first.to("cpu").inputs(MICRO, 2)
    assert inputs.shape == (2, 3 + 3 + 1, 48, 48)
    assert torch.equal(inputs[:, 6] > 0, first.rough)
    assert inputs[0, 4].max() == inputs[1, 5].max() == 1
    assert not inputs[0, [3, 5]].any()
    assert not inputs[1, 3:5].any()


def test_evaluation_compares_rough_and_refined_masks_with_the_true_ones(tmp_path: Path) -> None:
    truth, rough = box_mask(30, 40, 10, 10, 20, 20), box_mask(30, 40, 10, 10, 20, 15)
    dataset = full_set(
        [record(tmp_path / "a.png", 1, [(0, truth)]), record(tmp_path / "b.png", 2, [(0, truth), (1, truth)])]
    )
    pairs = match_rough_masks(dataset, [pseudo(1, 1, rough), pseudo(2, 1, truth), pseudo(2, 1, truth, 1)])

    def identity(crops: torch.Tensor) -> torch.Tensor:
        return torch.stack([10 - 20 * crops[:, -1], 20 * crops[:, -1] - 10], dim=1)

    quality = evaluate_refinement(identity, MICRO, 2, pairs, ALONE)
    assert (quality.rough, quality.refined, quality.masks) == (pytest.approx(2.5 / 3), pytest.approx(2.5 / 3), 3)
