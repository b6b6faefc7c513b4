"""How good masks are beside the true ones: what chooses among the states of the MaskRefineNet's training.

Chosen by held-out fully labelled images; the masks of clicked images are never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from vtk_cli.data.detection.outlines import run_lengths_of
from vtk_cli.segment.pseudo.labels import mask_iou
from vtk_cli.segment.refine.configurations import RefineConfig
from vtk_cli.segment.refine.inference import RefineNetwork, refine_labels
from vtk_cli.segment.refine.pairs import RefinePair, network_image


@dataclass(frozen=True)
class MaskQuality:
    """The mean intersection over union with the true masks, in [0, 1].

    Args:
        rough: before refinement.
        refined: after it.
        masks: of how many masks.
    """

    rough: float
    refined: float
    masks: int


def evaluate_refinement(
    network: RefineNetwork,
    config: RefineConfig,
    classes: int,
    pairs: Sequence[RefinePair],
    device: torch.device | str = "cpu",
) -> MaskQuality:
    """Refine the rough masks of pairs as `refine_labels` does, and compare with the true masks.

    Args:
        network: in eval mode, on `device`.
        config: what its crops are like.
        classes: C.
        pairs: at least one; those of an image one after another, so that it is read once.
        device: of the network.

    Raises:
        BrokenImage: an image can no longer be read.
    """
    found = list(_qualities(network, config, classes, pairs, device))
    rough, refined = (sum(part) / len(found) for part in zip(*found, strict=True))
    return MaskQuality(rough, refined, len(found))


def _qualities(
    network: RefineNetwork,
    config: RefineConfig,
    classes: int,
    pairs: Sequence[RefinePair],
    device: torch.device | str,
) -> Iterator[tuple[float, float]]:
    for _, group in groupby(pairs, key=lambda pair: pair.record.id):
        of_image = list(group)
        image = network_image(of_image[0].record).to(device)
        refined = refine_labels(network, config, classes, image, [pair.rough for pair in of_image])
        for pair, label in zip(of_image, refined, strict=True):
            outline = pair.record.outlines[pair.index]
            if outline is None:
                raise ValueError(f"object {pair.index} of image {pair.record.id} has no mask")
            truth = run_lengths_of(outline, pair.record.height, pair.record.width)
            yield mask_iou(pair.rough.mask, truth), mask_iou(label.mask, truth)
