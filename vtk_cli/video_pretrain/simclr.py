"""SimCLR (arXiv 2002.05709): the two views of a video against all views of the other videos of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.video_pretrain.gathering import gathered, rank
from vtk_cli.video_pretrain.networks.backbone import VideoBackbone
from vtk_cli.video_pretrain.ssl_method import SSLMethod, exactly


class SimCLR(SSLMethod):
    """Contrast within the batch.

    Args:
        backbone: what is trained.
        head: from its features to D.
        temperature: of the loss.
    """

    def __init__(self, backbone: VideoBackbone, head: nn.Module, *, temperature: float) -> None:
        super().__init__()
        self.backbone, self.head, self._temperature = backbone, head, temperature

    def passes(self, views: int) -> int:  # noqa: ARG002  (all pairs at once)
        """One loss for all."""
        return 1

    def loss(self, views: Sequence[Tensor], number: int, progress: float, seed: int) -> Tensor:  # noqa: ARG002  (nothing is drawn)
        """The mean NT-Xent of all pairs of views."""
        z = F.normalize(self.head(self.backbone(torch.cat(list(views)))).float(), dim=1).chunk(len(views))
        losses = [nt_xent(one, other, self._temperature) for one, other in combinations(z, 2)]
        return torch.stack(losses).mean()


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """The normalised temperature-scaled cross entropy, Eq. 1 of the paper, the mean over both views.

    Each view's denominator has all other views of all processes: 2B - 1 of them.

    Args:
        one: (b, D), unit length, of this process.
        other: (b, D), the other views of the same videos.
        temperature: above 0.
    """
    b = len(one)
    everything = torch.cat((gathered(one), gathered(other)))
    total, start = len(everything) // 2, rank() * b
    mine = torch.cat((one, other))
    with exactly(mine):
        similar = mine @ everything.T / temperature
    rows = torch.arange(b, device=one.device)
    own = torch.cat((start + rows, total + start + rows))
    right = torch.cat((total + start + rows, start + rows))
    similar = similar.scatter(1, own[:, None], float("-inf"))
    return F.cross_entropy(similar, right)
