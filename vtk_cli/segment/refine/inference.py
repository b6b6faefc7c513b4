"""Refines rough masks: each object is cropped about its mask, looked at with its click, and pasted back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.data.detection.outlines import outline_of_mask
from vtk_cli.segment.pseudo.labels import PseudoLabel
from vtk_cli.segment.refine.configurations import RefineConfig
from vtk_cli.segment.refine.crops import Window, click_heat, crop_window, refine_input

KEPT_ROUGH = "refined_empty"
"""The flag of a label whose refined mask was empty: it keeps its rough one."""


class RefineNetwork(Protocol):
    """Crops (B, C + 5, S, S) to logits (B, 2, S, S)."""

    def __call__(self, crops: Tensor, /) -> Tensor:
        """The logits of background and object."""


@torch.inference_mode()
def refine_labels(
    network: RefineNetwork,
    config: RefineConfig,
    classes: int,
    image: Tensor,
    labels: Sequence[PseudoLabel],
) -> Iterator[PseudoLabel]:
    """The labels of an image with refined masks, in their order; one keeps its rough mask where the new one is empty.

    At most `config.batch_size` masks are held as pixels at a time.

    Args:
        network: in eval mode.
        config: what its crops are like.
        classes: C.
        image: float (3, H, W), normalised, on the network's device.
        labels: of this image, with rough masks of its size.
    """
    for start in range(0, len(labels), config.batch_size):
        batch = labels[start : start + config.batch_size]
        rough = [torch.from_numpy(label.pixels()).to(image.device) for label in batch]
        windows = [crop_window(mask, label.point, config.test_scale) for mask, label in zip(rough, batch, strict=True)]
        crops = crops_of(image, rough, windows, batch, config=config, classes=classes)
        shares = network(crops).float().softmax(dim=1)
        for label, mask, window, share in zip(batch, rough, windows, shares, strict=True):
            refined = pasted(share, window, mask)
            flags = () if refined.any() else (KEPT_ROUGH,)
            yield label.refined(outline_of_mask((refined if refined.any() else mask).cpu().numpy()), flags)


def crops_of(
    image: Tensor,
    masks: Sequence[Tensor],
    windows: Sequence[Window],
    labels: Sequence[PseudoLabel],
    *,
    config: RefineConfig,
    classes: int,
) -> Tensor:
    """The network's input (n, C + 5, S, S): crops resized to S x S, images bilinearly, masks by nearest pixels."""
    side = config.side
    images = torch.stack([_square(window.of(image)[None], side, "bilinear")[0] for window in windows])
    rough = torch.stack(
        [
            _square(window.of(mask)[None, None].float(), side, "nearest-exact")[0, 0]
            for window, mask in zip(windows, masks, strict=True)
        ]
    )
    clicks = torch.tensor(
        [window.to_crop(*label.point, side) for window, label in zip(windows, labels, strict=True)], device=image.device
    )
    present = torch.ones(len(labels), dtype=torch.bool, device=image.device)
    heat = click_heat(clicks, present, side, config.sigma, config.reach)
    indices = torch.tensor([label.label for label in labels], device=image.device)
    return refine_input(images, heat, rough > 0, indices, classes)


def pasted(shares: Tensor, window: Window, mask: Tensor) -> Tensor:
    """A refined mask at the size of the image.

    Args:
        shares: (2, S, S), the probabilities of background and object.
        window: of the crop.
        mask: (H, W), of the image's size.

    Returns:
        bool (H, W): where the object is likelier, in the window; False outside.
    """
    resized = F.interpolate(shares[None], size=window.size, mode="bilinear", align_corners=False)[0]
    whole = torch.zeros_like(mask, dtype=torch.bool)
    window.of(whole)[:] = resized[1] > resized[0]
    return whole


def _square(image: Tensor, side: int, mode: str) -> Tensor:
    return F.interpolate(image, size=(side, side), mode=mode, align_corners=False if mode == "bilinear" else None)
