from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.coco import read_coco
from vtk_cli.data.detection.outlines import outline_of_mask
from vtk_cli.data.embedded import open_embedded
from vtk_cli.data.points.clicks import click_of_mask
from vtk_cli.engine.batches import LoaderBatches
from vtk_cli.engine.loop import Plan, fit
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.errors import UserError
from vtk_cli.files import CACHE_VARIABLE
from vtk_cli.segment.labels.sources import unclicked
from vtk_cli.segment.pseudo.labels import PseudoLabel, write_pseudo_labels
from vtk_cli.segment.refine.configurations import MICRO
from vtk_cli.segment.refine.evaluation import evaluate_refinement
from vtk_cli.segment.refine.network import build_refine_network
from vtk_cli.segment.refine.objective import RefineObjective
from vtk_cli.segment.refine.pairs import RefinePair, RefinePairs, collate_crops, hold_out, match_rough_masks
from vtk_cli.segment.refine.stage import refine_data

from ..scenes_with_masks import box_mask, full_set, record

QUIET = Console(quiet=True)
ALONE = World(0, 1, 0, torch.device("cpu"))


def rough_digits() -> tuple[list[RefinePair], list[RefinePair]]:
    """Digits with masks that are too fat and a little off, to train on and held out."""
    path = open_embedded("digits-coco", train=30, val=2).folder / "annotations" / "instances_train.json"
    read = read_coco(path, QUIET)
    dataset = DetectionSet(read.name, "coco", read.records, read.class_names, read.category_ids)
    rng = np.random.default_rng(0)
    rough = []
    for image in dataset.records:
        for mask, label in zip(image.masks(), image.labels.tolist(), strict=True):
            fat = binary_dilation(mask, iterations=int(rng.integers(1, 4)))
            off = np.roll(fat, rng.integers(-2, 3, 2), (0, 1))
            x, y = click_of_mask(mask, "centroid").tolist()
            rough.append(PseudoLabel(image.id, 1, label, (x, y), outline_of_mask(off), 0, 1.0, 1.0))
    pairs = match_rough_masks(dataset, rough)
    train, _ = hold_out([pair.record.id for pair in pairs], 0)
    kept = [pair for pair in pairs if pair.record.id in train]
    return kept, [pair for pair in pairs if pair.record.id not in train]


@pytest.mark.slow
def test_the_micro_network_improves_rough_masks_of_images_it_has_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    train, held = rough_digits()
    seed_everything(0)
    network = build_refine_network(MICRO, 10)
    fit(
        network,
        RefineObjective(MICRO, 10),
        LoaderBatches(RefinePairs(train, MICRO), MICRO.batch_size, 0, 0, collate=collate_crops),
        torch.optim.Adam(network.parameters(), MICRO.lr),
        plan=Plan(epochs=20, evaluate_epochs=20),
        device=torch.device("cpu"),
        seed=0,
        evaluate=None,
        checkpoints=None,
        metrics=None,
        console=QUIET,
    )
    quality = evaluate_refinement(network.eval(), MICRO, 10, held, ALONE)
    assert quality.masks == len(held)
    assert quality.refined > quality.rough + 0.03


def test_a_teacher_that_makes_no_rough_mask_is_said_to_need_more_training(tmp_path: Path) -> None:
    strong = full_set([record(tmp_path / "a.png", 1, [(0, box_mask(30, 40, 3, 4, 10, 12))])])
    rough = tmp_path / "rough.json"
    write_pseudo_labels(rough, [], unclicked(strong), tmp_path)
    with pytest.raises(UserError, match=r"makes no mask of any fully labelled object.*train the teacher longer"):
        refine_data(strong, rough, 0)
