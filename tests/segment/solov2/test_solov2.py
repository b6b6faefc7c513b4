"""The parts together: a network learns a scene, then finds it with clicks and without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vtk_cli.segment.solov2.configurations import segmenter_config
from vtk_cli.segment.solov2.inference import find_instances, masks_of_objects
from vtk_cli.segment.solov2.losses import solo_losses
from vtk_cli.segment.solov2.masks import pairwise_iou
from vtk_cli.segment.solov2.network import SOLOv2
from vtk_cli.segment.solov2.point_inference import PointSettings, clicked_cells, covering_first, masks_at_points
from vtk_cli.segment.solov2.predictions import Frame, Instances, PointPrompt, Target
from vtk_cli.segment.solov2.targets import assign, mass_centres, one_mask_a_cell

CANVAS = (96, 96)
STEPS = 70
FRAME = Frame(CANVAS, CANVAS, CANVAS)


@pytest.fixture
def scene(target: Callable[..., Target]) -> Target:
    """A small, a middle and a large rectangle, one for each level of the micro network."""
    masks = torch.zeros(3, *CANVAS, dtype=torch.bool)
    masks[0, 4:24, 4:24], masks[1, 4:40, 40:74], masks[2, 46:90, 8:80] = True, True, True
    return target(masks, [0, 1, 0])


@pytest.fixture
def taught(scene: Target) -> tuple[SOLOv2, Tensor]:
    """A micro network that has seen nothing but the scene, and its image."""
    torch.manual_seed(0)
    config = segmenter_config("solov2-micro", 2)
    network = SOLOv2(config)
    image = torch.zeros(1, 3, *CANVAS)
    for mask, channel, value in zip(scene.masks, (0, 1, 2), (2.0, 2.0, -2.0), strict=True):
        image[0, channel, mask] = value
    wanted = [one_mask_a_cell(assign(scene, config.levels, config.sigma, CANVAS, config.mask_stride))]
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=STEPS)
    for _ in range(STEPS):
        optimiser.zero_grad()
        solo_losses(network(image), wanted).total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        schedule.step()
    return network.eval(), image


def overlaps(found: Instances, scene: Target) -> list[float]:
    """Of each object of the scene, the IoU with the best mask of its class."""
    best = []
    for mask, label in zip(scene.masks, scene.labels, strict=True):
        same = found.masks[found.labels == label]
        best.append(float(pairwise_iou(torch.cat([mask[None], same]))[0, 1:].max()) if len(same) else 0.0)
    return best


def test_a_network_that_learnt_a_scene_finds_it_in_every_mode(taught: tuple[SOLOv2, Tensor], scene: Target) -> None:
    network, image = taught
    config = network.config
    with torch.no_grad():
        outputs = network(image)
    assert min(overlaps(find_instances(outputs, FRAME, config.levels), scene)) > 0.9
    prompts = [
        PointPrompt(x, y, int(label), 1)
        for (x, y), label in zip(mass_centres(scene.masks).tolist(), scene.labels, strict=True)
    ]
    settings = PointSettings(clicked_cells, covering_first)
    clicked = masks_at_points(outputs, FRAME, config.levels, prompts, settings)
    assert clicked.unresolved == ()
    assert min(overlaps(clicked.instances, scene)) > 0.9
    targets = assign(scene, config.levels, config.sigma, CANVAS, config.mask_stride)
    assert {len(level.cells) > 0 for level in targets.levels} == {True}
    assert min(overlaps(masks_of_objects(outputs, FRAME, config.levels, targets), scene)) > 0.9
