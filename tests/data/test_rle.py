from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from vtk_cli.data.rle import run_lengths


def runs_of(mask: np.ndarray) -> list[int]:
    """Slow reference: walk down the columns, count runs, 0 first."""
    runs, value = [0], 0
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_compressed_masks_read_as_pycocotools_wrote_them(share):
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (5, 7), (128, 128), (300, 411)):
        mask = (rng.random((height, width)) < share).astype(np.uint8)
        rle = coco_mask.encode(np.asfortranarray(mask))
        for counts in (rle["counts"], rle["counts"].decode()):
            assert run_lengths({"size": [height, width], "counts": counts}, height, width) == runs_of(mask)


def test_a_mask_of_long_runs_reads_back():
    mask = np.zeros((2000, 3000), np.uint8)
    mask[:, 1234:2345] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    expected = [1234 * 2000, 1111 * 2000, 655 * 2000]
    assert run_lengths({"size": [2000, 3000], "counts": rle["counts"]}, 2000, 3000) == expected


def test_uncompressed_counts_are_checked_and_given_back():
    assert run_lengths({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3) == [1, 2, 3]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ({"size": [3, 2], "counts": [6]}, "size"),
        ({"counts": [6]}, "size"),
        ("6", "size"),
        ({"size": [2, 3], "counts": [1, 2]}, "do not fill"),
        ({"size": [2, 3], "counts": [7, -1]}, "do not fill"),
        ({"size": [2, 3], "counts": [6.0]}, "neither"),
        ({"size": [2, 3], "counts": [True, 5]}, "neither"),
        ({"size": [2, 3]}, "neither"),
        ({"size": [2, 3], "counts": "6 "}, "no code"),
        ({"size": [2, 3], "counts": "6é"}, "do not fill|no code"),
        ({"size": [2, 3], "counts": "6P"}, "within a number"),
        ({"size": [2, 3], "counts": "7"}, "do not fill"),
    ],
)
def test_a_wrong_mask_is_an_error_with_the_reason(mask, reason):
    with pytest.raises(ValueError, match=reason):
        run_lengths(mask, 2, 3)
