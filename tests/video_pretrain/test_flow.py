"""Optical flow against a slow reference in float64, and against motion that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vtk_cli.data.painting import load_photos
from vtk_cli.video_pretrain.farneback import Farneback, expand, farneback_flow, pyramid_levels
from vtk_cli.video_pretrain.flow_labels import FlowLabels
from vtk_cli.video_pretrain.lucas_kanade import lucas_kanade_flow
from vtk_cli.video_pretrain.separable import convolve, gaussian_kernel

FLOWS = {"farneback": farneback_flow, "lucas_kanade": lucas_kanade_flow}


def photo(side: int, top: int = 60, left: int = 80) -> np.ndarray:
    """Grey values of a textured part of a photo, with room to move around it."""
    gray = load_photos()[0] @ np.array([0.299, 0.587, 0.114])
    return gray[top : top + side, left : left + side].astype(np.float64)


def shifted_pair(side: int, dx: int, dy: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture, and the same moved by dx to the right and dy down."""
    whole = torch.from_numpy(photo(side + 16)).float()
    return whole[None, 8 : 8 + side, 8 : 8 + side], whole[None, 8 - dy : 8 - dy + side, 8 - dx : 8 - dx + side]


def slow_expand(frame: np.ndarray, radius: int, sigma: float) -> np.ndarray:
    """The weighted least-squares fit at every pixel by itself: (H, W, 5) of x, y, xx, yy, xy."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(float)
    basis = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1).reshape(-1, 6)
    root = np.sqrt(np.exp(-(x**2 + y**2) / (2 * sigma**2))).ravel()
    padded = np.pad(frame, radius, mode="edge")
    found = np.empty((*frame.shape, 5))
    for row in range(frame.shape[0]):
        for column in range(frame.shape[1]):
            window = padded[row : row + 2 * radius + 1, column : column + 2 * radius + 1].ravel()
            found[row, column] = np.linalg.lstsq(root[:, None] * basis, root * window, rcond=None)[0][1:]
    return found


def slow_iteration(one: np.ndarray, other: np.ndarray, flow: np.ndarray, window: int) -> np.ndarray:
    """One displacement of every pixel, (H, W, 2), from the fits of two frames."""
    H, W, _ = one.shape
    border = (0.14, 0.14, 0.4472, 0.4472, 0.4472)
    sums = np.zeros((H, W, 5))
    for i in range(H):
        for j in range(W):
            dx, dy = flow[i, j]
            x, y = j + dx, i + dy
            left, top = int(np.floor(x)), int(np.floor(y))
            if 0 <= left < W - 1 and 0 <= top < H - 1:
                a, b = x - left, y - top
                r = (1 - b) * ((1 - a) * other[top, left] + a * other[top, left + 1])
                r = r + b * ((1 - a) * other[top + 1, left] + a * other[top + 1, left + 1])
            else:
                r = np.array([0, 0, *one[i, j, 2:]])
            A = np.array([[(one[i, j, 2] + r[2]) / 2, (one[i, j, 4] + r[4]) / 4], [0, (one[i, j, 3] + r[3]) / 2]])
            A[1, 0] = A[0, 1]
            delta = (one[i, j, :2] - r[:2]) / 2 + A @ flow[i, j]
            weight = 1.0
            for place, length in ((i, H), (j, W)):
                for edge in (place, length - 1 - place):
                    weight *= border[edge] if edge < 5 else 1.0
            A, delta = A * weight, delta * weight
            G, h = A.T @ A, A.T @ delta
            sums[i, j] = G[0, 0], G[0, 1], G[1, 1], h[0], h[1]
    r = window // 2
    padded = np.pad(sums, ((r, r), (r, r), (0, 0)), mode="edge")
    found = np.empty((H, W, 2))
    for i in range(H):
        for j in range(W):
            g11, g12, g22, h1, h2 = padded[i : i + window, j : j + window].mean((0, 1))
            determinant = g11 * g22 - g12 * g12 + 1e-3
            found[i, j] = (g22 * h1 - g12 * h2) / determinant, (g11 * h2 - g12 * h1) / determinant
    return found


def smoothed(frame: np.ndarray) -> np.ndarray:
    """(1, 2, 1) / 4 along both axes, mirrored at the outermost pixels."""
    padded = np.pad(frame, 1, mode="reflect")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4


def test_a_quadratic_has_its_own_coefficients():
    y, x = torch.meshgrid(torch.arange(40.0).double(), torch.arange(50.0).double(), indexing="ij")
    frame = 3 + 2 * x - y + 0.5 * x * x - 0.25 * y * y + 0.125 * x * y
    found = expand(frame[None], 5, 1.2)[0, :, 10:30, 10:40]
    x, y = x[10:30, 10:40], y[10:30, 10:40]
    expected = (2 + x + 0.125 * y, -1 - 0.5 * y + 0.125 * x, 0.5, -0.25, 0.125)
    for one, right in zip(found, expected, strict=True):
        torch.testing.assert_close(one, torch.as_tensor(right).double().expand_as(one), atol=1e-8, rtol=1e-8)


def test_the_fit_is_weighted_least_squares_pixel_by_pixel():
    frame = photo(24)
    found = expand(torch.from_numpy(frame)[None], 5, 1.2)[0].permute(1, 2, 0)
    np.testing.assert_allclose(found.numpy(), slow_expand(frame, 5, 1.2), atol=1e-7)


def test_farneback_is_its_slow_reference():
    settings = Farneback(levels=0, window=7, iterations=2)
    one, other = photo(28), photo(28, 61, 82)
    found = farneback_flow(torch.from_numpy(one)[None], torch.from_numpy(other)[None], settings)[0]
    fits = [slow_expand(smoothed(frame), 5, 1.2) for frame in (one, other)]
    flow = np.zeros((28, 28, 2))
    for _ in range(2):
        flow = slow_iteration(fits[0], fits[1], flow, 7)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), flow, atol=1e-6)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize(("dx", "dy"), [(3, 2), (-2, 3), (0, -5)])
def test_a_shift_is_found(name, dx, dy):
    one, other = shifted_pair(96, dx, dy)
    if name == "lucas_kanade":  # its gradients are of neighbouring pixels, so that it is for smooth pictures
        one, other = (convolve(frame, gaussian_kernel(1.0, 4), "reflect") for frame in (one, other))
    flow = FLOWS[name](one, other)[0, :, 12:-12, 12:-12]
    assert (flow[0].median() - dx).abs() < 0.1
    assert (flow[1].median() - dy).abs() < 0.1
    assert ((flow[0] - dx).abs() + (flow[1] - dy).abs() < 0.5).float().mean() > 0.7


@pytest.mark.parametrize("name", FLOWS)
def test_nothing_moves_between_a_frame_and_itself(name):
    frame = torch.from_numpy(photo(64)).float()[None]
    assert FLOWS[name](frame, frame).abs().max() < 0.05


@pytest.mark.parametrize("name", FLOWS)
def test_pairs_do_not_see_one_another(name):
    one, other = shifted_pair(64, 2, 1)
    both = FLOWS[name](torch.cat((one, other)), torch.cat((other, one)))
    torch.testing.assert_close(both[:1], FLOWS[name](one, other), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both[1:], FLOWS[name](other, one), atol=1e-4, rtol=1e-4)


def test_swapping_the_axes_swaps_the_flow():
    one, other = shifted_pair(64, 3, -1)
    turned = farneback_flow(one.mT.contiguous(), other.mT.contiguous())
    torch.testing.assert_close(turned.mT.flip(1), farneback_flow(one, other), atol=2e-3, rtol=1e-3)


def test_the_pyramid_stops_at_32_pixels():
    assert [pyramid_levels(side, 999, 0.5, 3) for side in (31, 63, 64, 127, 128, 256, 1024)] == [0, 0, 1, 1, 2, 3, 3]


def test_the_four_shifts_of_a_photo_have_their_classes():
    """Where the patch is textured; what is flat stands still."""
    labels = FlowLabels(farneback_flow, 16, still=0.5)
    for (dx, dy), right in (((3, 2), 1), ((-2, 3), 3), ((-3, -2), 5), ((2, -3), 7)):
        pair = [(frame / 128).expand(3, -1, -1) for frame in shifted_pair(224, dx, dy)]
        found = labels(torch.stack(pair, dim=1)[None]).flatten()
        moving = found[found > 0]
        assert len(moving) > 150
        assert (moving == right).float().mean() > 0.95
    still = torch.stack([pair[0], pair[0]], dim=1)[None]
    assert (labels(still) == 0).all()
