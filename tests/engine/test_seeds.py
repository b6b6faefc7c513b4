"""Randomness that can be repeated."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from vtk_cli.engine.seeds import (
    preserved_rng,
    restore_rng_state,
    rng_state,
    sample_rng,
    sample_seed,
    seed_everything,
)


def draw() -> tuple[float, ...]:
    """A number of each generator, the Gaussian ones too, which keep a second number back."""
    numbers = (random.random(), random.gauss(0, 1), np.random.rand(), np.random.standard_normal())  # noqa: NPY002, S311
    return *numbers, torch.rand(()).item(), torch.randn(()).item()


def slow_mix(value: int) -> int:
    """The finaliser of SplitMix64 in NumPy's wrapping arithmetic."""
    with np.errstate(over="ignore"):
        mixed = np.uint64(value)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return int(mixed ^ (mixed >> np.uint64(31)))


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others() -> None:
    drawn = []
    for seed in (0, 0, 1, 12345, 2**64 - 1):
        seed_everything(seed)
        drawn.append(draw())
    assert drawn[0] == drawn[1]
    for number in range(len(drawn[0])):
        assert len({numbers[number] for numbers in drawn}) == 4


def test_a_sample_seed_is_three_rounds_of_splitmix() -> None:
    golden = 0x9E3779B97F4A7C15
    assert slow_mix(golden) == 0xE220A8397B1DCDAF  # SplitMix64's first number from seed 0, as published
    for triple in ((0, 0, 0), (1, 2, 3), (2**63, 5, 2**40)):
        expected = 0
        for value in triple:
            expected = slow_mix(expected ^ slow_mix((value + golden) % 2**64))
        assert sample_seed(*triple) == expected


def test_no_two_samples_of_an_epoch_share_a_seed() -> None:
    assert len({sample_seed(3, 1, index) for index in range(100_000)}) == 100_000


def test_flipping_any_bit_of_any_argument_flips_half_the_bits_of_the_seed() -> None:
    flips = []
    for argument in range(3):
        for bit in range(64):
            for base in range(20):
                one = [base, base + 1, base + 2]
                other = list(one)
                other[argument] ^= 1 << bit
                flips.append((sample_seed(*one) ^ sample_seed(*other)).bit_count())
    assert np.mean(flips) == pytest.approx(32, abs=0.25)  # the mean of 3,840 binomials: sd 4 / sqrt(3840) = 0.065
    assert min(flips) > 8


def test_the_state_comes_back_through_a_file_that_holds_no_objects() -> None:
    seed_everything(1)
    draw()
    file = io.BytesIO()
    torch.save(rng_state(), file)
    expected = [draw() for _ in range(3)]
    seed_everything(2)
    file.seek(0)
    restore_rng_state(torch.load(file, weights_only=True))
    assert [draw() for _ in range(3)] == expected


@pytest.mark.parametrize("guard", [preserved_rng, lambda: sample_rng(5)])
def test_what_is_drawn_inside_leaves_no_trace_outside(guard: Callable[[], object]) -> None:
    seed_everything(1)
    draw()
    expected_state = rng_state()
    expected = draw()
    restore_rng_state(expected_state)
    with guard():  # type: ignore[attr-defined]
        draw()
    assert draw() == expected


def test_an_error_inside_leaves_no_trace_either() -> None:
    seed_everything(1)
    expected = draw()
    seed_everything(1)

    def draw_and_fail() -> None:
        with preserved_rng():
            draw()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw_and_fail()
    assert draw() == expected


def test_a_samples_numbers_depend_on_its_seed_alone() -> None:
    drawn = []
    for before, seed in ((0, 5), (1, 5), (1, 6), (1, 2**64 - 1)):
        seed_everything(before)
        with sample_rng(seed):
            drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert len({*drawn}) == 3
