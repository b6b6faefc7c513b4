"""Randomness that can be repeated: seeding, the state of every generator, and a seed for every sample."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_MASK = 2**64 - 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device) from one number of 0 to 2^64 - 1.

    torch's CPU generator takes the low 32 bits of it.
    """
    random.seed(seed)
    np.random.seed(_words(seed))  # noqa: NPY002  (libraries draw from NumPy's global generator)
    torch.manual_seed(seed)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """A 64-bit seed for one sample in one epoch (or any two counters); neighbours share no pattern.

    Each argument in turn is absorbed by the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), a
    bijection of 64-bit numbers, so that for given `seed` and `epoch` no two indices share a seed.
    """
    state = 0
    for value in (seed, epoch, index):
        state = _mix(state ^ _mix((value + 0x9E3779B97F4A7C15) & _MASK))
    return state


def rng_state() -> dict[str, Any]:
    """The state of Python's, NumPy's, torch's and (once it is in use) the current accelerator's generator.

    Made of numbers, tuples and tensors only, so that `torch.load(weights_only=True)` reads it back.
    """
    numpy: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": {
            "key": torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
            "pos": int(numpy["state"]["pos"]),
            "has_gauss": int(numpy["has_gauss"]),
            "gauss": float(numpy["gauss"]),
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():  # the current device only: asking all would open a context on each
        state["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_rng_state(state: Mapping[str, Any]) -> None:
    """Put every generator back to what `rng_state` returned; an accelerator that is absent is passed over."""
    random.setstate(state["python"])
    numpy = state["numpy"]
    key = numpy["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, numpy["pos"], numpy["has_gauss"], numpy["gauss"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Whatever is drawn inside, every generator is afterwards where it was before."""
    before = rng_state()
    try:
        yield
    finally:
        restore_rng_state(before)


@contextmanager
def sample_rng(seed: int) -> Iterator[None]:
    """Inside, Python's, NumPy's and torch's CPU generators start from `seed`; afterwards they are as before."""
    with preserved_sample_rng():
        start_sample_rng(seed)
        yield


@contextmanager
def preserved_sample_rng() -> Iterator[None]:
    """Whatever samples draw inside, the generators of the CPU are afterwards where they were before.

    Looking at their states costs as much as a small image: do so once for many samples.
    """
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(pytorch)


def start_sample_rng(seed: int) -> None:
    """Start Python's, NumPy's and torch's CPU generators from `seed`; accelerators are left alone."""
    random.seed(seed)
    np.random.seed(_words(seed))  # noqa: NPY002
    torch.default_generator.manual_seed(seed)


def _mix(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)


def _words(seed: int) -> list[int]:
    """The seed for NumPy. The third word keeps its numbers from being Python's, the same generator seeded alike."""
    return [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, 0x6E756D70]
