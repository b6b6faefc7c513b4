"""`vtk proof similarity`: networks of one family share adversarial directions more than networks of two.

Three residual convnets and three vision transformers, trained on the embedded digits from several seeds; SAT against
what plain prediction agreement and error consistency can tell (arXiv 2210.11407, small scale).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vtk_cli.console import Console
from vtk_cli.engine.pieces.turns import WHOLE, Share, in_turns
from vtk_cli.engine.signals import StopRequest, stop_requests
from vtk_cli.files import cache_folder
from vtk_cli.models.names import NetworkName
from vtk_cli.reports.evidence import Claim, Proof
from vtk_cli.similarity.attack import Attack
from vtk_cli.similarity.digits_networks import NARROW, DigitsNetwork, Recipe, is_trained
from vtk_cli.similarity.images import digits_images
from vtk_cli.similarity.members import Member, Pool, trained_member
from vtk_cli.similarity.outcome import Result, assess
from vtk_cli.similarity.passes import Passes, Settings
from vtk_cli.similarity.proof_tables import (
    RESNET,
    VIT,
    Evidence,
    baseline_table,
    draw_families,
    network_table,
    noise_table,
    pair_table,
    score_table,
    two_clusters,
)
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.store import Store

ATTACK = Attack(eps=32 / 255, steps=10, step_size=6 / 255)


@dataclass(frozen=True)
class Contestant:
    """One of the six architectures."""

    name: str
    family: str
    timm_name: str
    model_args: dict[str, Any]
    recipe: Recipe

    def network(self, seed: int, *, smallest: bool) -> DigitsNetwork:
        """The network to train from `seed`; `smallest` trains it for three epochs."""
        recipe = Recipe(3, self.recipe.batch_size, self.recipe.lr) if smallest else self.recipe
        return DigitsNetwork(f"{self.name}@{seed}", self.timm_name, self.model_args, recipe, seed)


def _resnet(name: str, timm_name: str, epochs: int, layers: tuple[int, ...] | None = None) -> Contestant:
    model_args: dict[str, Any] = {"channels": NARROW}
    if layers is not None:
        model_args["layers"] = layers
    return Contestant(name, RESNET, timm_name, model_args, Recipe(epochs, 64, 2e-3))


def _vit(name: str, recipe: Recipe, **model_args: Any) -> Contestant:
    shape = {"img_size": 32, "patch_size": 8, **model_args}
    return Contestant(name, VIT, "vit_base_patch16_224", shape, recipe)


CONTESTANTS = (
    _resnet("rn10", "resnet18", 12, (1, 1, 1, 1)),
    _resnet("rnb14", "resnet50", 12, (1, 1, 1, 1)),
    _resnet("r50q", "resnet50", 8),
    _vit("vit8c", Recipe(25, 32, 2e-3), embed_dim=96, depth=3, num_heads=3),
    _vit("vit8g", Recipe(25, 32, 2e-3), embed_dim=128, depth=2, num_heads=4, class_token=False, global_pool="avg"),
    _vit("v192x4", Recipe(10, 32, 1e-3), embed_dim=192, depth=4, num_heads=3),
)
SMALL = tuple(c for c in CONTESTANTS if c.name in {"rn10", "rnb14", "vit8c", "vit8g"})
"""The four that the tests train."""


def prove(seeds: Sequence[int], *, smallest: bool, plots: Path, device: torch.device, console: Console) -> Proof:
    """Train the six architectures from every seed, attack them, and compare within families and between."""
    contestants, images, everyone = _settings(seeds, smallest=smallest)
    by_seed = {
        seed: compare(
            [(c, training_seed(c, seed)) for c in contestants],
            images=images,
            smallest=smallest,
            device=device,
            console=console,
        )
        for seed in seeds
    }
    together = compare(everyone, images=images, smallest=smallest, device=device, console=console)
    families = [c.family for c in contestants]
    evidence = {seed: Evidence.of(rows, result, families) for seed, (rows, result) in by_seed.items()}
    all_families = [c.family for c, _ in everyone]
    whole = Evidence.of(*together, all_families)
    recovered = {name: two_clusters(matrix, all_families) for name, matrix in whole.matrices.items()}
    return Proof(
        name="similarity",
        title="Networks of one family share adversarial directions (SAT, arXiv 2210.11407)",
        setting=(
            f"{len(contestants)} networks (residual convnets and ViTs, 0.3 to 1.8 M weights) trained with noise"
            f" augmentation on the embedded digits, seeds {', '.join(map(str, seeds))};"
            f" PGD, eps 32/255, {ATTACK.steps} steps, {len(together[0].comparison.images)} validation images."
        ),
        tables=[
            score_table(evidence),
            pair_table(by_seed, [c.name for c in contestants]),
            baseline_table(whole, recovered, [c.name for c, _ in everyone]),
            noise_table(whole, [c.name for c, _ in everyone]),
            network_table(by_seed),
        ],
        claims=_claims(evidence, whole, recovered),
        not_claimed=(
            "That all convnets cluster (plain convnets without residuals were not among these).",
            "That architectures within a family can be told apart.",
            "Agreement and error consistency are handicapped here: at accuracies near 97 % networks hardly disagree.",
        ),
        pictures=[draw_families(evidence, plots).png],
        data={str(seed): each.as_json() for seed, each in evidence.items()} | {"all": whole.as_json()},
    )


def work(
    seeds: Sequence[int], *, smallest: bool, device: torch.device, console: Console, share: Share = WHOLE
) -> list[str]:
    """Train and attack all, those of `share` first; the keys of the rows, which hold those of every seed."""
    _, images, everyone = _settings(seeds, smallest=smallest)
    with stop_requests() as stop:
        rows = _rows(everyone, images, smallest=smallest, device=device, console=console, stop=stop, share=share)
        rows.all()
    return [rows.key(source) for source in range(len(everyone))]


def _settings(
    seeds: Sequence[int], *, smallest: bool
) -> tuple[Sequence[Contestant], int | None, list[tuple[Contestant, int]]]:
    """The architectures, the number of images, and every network by its training seed."""
    contestants = (*SMALL[:2], SMALL[-1]) if smallest else CONTESTANTS
    return contestants, 100 if smallest else None, [(c, training_seed(c, seed)) for seed in seeds for c in contestants]


def training_seed(contestant: Contestant, seed: int) -> int:
    """Every network of every seed starts elsewhere: 1000 + 100 seed + its place among the six."""
    return 1000 + 100 * seed + CONTESTANTS.index(contestant)


def compare(
    chosen: Sequence[tuple[Contestant, int]],
    *,
    images: int | None,
    smallest: bool,
    device: torch.device,
    console: Console,
) -> tuple[Rows, Result]:
    """Train (or find) the chosen networks, attack them and score them; everything is kept in the cache."""
    with stop_requests() as stop:
        rows = _rows(chosen, images, smallest=smallest, device=device, console=console, stop=stop, share=WHOLE)
        return rows, assess(rows, eps_s=0.1, resamples=1000, seed=0)


def _rows(
    chosen: Sequence[tuple[Contestant, int]],
    images: int | None,
    *,
    smallest: bool,
    device: torch.device,
    console: Console,
    stop: StopRequest,
    share: Share,
) -> Rows:
    """The chosen networks trained, or found so, and their answers to the images, clean and noisy."""

    def check() -> None:
        stop.raise_if_requested("finished networks and rows")

    def make(network: DigitsNetwork) -> Member:
        name = NetworkName(network.label, network.label, "timm", network.timm_name)
        return trained_member(name, network, device, console, wait=False)

    members = in_turns(
        [contestant.network(seed, smallest=smallest) for contestant, seed in chosen],
        found=lambda network: make(network) if is_trained(network) else None,
        make=make,
        share=share,
        check=check,
        name=lambda network: network.label,
        what="networks",
    )
    store, settings = Store(cache_folder() / "similarity"), Settings(ATTACK, batch_size=64)
    passes = Passes(Pool(members, device), store, settings, device, console, check, share)
    return Rows(passes, passes.compare(members, digits_images(images)))


def _claims(evidence: dict[int, Evidence], whole: Evidence, recovered: dict[str, float]) -> list[Claim]:
    gaps = [each.sat.lowest_within - each.sat.highest_between for each in evidence.values()]
    apart = sum(gap > 0 for gap in gaps)
    attacked = min(each.weakest_attack for each in evidence.values())
    floor = max(each.worst_noise_floor for each in evidence.values())
    means = [each.sat.within - each.sat.between for each in evidence.values()]
    return [
        Claim(
            "networks of one family are more similar than networks of two, on average",
            "every seed",
            f"{sum(mean > 0 for mean in means)} of {len(means)} seeds; smallest difference {min(means):.3f} nats",
            min(means) > 0,
        ),
        Claim(
            "every pair within a family is more similar than every pair between families",
            "every seed",
            f"{apart} of {len(gaps)} seeds; smallest gap {min(gaps):.3f} nats",
            apart == len(gaps),
        ),
        Claim(
            "SAT tells families apart better than prediction agreement",
            "larger ROC-AUC over all networks",
            f"{whole.sat.auc:.3f} against {whole.agreement.auc:.3f}",
            whole.sat.auc > whole.agreement.auc,
        ),
        Claim(
            "two spectral clusters of SAT are the families",
            "adjusted Rand index 1",
            f"{recovered['sat']:.2f}",
            recovered["sat"] == 1.0,
        ),
        Claim("the attack fools its own network", "at least 95 %", f"{100 * attacked:.1f} %", attacked >= 0.95),
        Claim("random noise of its size does not", "noise floors at most 10 %", f"{100 * floor:.1f} %", floor <= 0.1),
    ]
