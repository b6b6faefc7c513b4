from __future__ import annotations

import zlib
from math import ceil
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtk_cli.prune.mask_bits import CODECS, Bits, Codec, decode, encode, entropy_bytes


def drawn(n: int, keep: float, seed: int = 0) -> Bits:
    return np.random.default_rng(seed).random(n) < keep


def layers_of(masks: list[Bits]) -> list[tuple[int, int]]:
    return [(len(mask), int(mask.sum())) for mask in masks]


@pytest.mark.parametrize("codec", CODECS)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=70), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_masks_come_back_as_they_were(codec: Codec, drawn_masks: list[list[bool]]) -> None:
    masks = [np.array(mask) for mask in drawn_masks]
    back = decode(encode(masks, codec), codec, layers_of(masks))
    assert [mask.tolist() for mask in back] == drawn_masks


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("keep", [0.0, 0.003, 0.1, 0.5, 0.8, 0.999, 1.0])
def test_large_masks_come_back_at_any_kept_fraction(codec: Codec, keep: float) -> None:
    masks = [drawn(50_001, keep), drawn(3, keep, 1), drawn(7_777, keep, 2)]
    back = decode(encode(masks, codec), codec, layers_of(masks))
    assert all(np.array_equal(one, other) for one, other in zip(masks, back, strict=True))


def test_raw_bits_lie_in_layer_order_the_first_in_the_lowest_bit() -> None:
    masks = [np.array([1, 1, 0, 1, 1, 0, 0, 0], bool), np.array([1, 0, 0], bool), np.array([0, 1], bool)]
    assert encode(masks, "raw") == bytes([0b00011011, 0b00010001])
    assert zlib.decompress(encode(masks, "zlib")) == encode(masks, "raw")


@pytest.mark.parametrize(("keep", "entropy"), [(0.1, 0.4690), (0.3, 0.8813), (0.5, 1.0)])
def test_the_bound_is_the_binary_entropy_of_the_kept_fraction(keep: float, entropy: float) -> None:
    n = 1_000_000
    assert entropy_bytes([(n, int(n * keep))]) * 8 == pytest.approx(n * entropy, rel=1e-3)
    assert entropy_bytes([(8, 8), (8, 0)]) == 0


@pytest.mark.parametrize(("keep", "overhead"), [(0.01, 1.05), (0.1, 1.03), (0.3, 1.06), (0.5, 1.01), (0.9, 1.03)])
def test_rice_codes_come_close_to_the_bound_and_beat_deflate(keep: float, overhead: float) -> None:
    masks = [drawn(400_000, keep)]
    size = len(encode(masks, "rice"))
    assert size < overhead * entropy_bytes(layers_of(masks))
    assert size < max(len(encode(masks, "zlib")), ceil(400_000 / 8) + 50)


@pytest.mark.parametrize("codec", get_args(Codec))
def test_whatever_is_cut_off_or_added_is_found(codec: Codec) -> None:
    masks = [drawn(300, 0.2), drawn(90, 0.7, 1)]
    blob, layers = encode(masks, codec), layers_of(masks)
    for wrong in (blob[:-1], blob[:5], b"", blob + b"\0", blob[1:]):
        with pytest.raises(ValueError, match=r"\w"):
            decode(wrong, codec, layers)


@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_bit_never_gives_the_same_masks_and_never_crashes(codec: Codec) -> None:
    masks = [drawn(200, 0.2), drawn(64, 0.6, 1)]
    blob, layers = bytearray(encode(masks, codec)), layers_of(masks)
    for place in range(8 * len(blob)):
        flipped = bytearray(blob)
        flipped[place // 8] ^= 1 << place % 8
        try:
            back = decode(bytes(flipped), codec, layers)
        except ValueError:
            continue
        same = all(np.array_equal(one, other) for one, other in zip(masks, back, strict=True))
        assert not same or codec == "zlib"  # deflate has bits that mean nothing


def test_quotients_that_would_overflow_are_refused() -> None:
    blob = (39).to_bytes(1, "little") + (8).to_bytes(8, "little") + b"\x80" + b"\xff" * 5
    with pytest.raises(ValueError, match="behind the"):
        decode(blob, "rice", [(100, 1)])


def test_deflated_masks_are_unpacked_to_their_size_and_no_further() -> None:
    bomb = zlib.compress(b"\0" * 50_000_000, 9)
    with pytest.raises(ValueError, match="cut short"):
        decode(bomb, "zlib", [(8, 0)])
