"""Latents, 8 bits and grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vtk_cli.prune.samples import generated, latents, quantised, sample_grid, write_sample_grid


def test_latents_are_standard_normal() -> None:
    z = latents(4000, 7, seed=3).double()
    assert z.shape == (4000, 7)
    assert abs(float(z.mean())) < 4 / 28_000**0.5
    assert float(z.var()) == pytest.approx(1, abs=4 * (2 / 28_000) ** 0.5)
    assert float((z.abs() < 1).double().mean()) == pytest.approx(0.6827, abs=0.012)
    correlation = torch.corrcoef(z.T) - torch.eye(7)
    assert correlation.abs().max() < 4.5 / 4000**0.5


def test_a_samples_latent_depends_on_its_number_and_not_on_the_batch() -> None:
    whole = latents(10, 5, seed=1)
    assert torch.equal(torch.cat((latents(4, 5, seed=1), latents(6, 5, seed=1, start=4))), whole)
    assert not torch.equal(latents(10, 5, seed=2), whole)
    assert len({tuple(row) for row in whole.tolist()}) == 10


def test_latents_do_not_touch_torchs_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    latents(10, 5, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_values_are_rounded_to_the_nearest_of_256_and_clamped() -> None:
    images = torch.tensor([-2.0, -1.0, -1 + 0.99 / 255, -1 + 1.01 / 255, 0.0, 1.0, 7.0]).view(1, 1, 1, 7)
    assert quantised(images).flatten().tolist() == [0, 0, 0, 1, 128, 255, 255]
    assert quantised(images).dtype == torch.uint8


def test_every_8_bit_value_comes_back_unchanged() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(quantised(values.float() / 127.5 - 1), values)


def test_images_are_generated_in_eval_mode_and_the_modes_are_put_back() -> None:
    generator = nn.Sequential(nn.BatchNorm1d(4), nn.Unflatten(1, (1, 2, 2)), nn.Tanh())
    generator.train()
    generator[2].eval()
    z = latents(10, 4, seed=0)
    images = torch.cat(list(generated(generator, z, device=torch.device("cpu"), batch=3)))
    expected = quantised(torch.tanh(z / (1 + 1e-5) ** 0.5).view(10, 1, 2, 2))
    assert torch.equal(images, expected)
    assert [module.training for module in generator] == [True, True, False]
    assert generator[0].num_batches_tracked == 0


def test_a_grid_shows_every_sample_at_its_place() -> None:
    images = torch.arange(5, dtype=torch.uint8).mul(40).view(5, 1, 1, 1).expand(5, 1, 64, 64)
    sheet = np.asarray(sample_grid(images, columns=3))
    assert sheet.shape == (2 * 66 + 2, 3 * 66 + 2, 3)
    for index in range(5):
        top, left = 2 + index // 3 * 66, 2 + index % 3 * 66
        assert (sheet[top : top + 64, left : left + 64] == 40 * index).all()
    assert (sheet[68:132, 134:198] == 255).all()


def test_small_samples_are_enlarged_without_smoothing() -> None:
    images = torch.randint(0, 255, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    sheet = np.asarray(sample_grid(images))
    tile = sheet[2:66, 2:66]
    np.testing.assert_array_equal(tile[::4, ::4], images[0].permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(tile[3::4, 3::4], tile[::4, ::4])


def test_the_same_samples_give_the_same_file(tmp_path: Path) -> None:
    images = quantised(latents(9, 3 * 64, seed=0).view(9, 3, 8, 8))
    for name in ("one.png", "two.png"):
        write_sample_grid(tmp_path / name, images)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert Image.open(tmp_path / "one.png").size == (3 * 66 + 2, 3 * 66 + 2)


def test_a_grid_of_nothing_is_refused() -> None:
    for wrong in (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8).byte()):
        with pytest.raises(ValueError, match="a grid is made of"):
            sample_grid(wrong)
