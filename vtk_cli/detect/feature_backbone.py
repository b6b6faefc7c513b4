"""Any network with feature maps as a detector's backbone: a ConvNet as in DETR (arXiv 2005.12872), or a transformer.

The DET tokens pass it by: they are learned constants, as the queries of Deformable DETR (arXiv 2010.04159), with which
arXiv 2110.03921 compares ViDT. Everything behind it, neck, decoder and heads, is ViDT's.
"""

from __future__ import annotations

import json

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vtk_cli.detect.backbone import BackboneFeatures, PatchMerging
from vtk_cli.detect.configurations import FeatureBackboneConfig
from vtk_cli.models.feature_maps import feature_network

_INITIAL = 0.02
"""Standard deviation of what is drawn at first, as in a Swin."""


class FeatureBackbone(nn.Module):
    """A network's maps of strides 8, 16 and 32, its last one merged to stride 64, and DET tokens.

    `map_widths` are the channels of its maps, `token_width` those of its DET tokens.

    Args:
        config: the network.
        queries: Q, the number of DET tokens.
        dim: D, width of the DET tokens, of their positions and of the merged map.
        recompute: activations are computed anew in the backward pass, which saves memory.

    Raises:
        UserError: there is no such network, it has no such maps, or it does not offer to compute them again.
    """

    def __init__(self, config: FeatureBackboneConfig, *, queries: int, dim: int, recompute: bool = False) -> None:
        super().__init__()
        self.det_token = nn.Parameter(torch.empty(1, queries, dim))
        self.det_pos_embed = nn.Parameter(torch.empty(1, queries, dim))
        self.network = feature_network(config.name, model_args=json.loads(config.model_args)).module
        if recompute:
            self.network.recompute()
        widths = tuple(info.channels for info in self.network.feature_info)
        self.map_widths: tuple[int, ...] = (*widths, dim)
        self.token_width = dim
        self.merging = PatchMerging(widths[-1], dim)
        for parameter in (self.det_token, self.det_pos_embed, self.merging.reduction.weight):
            nn.init.trunc_normal_(parameter, std=_INITIAL)
        self._frozen = False
        factor, shift = _renormalising(config)
        self._renormalises = bool((factor != 1).any() or (shift != 0).any())
        self.register_buffer("pixel_factor", factor, persistent=False)
        self.register_buffer("pixel_shift", shift, persistent=False)

    def forward(self, images: Tensor, mask: Tensor, constant: Tensor | None = None) -> BackboneFeatures:
        """Maps and DET tokens of a batch.

        Args:
            images: (B, 3, H, W), normalised with ImageNet's mean and deviation; 0 where padded.
            mask: (B, H, W) bool, True = padding.
            constant: what `constant_tokens` gave.
        """
        if self._renormalises:
            images = images * self.get_buffer("pixel_factor") + self.get_buffer("pixel_shift")
            images = images.masked_fill(mask[:, None], 0)
        maps = self.network.feature_maps(images)
        merged = self.merging.patches(maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return BackboneFeatures((*maps, merged), self.det_token if constant is None else constant)

    def constant_tokens(self) -> Tensor:
        """The DET tokens, (1, Q, D)."""
        return self.det_token

    def freeze_norms(self) -> int:
        """From now on batch norms keep their statistics, their scales and their shifts, as in DETR.

        Returns:
            How many there are.
        """
        norms = self._batch_norms()
        for norm in norms:
            norm.requires_grad_(requires_grad=False)
        self._frozen = True
        self.train(self.training)
        return len(norms)

    def train(self, mode: bool = True) -> FeatureBackbone:
        """Training mode, but for batch norms that are frozen; or eval mode."""
        super().train(mode)
        if self._frozen:
            for norm in self._batch_norms():
                norm.eval()
        return self

    def _batch_norms(self) -> list[nn.Module]:
        return [module for module in self.network.modules() if isinstance(module, _BatchNorm)]


def _renormalising(config: FeatureBackboneConfig) -> tuple[Tensor, Tensor]:
    """Factor and shift (3, 1, 1) from pixels normalised with ImageNet's mean and deviation to the network's own."""
    mean, std, own_mean, own_std = (
        torch.tensor(values, dtype=torch.float64).view(3, 1, 1)
        for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, config.mean, config.std)
    )
    return (std / own_std).float(), ((mean - own_mean) / own_std).float()
