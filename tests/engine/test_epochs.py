"""Epochs of other lengths and kinds: the same samples in the same order."""

from __future__ import annotations

import pytest
import torch

from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.epochs import EqualEpochs, PlainAtLast, equal_epochs


def passes(samples: int = 10, batch_size: int = 2) -> TensorBatches:
    return TensorBatches(torch.arange(samples), batch_size=batch_size, seed=5)


def seen(batches, epoch: int, start: int = 0) -> list[list[int]]:
    return [indices.tolist() for indices, *_ in batches.epoch(epoch, start)]


def test_equal_epochs_are_the_passes_cut_anew():
    whole = [batch for epoch in range(4) for batch in seen(passes(), epoch)]
    cut = EqualEpochs(passes(), 4)
    assert cut.steps_per_epoch == 4
    assert [batch for epoch in range(5) for batch in seen(cut, epoch)] == whole


def test_equal_epochs_go_on_from_any_position():
    cut = EqualEpochs(passes(), 7)
    whole = seen(cut, 1)
    assert len(whole) == 7
    assert all(seen(cut, 1, start) == whole[start:] for start in range(7))


@pytest.mark.parametrize(
    ("steps", "longest", "expected"), [(900, 188, (5, 180)), (100, 100, (1, 100)), (101, 100, (2, 51)), (3, 9, (1, 3))]
)
def test_equal_epochs_make_at_least_the_steps(steps, longest, expected):
    assert equal_epochs(steps, longest) == expected


def test_the_last_epochs_are_of_the_plain_kind_and_end_what_runs_for_the_others():
    class Closing(TensorBatches):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    first = Closing(torch.arange(10), batch_size=2, seed=1)
    plain = Closing(torch.arange(10), batch_size=2, seed=2)
    both = PlainAtLast(first, plain, 3)
    assert [seen(both, epoch) for epoch in range(5)] == [
        *(seen(first, epoch) for epoch in range(3)),
        *(seen(plain, epoch) for epoch in (3, 4)),
    ]
    assert first.closed
    assert not plain.closed
    both.close()
    assert plain.closed


def test_kinds_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="5 and 4 batches"):
        PlainAtLast(passes(), passes(8), 1)
