"""The filter by its definition in exact fractions and numpy's complex transform."""

import os
from fractions import Fraction

import numpy as np
import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def by_definition():
    return filter_by_definition


@pytest.fixture
def few():
    """How many of many: the interpreter takes a second for what the others do in a millisecond."""
    return (lambda many: many[:: max(1, len(many) // 5)]) if INTERPRETED else (lambda many: many)


def filter_by_definition(clip, time=None, space=None, shape="box", joint=False):
    """In float64; `time` and `space` are (start, stop) in exact fractions, 0 and 1 where there is no end."""
    clip = np.asarray(clip, dtype=np.float64)
    T, H, W = clip.shape[2:]
    stays = np.empty((T, H, W))
    for kt, kh, kw in np.ndindex(T, H, W):
        ft, fh, fw = (Fraction(min(k, N - k), N) for k, N in ((kt, T), (kh, H), (kw, W)))

        def below(end, ft=ft, fh=fh, fw=fw):
            in_time = time is None or time[end] == 1 or ft < time[end]
            if space is None or space[end] == 1:
                return in_time, True
            if shape == "radial":
                return in_time, fh**2 + fw**2 < space[end] ** 2
            return in_time, fh < space[end] and fw < space[end]

        inner, outer = below(0), below(1)
        if joint:
            stays[kt, kh, kw] = all(outer) and not all(inner)
        else:
            in_time = time is None or (outer[0] and not inner[0])
            in_space = space is None or (outer[1] and not inner[1])
            stays[kt, kh, kw] = in_time and in_space
    filtered = np.fft.ifftn(np.fft.fftn(clip, axes=(2, 3, 4)) * stays, axes=(2, 3, 4))
    assert clip.size == 0 or np.abs(filtered.imag).max() < 1e-12 * max(1, np.abs(clip).max())
    return torch.from_numpy(np.ascontiguousarray(filtered.real))
