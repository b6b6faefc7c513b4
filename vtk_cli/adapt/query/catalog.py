"""The names of the strategies and their settings. Nothing heavy is imported here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vtk_cli.errors import UserError, nearest

STRATEGIES: Mapping[str, str] = {
    "loss": "highest predicted loss (arXiv 1905.03677)",
    "random": "blind",
    "entropy": "highest entropy of the prediction",
    "margin": "smallest gap between the two best classes",
    "confidence": "smallest probability of the best class",
    "coreset": "farthest from what is labelled (arXiv 1708.00489)",
    "badge": "large and varied gradients (arXiv 1906.03671)",
    "clue": "clusters weighted by entropy (arXiv 2010.08666)",
    "energy": "high free energy, then a small gap (arXiv 2112.01406)",
    "sdm": "small gap that training would not close (arXiv 2203.05738)",
    "las": "unlike their neighbours, one a cluster (arXiv 2208.12856)",
    "loss-diverse": "high predicted loss, one a cluster",
    "aada": "like the target and uncertain; with a discriminator (arXiv 1904.07848)",
}


@dataclass(frozen=True)
class QuerySettings:
    """What the strategies can be told.

    Args:
        order: of `loss`: the highest predicted losses, or the lowest.
        temperature: of `clue`'s entropy: 1.0 for digits, 0.1 for DomainNet and Office.
        energy_share: of the pool that `energy` keeps by free energy, in (0, 1].
        sdm_weight: of `sdm`'s gradient term.
        neighbours: of an image, for `las`.
        las_candidates: `las` clusters (1 + this) times what is asked for: 10, for VisDA 5.
        loss_candidates: `loss-diverse` clusters this times what is asked for.
    """

    order: Literal["high", "low"] = "high"
    temperature: float = 1.0
    energy_share: float = 0.5
    sdm_weight: float = 0.01
    neighbours: int = 10
    las_candidates: int = 10
    loss_candidates: int = 6

    def __post_init__(self) -> None:
        if self.order not in {"high", "low"}:
            raise UserError(f"unknown order {self.order!r}", "--query-order", "give high or low")
        if not self.temperature > 0:
            raise UserError(f"a temperature of {self.temperature} is out of range", fix="give more than 0")
        if not 0 < self.energy_share <= 1:
            raise UserError(f"a share of {self.energy_share} is out of range", fix="give more than 0 and at most 1")
        if self.neighbours < 1 or self.las_candidates < 0 or self.loss_candidates < 1:
            raise UserError("neighbours and candidates must be at least 1")


def is_blind(mix: Mapping[str, float]) -> bool:
    """Whether a query needs no look at the images."""
    return set(mix) == {"random"}


def parse_strategy(text: str, *, recipe: str = "", where: str = "--query") -> dict[str, float]:
    """A strategy, or several with their shares: `loss`, `loss:0.5,random:0.5`.

    Args:
        text: what the user gave.
        recipe: of the training; `aada` needs `tl-ada`, whose discriminator it asks.
        where: the option, for messages.

    Returns:
        Shares by name, in the order given; their sum is 1.

    Raises:
        UserError: an unknown name, a share that is none, or `aada` without its recipe.
    """
    shares: dict[str, float] = {}
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        name, colon, share = part.partition(":")
        if name not in STRATEGIES:
            fix = nearest(name, STRATEGIES) or f"there are {', '.join(STRATEGIES)}"
            raise UserError(f"unknown strategy {name!r}", where, fix)
        if name in shares:
            raise UserError(f"{name} is named twice", where)
        if len(parts) > 1 and not colon:
            raise UserError(f"{name} has no share", where, "write loss:0.5,random:0.5")
        shares[name] = _share(share, where) if colon else 1.0
    total = math.fsum(shares.values())
    if abs(total - 1.0) > 1e-6:
        raise UserError(f"the shares are {total:g} together", where, "let them be 1")
    if "aada" in shares and recipe != "tl-ada":
        raise UserError("aada asks the discriminator, which only the recipe tl-ada has", where, "give --recipe tl-ada")
    return shares


def split_count(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """`count` images by shares; what is left over goes to the largest remainders, of equals to the first."""
    exact = {name: count * share for name, share in shares.items()}
    parts = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    order = sorted(exact, key=lambda name: parts[name] - exact[name])
    for name in order[: count - sum(parts.values())]:
        parts[name] += 1
    return parts


def _share(text: str, where: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise UserError(f"{text!r} is no share", where, "give a number above 0, at most 1")
    return share
