"""Masks as bytes: one bit a weight, plain, deflated, or as Rice codes of the gaps between what is rarer.

Kept weights of a ticket are scattered without a pattern, so that the distances between them are close to geometric.
For such distances the codes of Rice (R. Rice, "Some practical universal noiseless coding techniques", JPL 79-22, 1979)
lie within some percent of the entropy: of 0.469 bits a weight where 10 % are kept, they take 0.476, deflate about 0.54.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from math import ceil, log2
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Codec = Literal["rice", "zlib", "raw"]
CODECS: tuple[Codec, ...] = get_args(Codec)
Bits = NDArray[np.bool_]

_LAYER = struct.Struct("<BQ")
"""Before the codes of a layer: bits of a remainder, and of all quotients together."""
_LONGEST_REMAINDER = 40


def encode(masks: Sequence[Bits], codec: Codec) -> bytes:
    """Masks, one after the other, as bytes.

    `raw`: the bits of all layers concatenated, eight a byte, the first in the lowest bit, zeros at the end.
    `zlib`: that, deflated. `rice`: layer by layer, see `_rice`.

    Args:
        masks: (n_l,) each, in the order of the layers.
        codec: how.
    """
    if codec == "rice":
        return b"".join(map(_rice, masks))
    raw = np.packbits(np.concatenate([*masks, np.zeros(0, bool)]), bitorder="little").tobytes()
    return zlib.compress(raw, 9) if codec == "zlib" else raw


def decode(blob: bytes, codec: Codec, layers: Sequence[tuple[int, int]]) -> list[Bits]:
    """The masks that `encode` made these bytes of.

    Args:
        blob: of `encode`.
        codec: how they were made.
        layers: of each layer the number of weights and how many of them are kept.

    Raises:
        ValueError: the bytes are no such masks: too few, too many, or other numbers of kept weights.
    """
    masks = _unrice(blob, layers) if codec == "rice" else _unpack(_inflated(blob, codec, layers), layers)
    for place, (mask, (_, kept)) in enumerate(zip(masks, layers, strict=True)):
        if (found := int(np.count_nonzero(mask))) != kept:
            raise ValueError(f"layer {place} keeps {found} weights where {kept} are announced")
    return masks


def entropy_bytes(layers: Sequence[tuple[int, int]]) -> int:
    """The fewest bytes for masks without a pattern: the binary entropy of each layer's kept fraction, a weight each.

    Args:
        layers: of each layer the number of weights and how many of them are kept.
    """
    return ceil(sum(n * _entropy(kept / n) for n, kept in layers) / 8)


def _entropy(share: float) -> float:
    return -sum(part * log2(part) for part in (share, 1 - share) if part > 0)


def _inflated(blob: bytes, codec: Codec, layers: Sequence[tuple[int, int]]) -> bytes:
    if codec == "raw":
        return blob
    inflater, needed = zlib.decompressobj(), ceil(sum(n for n, _ in layers) / 8)
    try:
        raw = inflater.decompress(blob, needed + 1)  # never more than is needed, whatever it would unpack to
    except zlib.error as error:
        raise ValueError(f"they cannot be inflated: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise ValueError("they are cut short or have something behind them")
    return raw


def _unpack(raw: bytes, layers: Sequence[tuple[int, int]]) -> list[Bits]:
    total = sum(n for n, _ in layers)
    if len(raw) != ceil(total / 8):
        raise ValueError(f"{len(raw)} bytes for {total} weights")
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").view(bool)
    if bits[total:].any():
        raise ValueError("bits are set behind the last weight")
    return list(np.split(bits[:total], np.cumsum([n for n, _ in layers])[:-1])) if layers else []


def _rice(mask: Bits) -> bytes:
    """The rarer value's gaps (what lies between one and the next) in the best Golomb-Rice code of whole bits.

    All quotients in unary (so many zeros, then a one), then all remainders, each part filled up to whole bytes. Kept
    apart, both are read at once and not bit by bit.
    """
    places = np.flatnonzero(mask == _rarer(len(mask), int(np.count_nonzero(mask))))
    gaps = np.diff(places, prepend=-1) - 1
    lengths = [int((gaps >> width).sum()) + (width + 1) * len(gaps) for width in range(_LONGEST_REMAINDER)]
    width = int(np.argmin(lengths))
    ends = np.cumsum((gaps >> width) + 1)
    unary = np.zeros(int(ends[-1]) if len(ends) else 0, bool)
    unary[ends - 1] = True
    remainders = (gaps[:, None] >> np.arange(width)) & 1
    parts = [np.packbits(bits.astype(bool).ravel(), bitorder="little").tobytes() for bits in (unary, remainders)]
    return _LAYER.pack(width, len(unary)) + b"".join(parts)


def _unrice(blob: bytes, layers: Sequence[tuple[int, int]]) -> list[Bits]:
    masks, start = [], 0
    for n, kept in layers:
        count = min(kept, n - kept)
        if start + _LAYER.size > len(blob):
            raise ValueError("they are cut short")
        width, length = _LAYER.unpack_from(blob, start)
        start += _LAYER.size
        if width >= _LONGEST_REMAINDER or length > n:
            raise ValueError(f"remainders of {width} bits and quotients of {length} for {n} weights")
        unary, start = _bits(blob, start, length)
        remainders, start = _bits(blob, start, count * width)
        masks.append(_unriced(unary, remainders.reshape(count, width), n=n, kept=kept))
    if start != len(blob):
        raise ValueError(f"{len(blob) - start} bytes are behind the last layer")
    return masks


def _unriced(unary: Bits, remainders: Bits, *, n: int, kept: int) -> Bits:
    count, width = remainders.shape
    ends = np.flatnonzero(unary)
    if len(ends) != count or (count and ends[-1] != len(unary) - 1):
        raise ValueError(f"{len(ends)} places where {count} are announced")
    quotients = np.diff(ends, prepend=-1) - 1
    if (quotients > n >> width).any():  # before a shift that could overflow
        raise ValueError("a place lies behind the last weight")
    gaps = (quotients << width) + (remainders.astype(np.int64) << np.arange(width)).sum(axis=1)
    if gaps.sum(dtype=np.float64) + count > n:
        raise ValueError("a place lies behind the last weight")
    places = np.cumsum(gaps + 1) - 1
    rarer = _rarer(n, kept)
    mask = np.full(n, not rarer)
    mask[places] = rarer
    return mask


def _bits(blob: bytes, start: int, count: int) -> tuple[Bits, int]:
    """So many bits from a byte on, and where the next part begins."""
    end = start + ceil(count / 8)
    if end > len(blob):
        raise ValueError("they are cut short")
    bits = np.unpackbits(np.frombuffer(blob, np.uint8, end - start, start), bitorder="little").view(bool)
    if bits[count:].any():
        raise ValueError("bits are set behind the end of a part")
    return bits[:count], end


def _rarer(n: int, kept: int) -> bool:
    return 2 * kept <= n
