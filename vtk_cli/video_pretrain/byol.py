"""BYOL (arXiv 2006.07733): each view predicts what an averaged network makes of the other views; nothing is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.video_pretrain.networks.backbone import VideoBackbone
from vtk_cli.video_pretrain.ssl_method import SSLMethod, annealed_momentum, follow, momentum_copy


class BYOL(SSLMethod):
    """Bootstrap your own latent.

    Args:
        backbone: of the predictions.
        head: from its features to D.
        predictor: from D to D.
        temperature: the loss is -cosine / temperature; 0.5 is the paper's 2 - 2 cos, but for the constant.
        momentum: of the averaged network at the start.
        anneal: whether it rises to 1.
    """

    def __init__(
        self,
        backbone: VideoBackbone,
        head: nn.Module,
        predictor: nn.Module,
        *,
        temperature: float,
        momentum: float,
        anneal: bool = True,
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.predictor = backbone, head, predictor
        self.target_networks = momentum_copy(backbone, head)
        self._temperature, self._momentum, self._anneal = temperature, momentum, anneal
        self._targets: list[Tensor] = []
        self._followed: float | None = None

    def advance(self, progress: float) -> None:
        """The averaged network follows the trained one, once an update."""
        if progress != self._followed:
            momentum = annealed_momentum(self._momentum, progress, anneal=self._anneal)
            for slow, fast in zip(self.target_networks, (self.backbone, self.head), strict=True):
                follow(slow, fast, momentum)
            self._followed = progress

    def passes(self, views: int) -> int:
        """Each view predicts once."""
        return views

    def loss(self, views: Sequence[Tensor], number: int, progress: float, seed: int) -> Tensor:  # noqa: ARG002  (nothing is drawn; see `advance`)
        """-cosine / T of the prediction and the targets of the other views, the mean."""
        if number == 0:
            self._targets = [self._target(view) for view in views]
        prediction = F.normalize(self.predictor(self.head(self.backbone(views[number]))).float(), dim=1)
        others = [targets for at, targets in enumerate(self._targets) if at != number]
        loss = -torch.stack([(prediction * targets).sum(dim=1).mean() for targets in others]).mean() / self._temperature
        if number == len(views) - 1:
            self._targets = []
        return loss

    @torch.no_grad()
    def _target(self, view: Tensor) -> Tensor:
        network, head = self.target_networks
        return F.normalize(head(network(view)).float(), dim=1)
