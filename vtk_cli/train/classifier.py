"""The network that is trained: a classifier, with a head for points and a sub-model where they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vtk_cli.engine.seeds import preserved_rng
from vtk_cli.errors import UserError
from vtk_cli.train.sub.model import SubDraw, SubModel
from vtk_cli.train.sub.rates import replaced


class Classifier(nn.Module):
    """A classifier whose every forward, of the model and of its sub-model, goes through `forward`.

    The point head (arXiv 2303.17595) is one linear layer on the pooled features, beside the classifier; it starts at
    the centre of the image. Neither it nor the sub-model is part of what is used after training.

    Args:
        network: maps normalised images (B, 3, S, S) to logits (B, C).
        points: points to predict for an image: 1, or one a class; 0 for no such head.
        sub: of this network; None for plain training.
        sub_bn: whether the sub-model's forward updates the running statistics of batch normalisation too (`shared`),
            or the main one alone (`main`).
        image_size: S.

    Raises:
        UserError: points are wanted, but the network does not say what its pooled features are; or `sub_bn` is `main`
            with gradient checkpointing, whose recomputed forward would update the statistics after all.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        points: int = 0,
        sub: SubModel | None = None,
        sub_bn: Literal["shared", "main"] = "shared",
        image_size: int,
    ) -> None:
        super().__init__()
        self.network, self.sub = network, sub
        self.points = _point_head(_pooled_width(network, image_size), points) if points else None
        self._norms: tuple[nn.Module, ...] = ()
        if sub is not None and sub_bn == "main":
            self._norms = tuple(part for part in network.modules() if isinstance(part, _BatchNorm))
            if self._norms and any(getattr(part, "grad_checkpointing", False) for part in network.modules()):
                raise UserError("--sub-bn main cannot go with gradient checkpointing", "--sub-bn", "use shared")

    def forward(self, images: Tensor, draw: SubDraw | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (B, C) and points (B, P, 2) in fractions of the image, None without a point head.

        Args:
            images: (B, 3, S, S), normalised.
            draw: what the sub-model drops; None for the model itself.
        """
        with self._statistics_kept() if draw is not None else nullcontext():
            if self.points is None:
                return self._logits(images, draw), None
            network: Any = self.network
            pooled = network.forward_head(self._features(images, draw), pre_logits=True)
            return network.get_classifier()(pooled), self.points(pooled).unflatten(1, (-1, 2))

    def inference_state(self) -> dict[str, Tensor]:
        """The network's own state, without point head and mask token: plain timm loads it strictly."""
        return self.network.state_dict()

    def no_weight_decay(self) -> set[str]:
        """Names of parameters beside the network's own that are not decayed."""
        names = {"points.bias"} if self.points is not None else set()
        return names | ({"sub.mask_token"} if hasattr(self.sub, "mask_token") else set())

    def _logits(self, images: Tensor, draw: SubDraw | None) -> Tensor:
        if draw is None:
            logits: Tensor = self.network(images)
            return logits
        return self._sub_model().logits(self.network, images, draw)

    def _features(self, images: Tensor, draw: SubDraw | None) -> Tensor:
        network: Any = self.network
        if draw is None:
            features: Tensor = network.forward_features(images)
            return features
        return self._sub_model().features(network, images, draw)

    def _sub_model(self) -> SubModel:
        if self.sub is None:
            raise ValueError("a draw was given, but the classifier has no sub-model")
        return self.sub

    @contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        """Inside, batch normalisation in training leaves its running statistics as they are."""
        with replaced(self._norms, {"momentum": 0.0}):
            yield


def _point_head(width: int, points: int) -> nn.Linear:
    # Made aside, so that the rest of the training does not depend on whether there is a point head.
    with preserved_rng():
        head = nn.Linear(width, 2 * points)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, 0.5)
    return head


def _pooled_width(network: Any, image_size: int) -> int:
    """Width of the pooled features F, from which the classifier makes the network's logits.

    Raises:
        UserError: no such features are to be had.
    """
    training, device = network.training, next(network.parameters()).device
    try:
        with preserved_rng(), torch.no_grad():
            network.eval()
            images = torch.randn(2, 3, image_size, image_size, device=device)
            pooled = network.forward_head(network.forward_features(images), pre_logits=True)
            logits = network.get_classifier()(pooled)
            whole = network(images)
        if pooled.ndim == 2 and torch.allclose(logits, whole, rtol=1e-3, atol=1e-4):
            return int(pooled.shape[1])
    except (AttributeError, TypeError, RuntimeError):
        pass  # told below, with the other networks whose parts do not add up
    finally:
        network.train(training)
    what = f"a {type(network).__name__} does not give the pooled features that predict points"
    raise UserError(what, "--byproducts", "choose another network, or leave the byproducts out")
