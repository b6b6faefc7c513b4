"""`vtk bench similarity`: one run on N networks against comparing them pair by pair."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device
from vtk_cli.models.names import NetworkName
from vtk_cli.reports.evidence import BenchRow
from vtk_cli.similarity.attack import adversarial, to_bytes
from vtk_cli.similarity.digits_networks import DigitsNetwork, Recipe
from vtk_cli.similarity.images import ImageSet, View, digits_images
from vtk_cli.similarity.members import Member, Pool, trained_member
from vtk_cli.similarity.networks import PixelModel, as_function
from vtk_cli.similarity.passes import Passes, Settings
from vtk_cli.similarity.proof import ATTACK, SMALL
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.sat import Floats, sat_matrix
from vtk_cli.similarity.store import Store

_NETWORKS = 5


def measure(*, smallest: bool, device: torch.device, console: Console) -> list[BenchRow]:
    """Time a whole comparison of five small networks, ours and pair by pair, on the same networks and images."""
    members = [_small_network(seed, device, console) for seed in range(3 if smallest else _NETWORKS)]
    images = digits_images(32 if smallest else None)
    # The first pass of a process pays for allocation and for choosing kernels; neither way should.
    _ours(members[:2], digits_images(16), device)
    start = time.perf_counter()
    ours, attacks = _ours(members, images, device)
    between = time.perf_counter()
    theirs = _pair_by_pair([member.load() for member in members], images, device)
    end = time.perf_counter()
    difference = float(np.abs(ours - theirs).max())
    return [
        BenchRow(
            name=f"SAT of {len(members)} networks, {len(images)} images",
            ours=between - start,
            theirs=end - between,
            peer="pair by pair: both networks of every pair attacked anew",
            target=None,
            device=describe_device(device),
            versions={name: version(name) for name in ("torch", "timm")},
            note=(
                f"{attacks} attacks against {len(members) * (len(members) - 1)};"
                f" scores differ by at most {difference:.2g}"
            ),
        )
    ]


def _small_network(seed: int, device: torch.device, console: Console) -> Member:
    contestant = SMALL[0]
    recipe = Recipe(epochs=3, batch_size=64, lr=2e-3)
    network = DigitsNetwork(f"net{seed}", contestant.timm_name, contestant.model_args, recipe, seed)
    return trained_member(
        NetworkName(network.label, network.label, "timm", network.timm_name), network, device, console
    )


def _ours(members: Sequence[Member], images: ImageSet, device: torch.device) -> tuple[Floats, int]:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(ATTACK, batch_size=64)
        passes = Passes(Pool(members, device), Store(Path(folder)), settings, device, Console(quiet=True), lambda: None)
        rows = Rows(passes, passes.compare(members, images))
        return sat_matrix(rows.bits()).score, rows.work.attacks


def _pair_by_pair(networks: Sequence[PixelModel], images: ImageSet, device: torch.device) -> Floats:
    """SAT as two-network tools compute it: for each pair a clean pass and an attack of both."""
    pixels, labels = images.pixels(View(32)), images.labels
    if labels is None:
        raise ValueError("the images must be labelled")
    score = np.full((len(networks), len(networks)), np.log(100.0))
    for (i, one), (j, other) in itertools.combinations(enumerate(networks), 2):
        with as_function(one), as_function(other):
            right = _right(one, pixels, labels, device) & _right(other, pixels, labels, device)
            flips = 0
            for source, target in ((one, other), (other, one)):
                made = _attacked(source, pixels[right], labels[right], images.numbers[right], device)
                flips += int((~_right(target, made, labels[right], device)).sum())
        score[i, j] = score[j, i] = np.log(max(0.1, 100.0 * flips / (2 * int(right.sum()))))
    return score


def _right(network: PixelModel, pixels: torch.Tensor, labels: torch.Tensor, device: torch.device) -> torch.Tensor:
    with torch.no_grad():
        answers = [network(part.to(device).float() / 255).argmax(dim=1).cpu() for part in torch.split(pixels, 64)]
    return torch.cat(answers) == labels


def _attacked(
    network: PixelModel, pixels: torch.Tensor, labels: torch.Tensor, numbers: torch.Tensor, device: torch.device
) -> torch.Tensor:
    made = []
    for part, truth, number in zip(*(torch.split(each, 64) for each in (pixels, labels, numbers)), strict=True):
        images, _ = adversarial(network, part.to(device).float() / 255, truth.to(device), ATTACK, number)
        made.append(to_bytes(images.cpu(), part, ATTACK.eps))
    return torch.cat(made)
