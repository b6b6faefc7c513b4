"""Philox4x32-10, the counter-based random generator of Salmon et al. (SC 2011), in integer tensor arithmetic.

The same (seed, stream, position) gives the same number on every device, in every batch and in every order: there is
no state to carry, save or restore.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_WORD = 0xFFFFFFFF


def philox4x32(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """The Philox4x32-10 block of each counter.

    Args:
        counter: (..., 4) int64, each a 32-bit word in [0, 2**32).
        key: two 32-bit words.

    Returns:
        (..., 4) int64 words in [0, 2**32).

    Raises:
        ValueError: `counter` is not int64 or its last dimension is not 4.
    """
    if counter.dtype != torch.int64 or counter.shape[-1:] != (4,):
        raise ValueError(f"counter: expected int64 (..., 4), got {counter.dtype} {tuple(counter.shape)}")
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key
    for _ in range(_ROUNDS):
        # A 64-bit product wraps into int64 with its bits intact, so shifting and masking recover both halves.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _WORD) ^ c1 ^ k0,
            product1 & _WORD,
            ((product0 >> 32) & _WORD) ^ c3 ^ k1,
            product0 & _WORD,
        )
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return torch.stack((c0, c1, c2, c3), dim=-1)


def uniform(streams: Tensor, count: int, *, seed: int, domain: int = 0) -> Tensor:
    """Uniform numbers in [0, 1), `count` of them for each stream.

    Number j of stream s is word j % 4 of the block at counter (j // 4, s, s >> 32, domain) under the 64-bit `seed`.

    Args:
        streams: (B,) int64 non-negative stream numbers, e.g. image indices; decides the device.
        count: numbers a stream, 0 <= count <= 2**34.
        seed: 64-bit key.
        domain: 32-bit number that keeps different uses of one seed apart.

    Returns:
        (B, count) float32, multiples of 2**-24.

    Raises:
        ValueError: `streams` is not a one-dimensional int64 tensor, or `count` is negative.
    """
    if streams.dtype != torch.int64 or streams.ndim != 1:
        raise ValueError(f"streams: expected int64 (B,), got {streams.dtype} {tuple(streams.shape)}")
    if count < 0:
        raise ValueError(f"count: expected at least 0, got {count}")
    blocks = torch.arange(-(-count // 4), device=streams.device)
    shape = (len(streams), len(blocks))
    low, high = (streams & _WORD)[:, None].expand(shape), (streams >> 32 & _WORD)[:, None].expand(shape)
    apart = blocks.new_full(shape, domain & _WORD)
    counter = torch.stack((blocks.expand(shape), low, high, apart), dim=-1)
    words = philox4x32(counter, (seed & _WORD, seed >> 32 & _WORD)).flatten(1)[:, :count]
    return (words >> 8).to(torch.float32) * 2.0**-24
