"""Images of a domain in any selection and order, and batches of several kinds side by side."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from PIL import Image

from vtk_cli.adapt.images import MemoryImages, ReadImages, shifted
from vtk_cli.adapt.sharing import ALONE, SharedBatches
from vtk_cli.adapt.stage_batches import JoinedBatches, WholeBatches
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.models.preprocessing import PixelConfig

COUNT, SIDE = 11, 8
IMAGES = MemoryImages(torch.arange(COUNT).to(torch.uint8)[:, None, None, None].expand(-1, 3, SIDE, SIDE).contiguous())


def _painted(row: int, *, side: int) -> Image.Image:
    return Image.fromarray(np.full((side, side + 4, 3), row, np.uint8))


READ = ReadImages(COUNT, partial(_painted, side=20), PixelConfig(SIDE, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0))


def test_positions_point_into_the_rows_that_were_asked_for() -> None:
    rows = (9, 2, 7, 4, 0)
    for source in (IMAGES, READ):
        seen = []
        for positions, images in source.augmented(rows, batch_size=2, seed=1).epoch(0, 0):
            assert images.dtype == torch.uint8
            assert images.shape[1:] == (3, SIDE, SIDE)
            assert [rows[position] for position in positions.tolist()] == images[:, 0, 0, 0].tolist()
            seen += positions.tolist()
        assert sorted(seen) == list(range(5))


def test_plain_images_come_once_and_in_the_order_that_was_asked_for() -> None:
    for source in (IMAGES, READ):
        found = torch.cat(list(source.plain((9, 2, 7, 4, 0), batch_size=2)))
        assert found[:, 0, 0, 0].tolist() == [9, 2, 7, 4, 0]
        assert found.shape[1:] == (3, SIDE, SIDE)


def test_a_shift_moves_all_images_of_a_batch_alike_and_mirrors_what_comes_in() -> None:
    images = torch.arange(2 * 3 * 25).reshape(2, 3, 5, 5).to(torch.uint8)
    found = {seed: shifted(images, 2, seed) for seed in range(40)}
    assert all(one.shape == images.shape and one.dtype == torch.uint8 for one in found.values())
    middles = {(one[0, 0, 2, 2].item(), one[1, 2, 2, 2].item()) for one in found.values()}
    assert len(middles) > 10
    assert {second - first for first, second in middles} == {125}
    assert torch.equal(shifted(images, 0, 3), images)
    reflected = next(one for one in found.values() if one[0, 0, 0].tolist()[:2] == [1, 0])
    assert reflected[0, 0, 0].tolist() == [1, 0, 1, 2, 3]  # one pixel to the right


def test_augmentation_depends_on_seed_epoch_and_batch_and_not_on_where_an_epoch_was_entered() -> None:
    pictures = MemoryImages(
        torch.randint(256, (9, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    )
    batches = pictures.augmented(range(9), batch_size=2, seed=5)
    whole, late = list(batches.epoch(1, 0)), list(batches.epoch(1, 2))
    assert all(torch.equal(one[1], other[1]) for one, other in zip(whole[2:], late, strict=True))
    other = list(pictures.augmented(range(9), batch_size=2, seed=6).epoch(1, 0))
    assert not all(torch.equal(one[1], two[1]) for one, two in zip(whole, other, strict=True))


def test_whole_batches_leave_out_what_is_left_over_unless_there_is_nothing_else() -> None:
    def sizes(count: int) -> list[int]:
        batches = WholeBatches(TensorBatches(torch.arange(count), batch_size=4, seed=0), count, 4)
        found = [len(positions) for positions, *_ in batches.epoch(0, 0)]
        assert len(found) == batches.steps_per_epoch
        return found

    assert sizes(11) == [4, 4]
    assert sizes(8) == [4, 4]
    assert sizes(3) == [3]


def test_joined_batches_go_through_every_kind_again_and_again_and_can_be_entered_anywhere() -> None:
    first, second, third = (
        SharedBatches(IMAGES, range(count), batch_size=2, seed=seed, sharing=ALONE)
        for seed, count in enumerate((8, 6, 4))
    )
    joined = JoinedBatches(9, first, source=second, labelled=third)
    whole = list(joined.epoch(0, 0))
    assert len(whole) == joined.steps_per_epoch == 9
    assert sorted(torch.cat([positions for positions, _ in whole[:4]]).tolist()) == list(range(8))
    labelled = [together.labelled_positions for _, together in whole]
    assert sorted(torch.cat([part for part in labelled[:2] if part is not None]).tolist()) == list(range(4))
    for (positions, together), (again, others) in zip(whole[5:], joined.epoch(0, 5), strict=True):
        assert torch.equal(positions, again)
        pairs = zip(together, others, strict=True)
        assert all(torch.equal(one, two) for one, two in pairs if isinstance(one, torch.Tensor))
    _, alone = next(JoinedBatches(2, first).epoch(0, 0))
    assert alone.source is None
    assert alone.labelled is None
