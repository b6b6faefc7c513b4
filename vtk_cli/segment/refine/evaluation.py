"""How good masks are beside the true ones: what chooses among the states of the MaskRefineNet's training.

Chosen by held-out fully labelled images; the masks of clicked images are never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import torch

from vtk_cli.data.detection.outlines import run_lengths_of
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.shared_work import in_every_process
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
    world: World,
) -> MaskQuality:
    """Refine the rough masks of pairs as `refine_labels` does, and compare with the true masks.

    Args:
        network: in eval mode, on the device of `world`.
        config: what its crops are like.
        classes: C.
        pairs: at least one; those of an image one after another, so that it is read once.
        world: this process among the others, who take turns by images; all must call it together.

    Raises:
        BrokenImage: an image can no longer be read.
    """
    groups = [list(group) for _, group in groupby(pairs, key=lambda pair: pair.record.id)]
    mine = range(len(groups))[world.rank :: world.size]

    def look_at_mine() -> list[tuple[int, list[tuple[float, float]]]]:
        return [(index, list(_qualities(network, config, classes, groups[index], world.device))) for index in mine]

    parts = in_every_process(world, look_at_mine)
    by_image = sorted(chain.from_iterable(parts), key=lambda pair: pair[0])
    found = list(chain.from_iterable(qualities for _, qualities in by_image))
    rough, refined = (sum(part) / len(found) for part in zip(*found, strict=True))
    return MaskQuality(rough, refined, len(found))


def _qualities(
    network: RefineNetwork,
    config: RefineConfig,
    classes: int,
    of_image: Sequence[RefinePair],
    device: torch.device,
) -> Iterator[tuple[float, float]]:
    """Of each pair of one image: the overlap with the true mask before refinement and after it."""
    image = network_image(of_image[0].record).to(device)
    refined = refine_labels(network, config, classes, image, [pair.rough for pair in of_image])
    for pair, label in zip(of_image, refined, strict=True):
        outline = pair.record.outlines[pair.index]
        if outline is None:
            raise ValueError(f"object {pair.index} of image {pair.record.id} has no mask")
        truth = run_lengths_of(outline, pair.record.height, pair.record.width)
        yield mask_iou(pair.rough.mask, truth), mask_iou(label.mask, truth)
