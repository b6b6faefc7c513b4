"""The order of the samples, and what it depends on: the seed, the epoch and the index, and nothing else."""

from __future__ import annotations

import multiprocessing
import random
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset

from vtk_cli.engine.batches import EpochOrder, LoaderBatches, TensorBatches
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import rng_state
from vtk_cli.errors import UserError

CPU = torch.device("cpu")


class Noisy(Dataset[Any]):
    """Samples drawn from the three global generators."""

    def __init__(self, length: int = 21) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return torch.rand(2), {"numpy": np.random.rand(), "python": random.random()}, index  # noqa: NPY002, S311


class Broken(Noisy):
    """One sample cannot be read."""

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            raise UserError("is no picture", "a/5.jpg", "remove it")
        return super().__getitem__(index)


class Plain(Noisy):
    """Samples that are no tuple."""

    def __getitem__(self, index: int) -> Any:
        return torch.tensor(index)


def world(rank: int, size: int) -> World:
    return World(rank, size, rank, CPU)


def flat(batch: Any) -> list[Any]:
    if isinstance(batch, Tensor):
        return batch.tolist()
    items = batch.values() if isinstance(batch, dict) else batch
    return [flat(item) for item in items]


@given(samples=st.integers(1, 60), batch_size=st.integers(1, 20), epoch=st.integers(0, 3))
def test_an_epoch_holds_every_sample_once(samples: int, batch_size: int, epoch: int) -> None:
    order = EpochOrder(samples, batch_size, seed=0)
    batches = [batch.tolist() for batch in order.indices(epoch)]
    assert len(batches) == order.steps
    assert sorted(chain(*batches)) == list(range(samples))


@given(samples=st.integers(2, 60), batch_size=st.integers(2, 20))
def test_every_batch_is_full_but_the_last_which_never_holds_one_sample(samples: int, batch_size: int) -> None:
    *whole, last = [len(batch) for batch in EpochOrder(samples, batch_size, seed=0).indices(0)]
    assert set(whole) <= {batch_size}
    assert 2 <= last <= batch_size + 1


def test_a_single_sample_left_over_joins_the_batch_before_it() -> None:
    assert [len(batch) for batch in EpochOrder(9, 4, seed=0).indices(0)] == [4, 5]
    assert [len(batch) for batch in EpochOrder(10, 4, seed=0).indices(0)] == [4, 4, 2]


@given(start=st.integers(0, 6), epoch=st.integers(0, 3))
def test_from_a_position_the_epoch_goes_on_as_it_would_have(start: int, epoch: int) -> None:
    order = EpochOrder(22, 4, seed=3)
    whole = [batch.tolist() for batch in order.indices(epoch)]
    assert [batch.tolist() for batch in order.indices(epoch, start)] == whole[start:]


def test_the_order_depends_on_the_seed_and_the_epoch() -> None:
    orders = [
        tuple(torch.cat(list(EpochOrder(50, 8, seed).indices(epoch))).tolist()) for seed in (0, 1) for epoch in (0, 1)
    ]
    assert len(set(orders)) == 4
    assert orders[0] == tuple(torch.cat(list(EpochOrder(50, 8, 0).indices(0))).tolist())


@given(samples=st.integers(1, 60), share=st.integers(1, 5), size=st.integers(2, 4))
def test_processes_share_every_batch_equally_and_together_see_every_sample(samples: int, share: int, size: int) -> None:
    alone = [batch.tolist() for batch in EpochOrder(samples, share * size, 0, world(0, size)).indices(0)]
    ranks = [[b.tolist() for b in EpochOrder(samples, share * size, 0, world(r, size)).indices(0)] for r in range(size)]
    assert {len(rank) for rank in ranks} == {len(alone)}
    for parts in zip(*ranks, strict=True):
        assert len({len(part) for part in parts}) == 1
        assert share == 1 or len(parts[0]) >= min(2, samples)
    together = [[*chain(*parts)] for parts in zip(*ranks, strict=True)]
    assert set(chain(*together)) == set(range(samples))
    repeated = sum(map(len, together)) - samples
    assert 0 <= repeated < max(2 * size, 2)


@given(samples=st.integers(1, 60), share=st.integers(1, 3), size=st.sampled_from([2, 3, 6]))
def test_the_batches_are_the_same_however_many_processes_share_them(samples: int, share: int, size: int) -> None:
    one = [set(batch.tolist()) for batch in EpochOrder(samples, share * 6, 5).indices(1)]
    ranks = [[b.tolist() for b in EpochOrder(samples, share * 6, 5, world(r, size)).indices(1)] for r in range(size)]
    assert [set(chain(*parts)) for parts in zip(*ranks, strict=True)] == one


def test_two_samples_that_are_left_over_are_both_in_every_process() -> None:
    """The mean of their gradients is that of one process with the two."""
    *_, last = EpochOrder(10, 8, 0).indices(0)
    for rank in range(4):
        *_, shared = EpochOrder(10, 8, 0, world(rank, 4)).indices(0)
        assert sorted(shared.tolist()) == sorted(last.tolist())


def test_two_processes_split_the_batches_of_one() -> None:
    one = [batch.tolist() for batch in EpochOrder(24, 8, 5).indices(2)]
    two = [[batch.tolist() for batch in EpochOrder(24, 8, 5, world(rank, 2)).indices(2)] for rank in range(2)]
    assert [left + right for left, right in zip(*two, strict=True)] == one


@pytest.mark.parametrize(("batch_size", "size"), [(0, 1), (-3, 1), (6, 4), (2, 4)])
def test_a_batch_that_cannot_be_shared_equally_is_the_users_mistake(batch_size: int, size: int) -> None:
    with pytest.raises(UserError, match="--batch-size"):
        EpochOrder(20, batch_size, 0, world(0, size))


def test_no_samples_are_the_users_mistake() -> None:
    with pytest.raises(UserError, match="no sample to train on"):
        TensorBatches(torch.zeros(0, 3), batch_size=2, seed=0)


def test_batches_of_tensors_are_their_rows_at_the_indices() -> None:
    images, labels = torch.randn(11, 3), torch.arange(11)
    batches = TensorBatches(images, labels, batch_size=4, seed=0)
    assert batches.steps_per_epoch == 3
    for indices, some_images, some_labels in batches.epoch(1):
        assert indices.dtype == torch.int64
        assert torch.equal(some_images, images[indices])
        assert torch.equal(some_labels, indices)


def test_tensors_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        TensorBatches(torch.zeros(3), torch.zeros(4), batch_size=2, seed=0)


@pytest.fixture(scope="module")
def alone() -> list[Any]:
    """Two epochs made without workers."""
    batches = LoaderBatches(Noisy(), 4, seed=9, workers=0)
    return [flat(batch) for epoch in (0, 1) for batch in batches.epoch(epoch, 0)]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(workers: int, alone: list[Any]) -> None:
    batches = LoaderBatches(Noisy(), 4, seed=9, workers=workers)
    assert [flat(batch) for epoch in (0, 1) for batch in batches.epoch(epoch, 0)] == alone
    batches.close()


def test_workers_go_on_from_a_position_also_after_an_epoch_was_left_in_the_middle(alone: list[Any]) -> None:
    batches = LoaderBatches(Noisy(), 4, seed=9, workers=2)
    assert flat(next(batches.epoch(0, 1))) == alone[1]
    assert [flat(batch) for batch in batches.epoch(1, 2)] == alone[batches.steps_per_epoch + 2 :]
    batches.close()


def test_loader_and_tensor_batches_have_the_same_order() -> None:
    loaded = [batch[0].tolist() for batch in LoaderBatches(Noisy(), 4, seed=9, workers=0).epoch(3, 0)]
    held = [batch[0].tolist() for batch in TensorBatches(torch.zeros(21), batch_size=4, seed=9).epoch(3, 0)]
    assert loaded == held


def test_a_samples_randomness_differs_from_epoch_to_epoch_and_from_sample_to_sample(alone: list[Any]) -> None:
    drawn = [number for _, points, others, _ in alone for number in chain(*points, *others)]
    assert len(drawn) == 2 * 21 * 4
    assert len(set(drawn)) == len(drawn)


def test_a_samples_randomness_does_not_depend_on_its_batch(alone: list[Any]) -> None:
    def by_sample(batches: list[Any]) -> dict[int, Any]:
        return {i: (p, n, r) for ind, ps, (ns, rs), _ in batches for i, p, n, r in zip(ind, ps, ns, rs, strict=True)}

    larger = [flat(batch) for batch in LoaderBatches(Noisy(), 7, seed=9, workers=0).epoch(0, 0)]
    assert by_sample(larger) == by_sample(alone[: len(alone) // 2])


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_batches_draws_nothing_from_the_global_generators(workers: int) -> None:
    before = rng_state()
    batches = LoaderBatches(Noisy(), 4, seed=9, workers=workers)
    for epoch in range(2):
        list(batches.epoch(epoch, 0))
    batches.close()
    after = rng_state()
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]
    assert torch.equal(before["numpy"]["key"], after["numpy"]["key"])
    assert before["numpy"]["pos"] == after["numpy"]["pos"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_sample_is_named_in_one_line(workers: int) -> None:
    with pytest.raises(UserError) as caught:
        list(LoaderBatches(Broken(), 4, seed=9, workers=workers).epoch(0, 0))
    assert str(caught.value) == "a/5.jpg: is no picture; remove it"


def test_workers_end_with_an_error_and_when_the_batches_are_closed_and_start_again_when_needed() -> None:
    broken = LoaderBatches(Broken(), 4, seed=9, workers=2)
    with pytest.raises(UserError):
        list(broken.epoch(0, 0))
    assert multiprocessing.active_children() == []
    batches = LoaderBatches(Noisy(), 4, seed=9, workers=2)
    first = [flat(batch) for batch in batches.epoch(0, 0)]
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []
    assert [flat(batch) for batch in batches.epoch(0, 0)] == first
    batches.close()


def test_a_sample_that_is_no_tuple_is_the_second_of_the_batch() -> None:
    for indices, values in LoaderBatches(Plain(), 4, seed=9, workers=0).epoch(0, 0):
        assert torch.equal(indices, values)


def test_a_collate_function_makes_the_rest_of_the_batch() -> None:
    batches = LoaderBatches(Plain(), 4, seed=9, workers=0, collate=lambda samples: (samples, len(samples)))
    indices, samples, count = next(batches.epoch(0, 0))
    assert torch.stack(samples).equal(indices)
    assert count == 4


@given(samples=st.integers(1, 700), repeats=st.integers(2, 4), epoch=st.integers(0, 2))
def test_with_repeats_an_epoch_ends_where_it_would_without_at_whole_256(samples: int, repeats: int, epoch: int) -> None:
    keys = torch.cat(list(EpochOrder(samples, 32, seed=0, repeats=repeats).keys(epoch))).tolist()
    length = samples if samples < 256 else samples // 256 * 256
    assert len(keys) == length
    assert [repeat for _, repeat in keys] == [position % repeats for position in range(length)]
    drawn = [index for index, _ in keys]
    assert all(drawn[position] == drawn[position - position % repeats] for position in range(length))
    assert len(set(drawn)) == -(-length // repeats)


def test_repeats_are_those_of_timms_sampler() -> None:
    """The same samples in the same order, once both take the same permutation."""
    from timm.data.distributed_sampler import RepeatAugSampler

    for samples in (300, 255, 1000):
        sampler = RepeatAugSampler(range(samples), num_replicas=1, rank=0, shuffle=False, num_repeats=3)
        order = EpochOrder(samples, 50, seed=4, repeats=3)
        permutation = torch.cat(list(EpochOrder(samples, 50, seed=4).indices(2)))
        assert torch.cat(list(order.indices(2))).tolist() == permutation[list(sampler)].tolist()


def test_from_a_position_an_epoch_with_repeats_goes_on_as_it_would_have() -> None:
    order = EpochOrder(300, 7, seed=3, repeats=3)
    whole = [keys.tolist() for keys in order.keys(1)]
    assert len(whole) == order.steps
    assert [keys.tolist() for keys in order.keys(1, 20)] == whole[20:]


def test_processes_share_batches_with_repeats() -> None:
    one = [keys.tolist() for keys in EpochOrder(300, 8, 5, repeats=3).keys(2)]
    two = [[keys.tolist() for keys in EpochOrder(300, 8, 5, world(rank, 2), 3).keys(2)] for rank in range(2)]
    assert [left + right for left, right in zip(*two, strict=True)] == one


def test_fewer_than_one_repeat_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="--repeats"):
        EpochOrder(10, 2, seed=0, repeats=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_repeats_of_a_sample_are_augmented_apart_and_each_as_before(workers: int, alone: list[Any]) -> None:
    batches = LoaderBatches(Noisy(), 4, seed=9, workers=workers, repeats=3)
    made: dict[int, list[Any]] = {}
    for batch in batches.epoch(0, 0):
        indices, points, _, same = flat(batch)
        assert indices == same
        for index, point in zip(indices, points, strict=True):
            made.setdefault(index, []).append(point)
    batches.close()
    assert [len(points) for points in made.values()] == [3] * 7
    assert len({tuple(point) for points in made.values() for point in points}) == 21
    once = {
        i: point for indices, points, *_ in alone[: len(alone) // 2] for i, point in zip(indices, points, strict=True)
    }
    assert all(points[0] == once[index] for index, points in made.items())
