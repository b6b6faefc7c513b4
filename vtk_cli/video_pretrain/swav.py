"""SwAV (arXiv 2006.09882): each view predicts the cluster, spread evenly over the batch, that the other is put in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.video_pretrain.gathering import summed, world_size
from vtk_cli.video_pretrain.networks.backbone import VideoBackbone
from vtk_cli.video_pretrain.ssl_method import SSLMethod, exactly


class SwAV(SSLMethod):
    """Swapped assignments.

    Args:
        backbone: what is trained.
        head: from its features to D.
        dim: D.
        prototypes: K; each a row of unit length.
        temperature: of the predictions.
        eps: of the assignments; the smaller, the harder.
        iterations: of Sinkhorn's algorithm.
        frozen: share of the training at first in which the prototypes stay: its first epoch.
    """

    def __init__(
        self,
        backbone: VideoBackbone,
        head: nn.Module,
        *,
        dim: int,
        prototypes: int,
        temperature: float,
        eps: float,
        iterations: int,
        frozen: float,
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.prototypes = nn.Linear(dim, prototypes, bias=False)
        self._temperature, self._eps, self._iterations, self._frozen = temperature, eps, iterations, frozen

    @torch.no_grad()
    def advance(self, progress: float) -> None:  # noqa: ARG002  (always)
        """The prototypes are made as long as one again."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def passes(self, views: int) -> int:  # noqa: ARG002  (all pairs at once)
        """One loss for all."""
        return 1

    def loss(self, views: Sequence[Tensor], number: int, progress: float, seed: int) -> Tensor:  # noqa: ARG002  (nothing is drawn)
        """The cross entropy of each view's prediction with another's code, the mean over all pairs, both ways."""
        weight = self.prototypes.weight
        # Kept in the graph at factor 0: a parameter without a gradient would hold up the other processes.
        weight = weight.detach() + 0 * weight if progress < self._frozen else weight
        z = F.normalize(self.head(self.backbone(torch.cat(list(views)))).float(), dim=1)
        with exactly(z):
            scores = (z @ weight.T).chunk(len(views))
        codes = [sinkhorn(one.detach(), self._eps, self._iterations) for one in scores]
        terms = []
        for here, there in permutations(range(len(scores)), 2):
            predicted = F.log_softmax(scores[there] / self._temperature, dim=1)
            terms.append(-(codes[here] * predicted).sum(dim=1).mean())
        return torch.stack(terms).mean()


@torch.no_grad()
def sinkhorn(scores: Tensor, eps: float, iterations: int) -> Tensor:
    """Soft assignments of the batch of all processes to prototypes, each prototype with the same share of it.

    Args:
        scores: (B, K) cosines of this process's samples.
        eps: exp(score / eps) is what is balanced (Eq. 3 of the paper).
        iterations: rounds, each over rows and columns.

    Returns:
        (B, K), rows sum to 1.
    """
    Q = (scores.double() / eps).T
    Q = torch.exp(Q - _largest(Q))
    K, B = Q.shape[0], Q.shape[1] * world_size()
    Q /= summed(Q.sum())
    for _ in range(iterations):
        Q /= summed(Q.sum(dim=1, keepdim=True)) * K
        Q /= Q.sum(dim=0, keepdim=True) * B
    return (Q * B).T.to(scores.dtype)


def _largest(values: Tensor) -> Tensor:
    largest = values.max()
    if world_size() > 1:
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return largest
