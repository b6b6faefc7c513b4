"""What a training minimises: the losses of a self-supervised framework or of classes, the temporal ones beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from vtk_cli.engine.update import Clock, gradients_stay_here
from vtk_cli.video_pretrain.freqaug import FreqAug
from vtk_cli.video_pretrain.gathering import rank, world_size
from vtk_cli.video_pretrain.networks.backbone import VideoBackbone, VideoTransformer
from vtk_cli.video_pretrain.ssl_method import SSLMethod
from vtk_cli.video_pretrain.temporal_losses import TemporalHeads, debias_loss, shuffled, shuffling

_SEED_MASK = 2**63 - 1


class PretrainedVideo(nn.Module):
    """A framework, and the temporal heads beside it.

    Args:
        method: the framework.
        temporal: heads over its backbone's tokens; None for none.
    """

    def __init__(self, method: SSLMethod, temporal: TemporalHeads | None) -> None:
        super().__init__()
        self.method, self.temporal = method, temporal

    @property
    def backbone(self) -> VideoBackbone:
        """What is kept after the training."""
        return self.method.backbone

    def forward(
        self,
        views: Sequence[Tensor],
        number: int,
        progress: float,
        seed: int,
        names: Sequence[str],
        *,
        whole: Tensor | None = None,
    ) -> Tensor:
        """Loss `number` of the framework (`SSLMethod.loss`); with its last one, the temporal losses of the first view.

        `whole` is the first view with all its frequencies, whose motion is labelled; None: the view itself.

        With the last one, since then every parameter has its gradient in one backward pass: the one after which several
        processes exchange theirs.
        """
        loss: Tensor = self.method(views, number, progress, seed)
        if names and number == self.method.passes(len(views)) - 1:
            loss = loss + temporal_sum(self.backbone, self.temporal, views[0], names, whole)
        return loss


class ClassifiedVideo(nn.Module):
    """A backbone with classes, and the temporal heads beside them.

    Args:
        backbone: gives features.
        classes: how many there are.
        dropout: before the classes, in [0, 1).
        temporal: heads over its tokens; None for none.
        frozen: only the class layer learns; the backbone stays in eval mode unless `adapt`.
        adapt: a frozen backbone's running statistics adapt all the same.
    """

    def __init__(
        self,
        backbone: VideoBackbone,
        classes: int,
        *,
        dropout: float = 0.0,
        temporal: TemporalHeads | None = None,
        frozen: bool = False,
        adapt: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.temporal = backbone, temporal
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(backbone.feature_dim, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self._frozen, self._adapt = frozen, adapt
        if frozen:
            backbone.requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> ClassifiedVideo:
        """A frozen backbone stays in eval mode."""
        super().train(mode)
        if self._frozen and not self._adapt:
            self.backbone.eval()
        return self

    def forward(
        self,
        clips: Tensor,
        order: Tensor | None = None,
        names: Sequence[str] = (),
        *,
        whole: Tensor | None = None,
    ) -> Any:
        """Normalised clips (B, 3, T, S, S) to logits (B, K); with `order`, what `joint` gives."""
        if order is not None:
            return self.joint(clips, order, names, whole)
        return self.head(self.dropout(self._features(clips)))

    def joint(
        self, clips: Tensor, order: Tensor, names: Sequence[str], whole: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """The logits, those of shuffled frames, and the losses of the tokens, by one pass through the backbone.

        Args:
            clips: normalised, (B, 3, T, S, S).
            order: (B, T) of the shuffled ones.
            names: of the temporal losses; `order-shuffled` is the order loss of the shuffled frames.
            whole: the clips with all their frequencies, whose motion is labelled; None: the clips themselves.
        """
        if not isinstance(self.backbone, VideoTransformer) or self.temporal is None:
            raise TypeError("temporal losses need tokens")
        twice = {"debias", "order-shuffled"} & set(names)
        features, tokens = self.backbone.tokens(torch.cat((clips, shuffled(clips, order))) if twice else clips)
        logits = self.head(self.dropout(features))
        B, terms = len(clips), []
        if "order" in names:
            terms.append(self.temporal.order_loss(tokens[:B]))
        if "order-shuffled" in names:
            terms.append(self.temporal.order_loss(tokens[B:], order.to(tokens.device)))
        if "flow" in names:
            terms.append(self.temporal.flow_loss(tokens[:B], clips if whole is None else whole))
        return logits[:B], logits[B:] if "debias" in names else None, terms

    def _features(self, clips: Tensor) -> Tensor:
        with torch.no_grad() if self._frozen else nullcontext():
            features: Tensor = self.backbone(clips)
        return features


def temporal_sum(
    backbone: VideoBackbone,
    heads: TemporalHeads | None,
    clips: Tensor,
    names: Sequence[str],
    whole: Tensor | None = None,
) -> Tensor:
    """The sum of the token losses of clips whose frames are in order; `whole` as in `ClassifiedVideo.joint`."""
    if not isinstance(backbone, VideoTransformer) or heads is None:
        raise TypeError("temporal losses need tokens")
    _, tokens = backbone.tokens(clips)
    seen = clips if whole is None else whole
    losses = {"order": lambda: heads.order_loss(tokens), "flow": lambda: heads.flow_loss(tokens, seen)}
    return torch.stack([losses[name]() for name in names]).sum()


class SSLObjective:
    """The losses of a batch of views, one after another, each through the model.

    Args:
        freqaug: what is done to views last.
        updates: of the whole training.
        temporal: names of the temporal losses.
    """

    def __init__(self, freqaug: FreqAug, updates: int, temporal: Sequence[str] = ()) -> None:
        self._freqaug, self._updates, self._temporal = freqaug, max(1, updates), tuple(temporal)

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Iterator[Tensor]:
        """Yield the losses; `batch` is (indices, views (B, V, 3, T, S, S), filtered (B, V) bool, labels)."""
        _, views, flags, *_ = batch
        each = [self._freqaug(views[:, at], flags[:, at]) for at in range(views.shape[1])]
        method, progress, seed = _trained(model).method, clock.step / self._updates, clock.shared_seed & _SEED_MASK
        method.advance(progress)
        count = method.passes(len(each))
        for number in range(count):
            last = number == count - 1
            with nullcontext() if last else gradients_stay_here(model):
                yield model(each, number, progress, seed, self._temporal, whole=views[:, 0])


def _trained(model: nn.Module) -> PretrainedVideo:
    """What learns, under the wrapper of several processes."""
    return cast("PretrainedVideo", model.module if isinstance(model, DistributedDataParallel) else model)


class SupervisedObjective:
    """The cross entropy of the classes and the temporal losses, summed.

    Args:
        freqaug: what is done to clips last.
        smoothing: of the labels.
        temporal: weights of the temporal losses by name; `order` and `flow` are weighted by their heads.
        each: whether every clip is shuffled by itself.
        shuffled_order: the order loss is of shuffled frames.
    """

    def __init__(
        self,
        freqaug: FreqAug,
        *,
        smoothing: float,
        temporal: dict[str, float],
        each: bool = False,
        shuffled_order: bool = False,
    ) -> None:
        self._freqaug, self._smoothing, self._weights, self._each = freqaug, smoothing, temporal, each
        self._names = tuple("order-shuffled" if name == "order" and shuffled_order else name for name in temporal)

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:
        """`batch` is (indices, views (B, 1, 3, T, S, S), filtered (B, 1) bool, labels (B,))."""
        _, views, flags, labels = batch
        clips = self._freqaug(views[:, 0], flags[:, 0])
        if not self._names:
            return F.cross_entropy(model(clips).float(), labels, label_smoothing=self._smoothing)
        # Drawn for the batch of all processes, of which this one has its part.
        generator, count = torch.Generator().manual_seed(clock.shared_seed & _SEED_MASK), len(clips)
        whole = shuffling(clips.shape[2], count * world_size(), generator, each=self._each)
        order = whole[rank() * count : (rank() + 1) * count]
        logits, unknown, terms = model(clips, order, self._names, whole=views[:, 0])
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self._smoothing)
        if unknown is not None:
            loss = loss + self._weights["debias"] * debias_loss(unknown)
        for term in terms:
            loss = loss + term
        return loss
