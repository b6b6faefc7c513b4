"""Three losses that make a video transformer look at the order of frames (TIME, arXiv 2207.09067).

Order: which frame is this? Debias: of shuffled frames the class should not be known. Flow: which way does each patch
move? Their heads are not used after the training.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.video_pretrain.flow_labels import FLOW_CLASSES, FlowLabels


class FlowHead(nn.Module):
    """From the tokens of two frames to the direction of each patch: one attention from the later to the earlier.

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.classify = nn.LayerNorm(width), nn.Linear(width, FLOW_CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, N, C) to logits (B, T - 1, N, 9)."""
        query, before = self.query(tokens[:, 1:]), tokens[:, :-1]
        seen = F.scaled_dot_product_attention(query, self.key(before), self.value(before))
        logits: Tensor = self.classify(self.norm(self.project(seen)))
        return logits


class TemporalHeads(nn.Module):
    """The losses that look at tokens.

    Args:
        width: C of the tokens.
        frames: T.
        weights: of `order` and `flow`; what is missing is not computed.
        labels: of the flow; needed for it.
        smoothing: of the labels, in [0, 1).
    """

    def __init__(
        self,
        width: int,
        frames: int,
        weights: Mapping[str, float],
        *,
        labels: FlowLabels | None,
        smoothing: float,
    ) -> None:
        super().__init__()
        self._weights, self._labels, self._smoothing = dict(weights), labels, smoothing
        if "order" in weights:
            self.order = nn.Linear(width, frames)
        if "flow" in weights:
            self.flow = FlowHead(width)

    def order_loss(self, tokens: Tensor, places: Tensor | None = None) -> Tensor:
        """The weighted cross entropy of each frame's place, the mean over clips and frames.

        Args:
            tokens: (B, T, N, C); a frame is the mean of its tokens.
            places: int64 (B, T), where each frame belongs; None: where it is.
        """
        logits = self.order(tokens.mean(dim=2))
        if places is None:
            places = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), places.flatten(), label_smoothing=self._smoothing)
        return self._weights["order"] * loss

    def flow_loss(self, tokens: Tensor, clips: Tensor) -> Tensor:
        """The weighted cross entropy of each patch's direction, the mean over clips, pairs of frames and patches.

        Args:
            tokens: (B, T, N, C).
            clips: normalised, (B, 3, T, H, W), that they are of; as they were before frequencies were taken out.
        """
        if self._labels is None:
            raise ValueError("the flow loss needs labels")
        logits = self.flow(tokens)
        target = self._labels(clips)
        loss = F.cross_entropy(logits.flatten(0, 2).float(), target.flatten(), label_smoothing=self._smoothing)
        return self._weights["flow"] * loss


def debias_loss(logits: Tensor) -> Tensor:
    """-mean log p: how far the classes of shuffled clips are from being all alike; log K at best.

    Args:
        logits: (B, K).
    """
    return -F.log_softmax(logits.float(), dim=1).mean()


def shuffling(frames: int, clips: int, generator: torch.Generator, *, each: bool) -> Tensor:
    """Orders of frames that are not the order of time.

    Args:
        frames: T, at least 2.
        clips: B.
        generator: on the CPU.
        each: whether every clip has its own; else all share one.

    Returns:
        int64 (B, T): the frame at place t of the shuffled clip was at `[b, t]`.
    """
    if frames < 2:
        raise ValueError("one frame cannot be shuffled")
    drawn = torch.stack([_drawn(frames, generator) for _ in range(clips if each else 1)])
    return drawn.expand(clips, frames)


def shuffled(clips: Tensor, order: Tensor) -> Tensor:
    """Clips (B, C, T, H, W) with their frames in the orders (B, T)."""
    index = order.to(clips.device)[:, None, :, None, None].expand_as(clips)
    return clips.gather(2, index)


def _drawn(frames: int, generator: torch.Generator) -> Tensor:
    """Any order but that of time, each as likely."""
    while True:
        order = torch.randperm(frames, generator=generator)
        if not torch.equal(order, torch.arange(frames)):
            return order
