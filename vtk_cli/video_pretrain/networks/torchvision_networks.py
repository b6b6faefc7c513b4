"""torchvision's video classifiers without their classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torchvision.models import video
from torchvision.models.video.mvit import MSBlockConfig, MViT

from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.networks.backbone import VideoBackbone

_MVIT_BLOCKS = (1, 2, 11, 2)
_MVIT_WIDTH = 96
_REDUCTION = 32
"""The side of the input over that of the last maps."""
_S3D_FRAMES = 5
"""With fewer its last pooling, of two frames, has one."""


class TorchvisionBackbone(VideoBackbone):
    """A torchvision network that gives what its classifier would see.

    Args:
        body: maps clips (B, 3, T, H, W) to features (B, D), or to maps (B, D, t, h, w) that are averaged.
        feature_dim: D.
    """

    def __init__(self, body: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.body, self.feature_dim = body, feature_dim

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips (B, 3, T, H, W) to features (B, D)."""
        out: Tensor = self.body(clips)
        return out.mean((2, 3, 4)) if out.ndim > 2 else out


def torchvision_backbone(name: str, *, frames: int, side: int, **model_args: Any) -> TorchvisionBackbone:
    """A network with random weights.

    `s3d` averages over all of its last maps, as torchvision does for clips of 16 x 224 x 224, whatever their size.

    Args:
        name: `r3d_18`, `r2plus1d_18`, `s3d` or `mvit_v2_s`.
        frames, side: of the clips; `mvit_v2_s` is built for one size.
        model_args: for torchvision's constructor.

    Raises:
        UserError: the clips are too small, or of a size that `mvit_v2_s` cannot halve as often as it must.
    """
    if name == "mvit_v2_s":
        return _mvit(frames, side, **model_args)
    make: Callable[..., nn.Module] = getattr(video, name)
    network = make(weights=None, **model_args)
    if name == "s3d":
        if frames < _S3D_FRAMES or side < _REDUCTION:
            what = f"s3d cannot halve clips of {frames} x {side} x {side}"
            raise UserError(what, fix=f"take at least {_S3D_FRAMES} x {_REDUCTION} x {_REDUCTION}")
        return TorchvisionBackbone(network.get_submodule("features"), 1024)
    network.fc = nn.Identity()
    return TorchvisionBackbone(network, 512)


def _mvit(frames: int, side: int, stochastic_depth_prob: float = 0.2) -> TorchvisionBackbone:
    """MViTv2-S (arXiv 2112.01526, Table 1 of its appendix) for clips of any size; torchvision's own has one only."""
    if frames % 2 or side % _REDUCTION:
        what = f"mvit_v2_s cannot halve clips of {frames} x {side} x {side}"
        raise UserError(what, fix=f"take an even number of frames and a side divisible by {_REDUCTION}")
    settings = []
    stages = [stage for stage, count in enumerate(_MVIT_BLOCKS) for _ in range(count)]
    for before, stage in zip([0, *stages], stages, strict=False):
        kv = 2 ** (3 - stage)
        settings.append(
            MSBlockConfig(
                num_heads=2**stage,
                input_channels=_MVIT_WIDTH * 2**before,
                output_channels=_MVIT_WIDTH * 2**stage,
                kernel_q=[3, 3, 3],
                kernel_kv=[3, 3, 3],
                stride_q=[1, 2, 2] if stage > before else [1, 1, 1],
                stride_kv=[1, kv, kv],
            )
        )
    network = MViT(
        spatial_size=(side, side),
        temporal_size=frames,
        block_setting=settings,
        residual_pool=True,
        residual_with_cls_embed=False,
        rel_pos_embed=True,
        proj_after_attn=True,
        stochastic_depth_prob=stochastic_depth_prob,
    )
    network.head = nn.Identity()
    return TorchvisionBackbone(network, settings[-1].output_channels)
