"""What it takes to measure architectures of a trained supernet: weights, images, and where results are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.engine.pieces.results import ResultStore
from vtk_cli.errors import UserError
from vtk_cli.files import cache_folder
from vtk_cli.search.candidates import Candidates
from vtk_cli.search.images import (
    SearchImages,
    calibration_tensors,
    listing_digest,
    open_search_images,
    scoring_tensors,
)
from vtk_cli.search.judgement import Judgement
from vtk_cli.search.scores.scorer import Images, Scorer
from vtk_cli.search.scores.settings import Measurement
from vtk_cli.search.supernet_file import SupernetRun

_MOST_BYTES = 2**32
"""Of images to calibrate with, as numbers."""
_OF_IMAGES: frozenset[Measurement] = frozenset({"clean", "noise"})


def result_store(folder: Path | None) -> ResultStore:
    """Where measurements are kept: the folder that was chosen, else one in the user's cache."""
    return ResultStore(folder or cache_folder() / "search")


def candidates_of(
    supernet: SupernetRun,
    judgement: Judgement,
    needs: Iterable[Measurement],
    *,
    store: ResultStore,
    device: torch.device,
    console: Console,
) -> Candidates:
    """Ready to measure: the scorer with weights and images on the device.

    Args:
        supernet: whose architectures.
        judgement: how they are measured.
        needs: what is to be measured, which may be more than the judgement needs.
        store: where measurements are kept.
        device: where.
        console: told of images that cannot be read.

    Raises:
        UserError: weights, images or settings do not go together.
    """
    needs = frozenset(needs)
    network = supernet.network().to(device)
    initial = None
    if "angle" in needs:
        state = supernet.initial_state()
        initial = None if state is None else {name: value.to(device) for name, value in state.items()}
    images, about = None, dict[str, Any](supernet.sha256)
    if needs & _OF_IMAGES:
        images = _images(supernet, judgement, device, console)
        about["images"] = _digest(images)
    scorer = Scorer(network, initial, images, judgement.settings)
    scorer.check(needs)
    return Candidates(scorer, about, store)


def images_of(supernet: SupernetRun, console: Console) -> SearchImages:
    """The images that a supernet was trained on, in the halves of its run.

    Raises:
        UserError: they cannot be opened, or there are others now: the halves number them as they were.
    """
    options = replace(supernet.options, split_file=supernet.halves)
    channels = supernet.space.input_channels
    images = open_search_images(options, size=supernet.shape.resolution, channels=channels, console=console)
    if supernet.listing not in {None, listing_digest(images.splits.train)}:
        what = "its training images are not those that the supernet was trained on: some came, went or changed class"
        raise UserError(what, options.data, "bring them back, or train the supernet anew")
    return images


def _images(supernet: SupernetRun, judgement: Judgement, device: torch.device, console: Console) -> Images:
    opened = images_of(supernet, console)
    settings = judgement.settings
    count = max(settings.calibration_images, settings.accuracy_calibration_images or 0)
    limit = count if settings.fixed_calibration else len(opened.halves.train)
    size = 4 * limit * supernet.space.input_channels * opened.size**2
    if not settings.fixed_calibration and size > _MOST_BYTES:
        what = f"it draws calibration images from all {limit:,} of the training half, which take {size / 2**30:.0f} GiB"
        raise UserError(what, "--official-quirks", "leave it out; --bn-images says how many are taken then")
    calibration, _ = calibration_tensors(opened, device=device, limit=limit, console=console)
    seen, labels = scoring_tensors(opened, device=device, limit=judgement.images, console=console)
    return Images(calibration, seen, labels)


def _digest(images: Images, at_a_time: int = 1024) -> str:
    """Of every image and label that architectures are measured on."""
    digest = hashlib.sha256()
    for part in (images.calibration, images.images):
        for start in range(0, len(part), at_a_time):
            digest.update(_bytes(part[start : start + at_a_time]))
    digest.update(_bytes(images.labels))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    content: bytes = tensor.cpu().contiguous().numpy().tobytes()
    return content
