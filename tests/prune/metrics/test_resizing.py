"""The two ways in which published tools bring images to Inception's size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vtk_cli.prune.metrics.resizing import resized


def stripes(side: int) -> torch.Tensor:
    """One pixel white, one pixel black, by columns."""
    return (torch.arange(side) % 2 * 255).to(torch.uint8).expand(1, 1, side, side).contiguous()


def test_a_constant_image_stays_constant() -> None:
    images = torch.full((2, 3, 20, 20), 77, dtype=torch.uint8)
    for mode in ("clean", "legacy"):
        torch.testing.assert_close(resized(images, 33, mode), torch.full((2, 3, 33, 33), 77.0))  # type: ignore[arg-type]


def test_images_of_the_right_size_are_not_touched() -> None:
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    for mode in ("clean", "legacy"):
        assert torch.equal(resized(images, 16, mode), images.float())  # type: ignore[arg-type]


def test_clean_shrinks_fine_stripes_to_grey_and_legacy_aliases() -> None:
    clean, legacy = (resized(stripes(64), 21, mode) for mode in ("clean", "legacy"))  # type: ignore[arg-type]
    assert clean[..., 2:-2, 2:-2].sub(127.5).abs().max() < 16
    assert legacy.std() > 50


def test_clean_is_pillows_bicubic_on_floats_within_the_range() -> None:
    images = torch.randint(0, 256, (1, 3, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = resized(images, 31, "clean")
    for channel in range(3):
        plane = Image.fromarray(images[0, channel].numpy().astype(np.float32))
        expected = np.asarray(plane.resize((31, 31), Image.Resampling.BICUBIC)).clip(0, 255)
        np.testing.assert_allclose(found[0, channel].numpy(), expected)
    assert not torch.equal(found, found.round())


def test_legacy_takes_two_taps_an_axis_by_hand() -> None:
    images = torch.tensor([[[[0, 100], [0, 100]]]], dtype=torch.uint8)
    # Centres of 4 pixels over 2: -0.25, 0.25, 0.75, 1.25 -> clamped at the ends.
    torch.testing.assert_close(resized(images, 4, "legacy")[0, 0, 0], torch.tensor([0.0, 25.0, 75.0, 100.0]))


def test_only_8_bit_images_are_measured() -> None:
    with pytest.raises(ValueError, match="8-bit"):
        resized(torch.rand(1, 3, 8, 8), 16, "clean")
