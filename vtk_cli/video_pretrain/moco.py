"""MoCo v2 for videos: each view asks, the other views' averaged keys are right, a queue of old keys is wrong.

arXiv 1911.05722 and 2003.04297; several positives a video as in arXiv 2104.14558.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.video_pretrain.gathering import ShuffledOver, gathered_detached
from vtk_cli.video_pretrain.networks.backbone import VideoBackbone
from vtk_cli.video_pretrain.ssl_method import SSLMethod, annealed_momentum, exactly, follow, momentum_copy


class MoCo(SSLMethod):
    """Momentum contrast.

    Args:
        backbone: of the queries.
        head: from its features to D.
        dim: D.
        queue: keys that are kept, K; a multiple of the keys of a batch over all processes.
        temperature: T.
        momentum: m at the start.
        anneal: whether m rises to 1.
    """

    queue: Tensor
    place: Tensor

    def __init__(
        self,
        backbone: VideoBackbone,
        head: nn.Module,
        *,
        dim: int,
        queue: int,
        temperature: float,
        momentum: float,
        anneal: bool = True,
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.key_networks = momentum_copy(backbone, head)
        self._temperature, self._momentum, self._anneal = temperature, momentum, anneal
        bound = (3 / dim) ** 0.5
        self.register_buffer("queue", torch.empty(queue, dim).uniform_(-bound, bound))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self._keys: list[Tensor] = []
        self._followed: float | None = None

    def advance(self, progress: float) -> None:
        """The averaged network follows the trained one, once an update."""
        if progress != self._followed:
            momentum = annealed_momentum(self._momentum, progress, anneal=self._anneal)
            for slow, fast in zip(self.key_networks, (self.backbone, self.head), strict=True):
                follow(slow, fast, momentum)
            self._followed = progress

    def passes(self, views: int) -> int:
        """Each view asks once."""
        return views

    def loss(self, views: Sequence[Tensor], number: int, progress: float, seed: int) -> Tensor:  # noqa: ARG002  (see `advance`)
        """-log of the share of the right key among it and the queue, the mean over the other views and the batch."""
        if number == 0:
            self._keys = [self._key(view, seed + at) for at, view in enumerate(views)]
        query = F.normalize(self.head(self.backbone(views[number])).float(), dim=1)
        with exactly(query):
            wrong = query @ self.queue.T
        terms = []
        for at, keys in enumerate(self._keys):
            if at != number:
                right = (query * keys).sum(dim=1, keepdim=True)
                logits = torch.cat((right, wrong), dim=1) / self._temperature
                terms.append(F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device)))
        if number == len(views) - 1:
            self.enqueue(torch.cat([gathered_detached(keys) for keys in self._keys]))
            self._keys = []
        return torch.stack(terms).mean()

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Put keys (n, D) in the place of the oldest, n <= K; an epoch's last batch may be short."""
        places = (self.place + torch.arange(len(keys), device=self.queue.device)) % len(self.queue)
        # A new tensor: the losses of this batch still need the old one for their gradients.
        queue = self.queue.clone()
        queue[places] = keys
        self.queue = queue
        self.place = (self.place + len(keys)) % len(queue)

    @torch.no_grad()
    def _key(self, view: Tensor, seed: int) -> Tensor:
        shuffle = ShuffledOver(len(view), torch.Generator().manual_seed(seed % 2**63))
        network, head = self.key_networks
        return shuffle.collect(F.normalize(head(network(shuffle.deal(view))).float(), dim=1))
