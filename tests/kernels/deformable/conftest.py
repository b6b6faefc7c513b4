"""Random inputs, and the operator as loops over Python numbers."""

import math

import pytest
import torch


@pytest.fixture
def case():
    return make_case


@pytest.fixture
def away_from_borders():
    return move_from_borders


@pytest.fixture
def by_loops():
    return sum_by_loops


def make_case(
    shapes=((6, 4), (3, 2)), *, B=2, Q=3, M=2, D=5, P=2, coordinates=2, dtype=torch.float64, spread=1.5, seed=0
):
    """value, reference, offsets, logits; locations inside and outside, of the type that they are computed in."""
    random = torch.Generator().manual_seed(seed)
    L, S = len(shapes), sum(H * W for H, W in shapes)
    kind = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*size):
        return torch.randn(*size, generator=random, dtype=torch.float64)

    value = normal(B, S, M, D).to(dtype)
    reference = torch.rand(B, Q, L, coordinates, generator=random, dtype=torch.float64).to(kind)
    offsets = (normal(B, Q, M, L, P, 2) * spread).to(kind)
    return value, reference, offsets, normal(B, Q, M, L * P).to(kind)


def move_from_borders(shapes, locations, margin=0.02):
    """Locations moved so that no pixel coordinate is near an integer, where the gradient jumps."""
    sizes = locations.new_tensor([(W, H) for H, W in shapes])[:, None]
    pixel = locations * sizes - 0.5
    fraction = (pixel - pixel.floor()).clamp(margin, 1 - margin)
    return (pixel.floor() + fraction + 0.5) / sizes


def sum_by_loops(value, shapes, locations, weights):
    """sum of weight * bilinear, one number after the other. Lists in, (B, Q, M*D) tensor out."""
    B, _, M, D = value.shape
    Q, P = locations.shape[1], locations.shape[4]
    out = torch.zeros(B, Q, M, D, dtype=torch.float64)
    starts = [sum(H * W for H, W in shapes[:level]) for level in range(len(shapes))]
    for b in range(B):
        for q in range(Q):
            for m in range(M):
                for level, (H, W) in enumerate(shapes):
                    for p in range(P):
                        x, y = locations[b, q, m, level, p].tolist()
                        u, v = x * W - 0.5, y * H - 0.5
                        if not (-1 < u < W and -1 < v < H):
                            continue
                        for i in (math.floor(v), math.floor(v) + 1):
                            for j in (math.floor(u), math.floor(u) + 1):
                                if 0 <= i < H and 0 <= j < W:
                                    share = (1 - abs(u - j)) * (1 - abs(v - i)) * weights[b, q, m, level, p].item()
                                    out[b, q, m] += share * value[b, starts[level] + i * W + j, m].double()
    return out.flatten(2)
