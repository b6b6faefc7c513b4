"""Heads of self-supervised networks: layers that are thrown away after the training."""

from __future__ import annotations

from torch import nn


def mlp_head(in_features: int, width: int, out_features: int, layers: int, *, bn: bool) -> nn.Sequential:
    """`layers` linear layers with ReLUs between them, the hidden ones `width` wide.

    Args:
        in_features: of the backbone.
        width: of the hidden layers.
        out_features: of the last layer, which has neither norm nor ReLU.
        layers: 1 or more.
        bn: batch normalisation after every hidden layer; the layer has no bias of its own then.
    """
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts.append(nn.Linear(in_features, width, bias=not bn))
        if bn:
            parts.append(nn.BatchNorm1d(width))
        parts.append(nn.ReLU(inplace=True))
        in_features = width
    return nn.Sequential(*parts, nn.Linear(in_features, out_features))
