"""`vtk proof similarity`: networks of one family share adversarial directions more than networks of two.

Three residual convnets and three vision transformers, trained on the embedded digits from several seeds; SAT against
what plain prediction agreement and error consistency can tell (arXiv 2210.11407, small scale).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from vtk_cli.console import Console
from vtk_cli.engine.signals import stop_requests
from vtk_cli.files import cache_folder
from vtk_cli.models.names import NetworkName
from vtk_cli.reports.curves import Points, draw_points
from vtk_cli.reports.evidence import Claim, Proof
from vtk_cli.reports.page import Table
from vtk_cli.reports.plots import Picture
from vtk_cli.similarity.attack import Attack
from vtk_cli.similarity.clusters import spectral_clusters
from vtk_cli.similarity.digits_networks import NARROW, DigitsNetwork, Recipe
from vtk_cli.similarity.images import digits_images
from vtk_cli.similarity.measures import agreement, error_consistency
from vtk_cli.similarity.members import Member, Pool, trained_member
from vtk_cli.similarity.outcome import Result, assess
from vtk_cli.similarity.passes import Passes, Settings
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.sat import Floats
from vtk_cli.similarity.statistics import Separation, separate_families
from vtk_cli.similarity.store import Store

ATTACK = Attack(eps=32 / 255, steps=10, step_size=6 / 255)
RESNET, VIT = "ResNet", "ViT"


@dataclass(frozen=True)
class Contestant:
    """One of the six architectures."""

    name: str
    family: str
    timm_name: str
    model_args: dict[str, Any]
    recipe: Recipe

    def network(self, seed: int, *, smallest: bool) -> DigitsNetwork:
        """The network to train from `seed`; `smallest` trains it for one epoch."""
        recipe = Recipe(1, self.recipe.batch_size, self.recipe.lr) if smallest else self.recipe
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
    contestants = (*SMALL[:2], SMALL[-1]) if smallest else CONTESTANTS
    images = 32 if smallest else None
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
    everyone = [(c, training_seed(c, seed)) for seed in seeds for c in contestants]
    together = compare(everyone, images=images, smallest=smallest, device=device, console=console)
    families = [c.family for c in contestants]
    evidence = {seed: _Evidence.of(rows, result, families) for seed, (rows, result) in by_seed.items()}
    all_families = [c.family for c, _ in everyone]
    whole = _Evidence.of(*together, all_families)
    recovered = {name: _two_clusters(matrix, all_families) for name, matrix in whole.matrices.items()}
    return Proof(
        name="similarity",
        title="Networks of one family share adversarial directions (SAT, arXiv 2210.11407)",
        setting=(
            f"{len(contestants)} networks (residual convnets and ViTs, 0.3 to 1.8 M weights) trained with noise"
            f" augmentation on the embedded digits, seeds {', '.join(map(str, seeds))};"
            f" PGD, eps 32/255, {ATTACK.steps} steps, {len(together[0].comparison.images)} validation images."
        ),
        tables=[
            _score_table(evidence),
            _network_table(by_seed),
            _baseline_table(whole, recovered, [c.name for c, _ in everyone]),
        ],
        claims=_claims(evidence, whole, recovered),
        not_claimed=(
            "That all convnets cluster (plain convnets without residuals were not among these).",
            "That architectures within a family can be told apart.",
            "Agreement and error consistency are handicapped here: at accuracies near 97 % networks hardly disagree.",
        ),
        pictures=[_picture(evidence, plots).png],
        data={str(seed): each.as_json() for seed, each in evidence.items()} | {"all": whole.as_json()},
    )


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
    members: list[Member] = []
    for contestant, seed in chosen:
        network = contestant.network(seed, smallest=smallest)
        name = NetworkName(network.label, network.label, "timm", network.timm_name)
        members.append(trained_member(name, network, device, console))
    with stop_requests() as stop:

        def check() -> None:
            stop.raise_if_requested("finished rows")

        store = Store(cache_folder() / "similarity")
        passes = Passes(Pool(members, device), store, Settings(ATTACK, batch_size=64), device, console, check)
        rows = Rows(passes, passes.compare(members, digits_images(images)))
        return rows, assess(rows, eps_s=0.1, resamples=1000, seed=0)


@dataclass(frozen=True)
class _Evidence:
    """How SAT and the baselines separate the families among some networks."""

    sat: Separation
    agreement: Separation
    error_consistency: Separation
    worst_noise_floor: float
    weakest_attack: float
    matrices: dict[str, Floats]
    families: list[str]

    @classmethod
    def of(cls, rows: Rows, result: Result, families: list[str]) -> _Evidence:
        comparison = rows.comparison
        matrices = {
            "sat": result.matrix.score,
            "agreement": agreement(comparison.logits.argmax(axis=2)),
            "error consistency": error_consistency(comparison.correct),
        }
        separations = {name: separate_families(matrix, families) for name, matrix in matrices.items()}
        return cls(
            separations["sat"],
            separations["agreement"],
            separations["error consistency"],
            float(result.control.noise_floor.max()),
            float(result.control.whitebox.min()),
            matrices,
            families,
        )

    def mean_within(self, family: str) -> float:
        """Mean SAT over pairs of one family."""
        chosen = [i for i, each in enumerate(self.families) if each == family]
        block = self.matrices["sat"][np.ix_(chosen, chosen)]
        return float(block[np.triu_indices(len(chosen), 1)].mean()) if len(chosen) > 1 else float("nan")

    def as_json(self) -> dict[str, Any]:
        return {
            "sat": vars(self.sat),
            "agreement": vars(self.agreement),
            "error_consistency": vars(self.error_consistency),
            "worst_noise_floor": self.worst_noise_floor,
            "weakest_attack": self.weakest_attack,
        }


def _two_clusters(matrix: Floats, families: Sequence[str]) -> float:
    """Adjusted Rand index of the families with two spectral clusters of a similarity."""
    weights = np.maximum(matrix, 0.0)
    return float(adjusted_rand_score(families, spectral_clusters(weights, 2, "sat", seed=0).labels))


def _score_table(evidence: dict[int, _Evidence]) -> Table:
    def line(name: str, values: list[float], digits: int = 3) -> tuple[str, ...]:
        spread = f"{np.mean(values):.{digits}f} ({np.std(values, ddof=1 if len(values) > 1 else 0):.{digits}f})"
        return (name, *(f"{value:.{digits}f}" for value in values), spread)

    every = list(evidence.values())
    rows = [
        line("mean SAT within a family", [e.sat.within for e in every]),
        line("mean SAT between families", [e.sat.between for e in every]),
        line("lowest within", [e.sat.lowest_within for e in every]),
        line("highest between", [e.sat.highest_between for e in every]),
        line("mean SAT, ResNet / ResNet", [e.mean_within(RESNET) for e in every]),
        line("mean SAT, ViT / ViT", [e.mean_within(VIT) for e in every]),
        line("worst noise floor, %", [100 * e.worst_noise_floor for e in every], 1),
        line("lowest white-box success, %", [100 * e.weakest_attack for e in every], 1),
        line("agreement within (baseline)", [e.agreement.within for e in every]),
        line("agreement between (baseline)", [e.agreement.between for e in every]),
    ]
    columns = ("", *(f"seed {seed}" for seed in evidence), "mean (sd)")
    return Table(columns, rows, "SAT within and between families, every seed")


def _network_table(by_seed: dict[int, tuple[Rows, Result]]) -> Table:
    rows = [
        (
            seed,
            member.label,
            f"{member.parameters / 1e6:.2f}",
            f"{100 * result.control.accuracy[i]:.1f}",
            f"{100 * result.control.whitebox[i]:.1f}",
            f"{100 * result.control.noise_floor[i]:.1f}",
        )
        for seed, (rows_of, result) in by_seed.items()
        for i, member in enumerate(rows_of.comparison.members)
    ]
    columns = ("seed", "network@training seed", "M weights", "accuracy %", "white-box %", "noise floor %")
    return Table(columns, rows, "The networks")


def _baseline_table(whole: _Evidence, recovered: dict[str, float], names: list[str]) -> Table:
    separations = {"sat": whole.sat, "agreement": whole.agreement, "error consistency": whole.error_consistency}
    rows = [
        (
            "SAT" if name == "sat" else name,
            f"{_same_architecture(whole.matrices[name], names):.3f}",
            f"{each.within:.3f}",
            f"{each.between:.3f}",
            f"{each.auc:.3f}",
            f"{each.nearest:.2f}",
            f"{recovered[name]:.2f}",
        )
        for name, each in separations.items()
    ]
    columns = (
        "similarity",
        "same architecture, other seed",
        "same family",
        "other family",
        "ROC-AUC of the family",
        "nearest is of the family",
        "ARI of 2 clusters",
    )
    return Table(columns, rows, f"All {len(names)} networks together: SAT and its baselines")


def _same_architecture(matrix: Floats, names: list[str]) -> float:
    pairs = [matrix[i, j] for i in range(len(names)) for j in range(i) if names[i] == names[j]]
    return float(np.mean(pairs)) if pairs else float("nan")


def _claims(evidence: dict[int, _Evidence], whole: _Evidence, recovered: dict[str, float]) -> list[Claim]:
    gaps = [each.sat.lowest_within - each.sat.highest_between for each in evidence.values()]
    apart = sum(gap > 0 for gap in gaps)
    attacked = min(each.weakest_attack for each in evidence.values())
    floor = max(each.worst_noise_floor for each in evidence.values())
    return [
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


def _picture(evidence: dict[int, _Evidence], plots: Path) -> Picture:
    def values(pick: str) -> Floats:
        return np.array([getattr(each.sat, pick) for each in evidence.values()])

    rows = [
        Points("within, mean", values("within"), ours=True),
        Points("within, lowest pair", values("lowest_within"), ours=True),
        Points("between, highest pair", values("highest_between")),
        Points("between, mean", values("between")),
    ]
    return draw_points(
        plots / "families",
        rows,
        title="SAT within and between families",
        subtitle="a point a seed, the bar is the mean",
        x_label="SAT (nats)",
    )
