"""Philox4x32-10 against the known-answer vectors of Random123 and the properties a generator must have."""

import numpy as np
import pytest
import torch
from scipy import stats

from vtk_kernels import philox4x32, uniform


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    assert philox4x32(torch.tensor(counter), key).tolist() == list(expected)


def test_philox_equals_unbounded_integer_arithmetic_on_random_counters():
    random = np.random.default_rng(0)
    for _ in range(20):
        counter, key = random.integers(0, 2**32, 4), random.integers(0, 2**32, 2)
        ours = philox4x32(torch.tensor(counter), (int(key[0]), int(key[1]))).tolist()
        assert ours == _philox_in_python_integers([int(c) for c in counter], [int(k) for k in key])


def test_a_stream_does_not_depend_on_the_batch_it_is_drawn_in():
    whole = uniform(torch.arange(10), 37, seed=5)
    assert torch.equal(uniform(torch.tensor([7, 2]), 37, seed=5), whole[[7, 2]])
    assert torch.equal(uniform(torch.arange(10), 9, seed=5), whole[:, :9])


def test_seed_stream_and_domain_each_change_the_numbers():
    streams = torch.tensor([3, 3 + 2**32, 4])
    base = uniform(streams, 64, seed=1)
    assert len({tuple(row.tolist()) for row in base}) == 3
    for other in (
        uniform(streams, 64, seed=2),
        uniform(streams, 64, seed=1, domain=1),
        uniform(streams, 64, seed=1 + 2**32),
    ):
        assert not torch.equal(base, other)


def test_numbers_are_uniform_and_uncorrelated_between_streams():
    numbers = uniform(torch.arange(50), 2000, seed=11)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-3
    correlation = np.corrcoef(numbers.numpy())
    assert np.abs(correlation[~np.eye(50, dtype=bool)]).max() < 5 / 2000**0.5


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="counter"):
        philox4x32(torch.zeros(3, dtype=torch.int64), (0, 0))
    with pytest.raises(ValueError, match="streams"):
        uniform(torch.zeros(3), 4, seed=0)
    with pytest.raises(ValueError, match="count"):
        uniform(torch.arange(3), -1, seed=0)


def _philox_in_python_integers(c: list[int], k: list[int]) -> list[int]:
    """Philox4x32-10 with Python's unbounded integers, round by round as the paper's Figure 2 draws it."""
    for _ in range(10):
        high0, low0 = divmod(c[0] * 0xD2511F53, 2**32)
        high1, low1 = divmod(c[2] * 0xCD9E8D57, 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c
