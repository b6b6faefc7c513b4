"""Decision-boundary similarity: do two networks colour the same planes alike (Somepalli et al., arXiv 2203.08124)?

Three images x1, x2, x3 span a plane. With v = x2 - x1, w = (x3 - x1) minus its projection on v, and c the coefficient
of that projection, the points x1 + a v + b w are classified on a grid over the triangle (0, 0), (1, 0), (c, 1), a tenth
of its width and height beyond it on every side. The similarity is the fraction of points that both networks put in the
same class, over many random triplets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.similarity.sat import Counts, Floats

TRIPLETS = 500
GRID = 50
MARGIN = 0.1


def decision_boundary_similarity(
    networks: Sequence[Callable[[Tensor], Tensor]],
    images: Tensor,
    *,
    triplets: int = TRIPLETS,
    grid: int = GRID,
    batch: int = 500,
    seed: int = 0,
) -> Floats:
    """The fraction of points on planes through image triplets that two networks put in the same class.

    Args:
        networks: N functions from pixels (b, 3, H, W) to logits (b, C), in evaluation mode.
        images: (n, 3, H, W), values as the networks expect them, on the networks' device. Points beyond the triangle
            may leave the pixels' range, as in the paper.
        triplets: planes, each through three different images.
        grid: points along each side of a plane.
        batch: points a forward pass.
        seed: of the choice of triplets.

    Returns:
        (N, N) float64 in [0, 1], symmetric, 1 on the diagonal.

    Raises:
        UserError: fewer than 3 images, `triplets` or `batch` below 1, or `grid` below 2.
    """
    if len(images) < 3:
        raise UserError(f"decision boundaries through {len(images)} images", fix="give at least 3")
    if triplets < 1 or batch < 1 or grid < 2:
        raise UserError(
            f"{triplets} triplets, a grid of {grid}, batches of {batch}",
            "decision boundaries",
            "give at least 1 triplet, a grid of 2 and a batch of 1",
        )
    random = np.random.default_rng(seed)
    same = np.zeros((len(networks), len(networks)), dtype=np.int64)
    for _ in range(triplets):
        corners = images[torch.from_numpy(random.choice(len(images), 3, replace=False))]
        for points in plane(corners, grid, batch):
            classes = np.stack([_classes(network, points) for network in networks])  # (N, b)
            same += (classes[:, None] == classes[None]).sum(axis=-1)
    return np.asarray(same / (triplets * grid**2), dtype=np.float64)


def plane(corners: Tensor, grid: int, batch: int) -> Iterator[Tensor]:
    """The grid of points on the plane through three images, in batches: whole, it would be grid^2 images.

    Args:
        corners: (3, C, H, W). Where two coincide or all lie on a line the plane is that line, or that point.
        grid: points along each side.
        batch: points a batch; the last one may be smaller.

    Yields:
        (b, C, H, W), in the dtype and on the device of `corners`; b runs fastest along w.
    """
    exact = corners.detach().cpu().double().flatten(1)
    v, u = exact[1] - exact[0], exact[2] - exact[0]
    length = v @ v
    c = (v @ u / length).item() if length > 0 else 0.0
    across, up = _axis(min(0.0, c), max(1.0, c), grid), _axis(0.0, 1.0, grid)
    origin, v, w = (vector.to(corners) for vector in (exact[0], v, u - c * v))
    weights = torch.cartesian_prod(across, up).to(corners)  # (grid^2, 2)
    for start in range(0, len(weights), batch):
        a, b = weights[start : start + batch, :, None].unbind(1)  # (b, 1) each
        # Products and sums, not a matrix product: on a GPU that might run in TF32 and move the points.
        yield (origin + a * v + b * w).reshape(-1, *corners.shape[1:])


def _axis(start: float, end: float, grid: int) -> Tensor:
    beyond = MARGIN * (end - start)
    return torch.linspace(start - beyond, end + beyond, grid, dtype=torch.float64)


@torch.inference_mode()
def _classes(network: Callable[[Tensor], Tensor], points: Tensor) -> Counts:
    return np.asarray(network(points).argmax(dim=1).cpu().numpy(), dtype=np.int64)
