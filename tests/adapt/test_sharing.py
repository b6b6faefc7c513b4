"""How a batch is shared among processes: each of its images once, or, where it is too small, all by everybody."""

from __future__ import annotations

import pytest
import torch

from tests.adapt.test_domain_images import IMAGES, READ
from vtk_cli.adapt.sharing import ALONE, SharedBatches, Sharing
from vtk_cli.engine.processes.distributed import World


def sharings(size: int, fewest: int = 2) -> list[Sharing]:
    """Those of all processes of a world."""
    return [Sharing(World(rank, size, rank, torch.device("cpu")), fewest) for rank in range(size)]


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("count", [8, 9, 10, 11])
def test_the_shares_of_a_batch_are_even_and_make_up_the_batch(size: int, count: int) -> None:
    batch = torch.arange(count)
    parts = [sharing(batch) for sharing in sharings(size)]
    assert torch.equal(torch.cat(parts), batch)
    sizes = tuple(len(part) for part in parts)
    assert max(sizes) - min(sizes) <= 1
    assert all(sharing.sizes(count) == sizes for sharing in sharings(size))


def test_a_batch_that_leaves_somebody_a_single_image_is_everybodys_own() -> None:
    for sharing in sharings(3):
        assert torch.equal(sharing(torch.arange(5)), torch.arange(5))
        assert sharing.sizes(5) == ()
    assert [len(sharing(torch.arange(5))) for sharing in sharings(3, fewest=1)] == [2, 2, 1]
    assert [len(sharing(torch.arange(2))) for sharing in sharings(3, fewest=0)] == [1, 1, 0]


def test_what_processes_see_together_is_what_one_sees() -> None:
    for images in (IMAGES, READ):
        rows = (9, 2, 7, 4, 0, 5, 1, 8, 3)
        alone, *shared = (
            list(SharedBatches(images, rows, batch_size=5, seed=1, sharing=sharing).epoch(2, 1))
            for sharing in (ALONE, *sharings(2))
        )
        for whole, first, second in zip(alone, *shared, strict=True):
            assert torch.equal(torch.cat((first[0], second[0])), whole[0])
            assert torch.equal(torch.cat((first[1], second[1])), whole[1])
            assert first[2] == second[2] == (len(first[0]), len(second[0]))
            assert whole[2] == ()
