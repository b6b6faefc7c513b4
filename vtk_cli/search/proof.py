"""`vtk proof search`: how well scores of shared weights rank networks, where all of them can be trained.

Two spaces of 64 networks on small grey digits. Every network is trained by itself from three seeds, which is the
truth; supernets of several seeds are scored in every way there is; Kendall's tau says how far a score agrees with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from vtk_cli.console import Console
from vtk_cli.engine.pieces.results import ResultStore, work_through
from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.engine.signals import stop_requests
from vtk_cli.files import cache_folder
from vtk_cli.models.spaces.catalog import space_named
from vtk_cli.reports.curves import Points, draw_points
from vtk_cli.reports.evidence import Claim, Proof
from vtk_cli.reports.page import Table
from vtk_cli.search.proof_lab import ANGLE, LOSS, MID_NAME, PAPER_NAME, SCORED, SPACES, TRAINED, Lab, Scale
from vtk_cli.search.rank_picture import told
from vtk_cli.search.ranking import Estimate, Floats, difference_of, kendall_tau, mean_of
from vtk_cli.search.words import every


@dataclass(frozen=True)
class Measured:
    """One space.

    Args:
        space: its name.
        truth: (N,) mean accuracy of each network trained alone, in percent.
        ceiling: taus between the accuracies of single seeds.
        scores: name -> (S, N), a row a supernet; larger is better.
        costs: `parameters` and `MACs` -> (N,).
    """

    space: str
    truth: Floats
    ceiling: tuple[float, ...]
    scores: Mapping[str, Floats]
    costs: Mapping[str, Floats]

    def taus(self, name: str) -> list[float]:
        """Of a score, by supernet."""
        return [kendall_tau(row, self.truth) or 0.0 for row in self.scores[name]]

    def winners(self, name: str) -> list[float]:
        """The true accuracy of the network that a score puts first, by supernet."""
        return [float(self.truth[int(np.argmax(row))]) for row in self.scores[name]]


def prove(seeds: Sequence[int], *, smallest: bool, plots: Path, device: torch.device, console: Console) -> Proof:
    """Train and score everything (finished pieces are kept in the cache) and judge the claims."""
    scale = _scale(smallest=smallest)
    first, second = work(seeds, smallest=smallest, device=device, console=console)
    over_loss = _over(first, MID_NAME, LOSS, scale), _over(second, MID_NAME, LOSS, scale)
    slopes = mean(first.taus("slopes alone, sigmas x 10"))
    return Proof(
        name="search",
        title="Scores of shared weights find good networks; the flatness ranks them better than the angle does"
        " (GeNAS, arXiv 2305.08611)",
        setting=(
            f"Two spaces of 64 networks (three layers, four choices each) on grey digits of 16 pixels; supernets on"
            f" {TRAINED} images for 200 epochs of single paths, seeds {', '.join(map(str, seeds))}, scored on"
            f" {SCORED} others; the truth is the mean accuracy on 997 further images over trainings of each network"
            f" alone from {len(scale.truth_seeds)} seeds. In chain-a networks differ much ({_span(first)}), in chain-b"
            f" little ({_span(second)}). Three draws of noise, common to all networks unless said."
        ),
        tables=[_table(first, seeds, scale), _table(second, seeds, scale)],
        claims=_claims(first),
        not_claimed=(
            "That flatness ranks better than the loss at this scale: with the paper's sigmas it is the loss, and with"
            f" ten times these its tau differs by {told(over_loss[0])} in chain-a and {told(over_loss[1])} in chain-b.",
            f"That the slopes without the depth of the loss rank well: tau {slopes:.2f} in chain-a.",
            "That it ranks better than the angle where networks are nearly equally good: in chain-b their taus are"
            f" {_listed(second.taus(MID_NAME))} and {_listed(second.taus(ANGLE))}.",
            "That any score beats the number of parameters where networks are nearly equally good:"
            f" {_tau_of(second, 'parameters'):.2f} in chain-b.",
        ),
        pictures=[_draw(first, plots)],
        data={one.space: _as_json(one, seeds) for one in (first, second)},
    )


def work(
    seeds: Sequence[int], *, smallest: bool, device: torch.device, console: Console, share: Share = WHOLE
) -> list[Measured]:
    """All trainings of both spaces, those of `share` first."""
    scale = _scale(smallest=smallest)
    return [_measured(name, seeds, scale, device=device, console=console, share=share) for name in SPACES]


def _scale(*, smallest: bool) -> Scale:
    return Scale(4, 2, (100, 101), 8, 20) if smallest else Scale()


def _measured(
    name: str, seeds: Sequence[int], scale: Scale, *, device: torch.device, console: Console, share: Share
) -> Measured:
    space, lab = space_named(name), Lab.of(name, scale, device)
    genes = every(space)[:: 1 if scale.networks is None else 64 // scale.networks]
    pieces = [(one, seed) for one in genes for seed in scale.truth_seeds]
    store = ResultStore(cache_folder() / "proof-search")
    with stop_requests() as stop:
        with console.progress(f"{name}, networks alone", len(pieces)) as progress:
            alone = work_through(
                pieces,
                key=lambda piece: lab.key("alone", [list(piece[0]), piece[1], scale.alone_epochs]),
                compute=lambda piece: {"accuracy": lab.alone(*piece)},
                store=store,
                stop=stop,
                kept="finished trainings",
                share=share,
                name=lambda piece: f"{space.format(piece[0])} from seed {piece[1]}",
                heard=lambda _piece, _result: progress.advance(),
            )
        with console.progress(f"{name}, supernets", len(seeds)) as progress:
            found = work_through(
                list(seeds),
                key=lambda seed: lab.key("scores", [seed, scale.supernet_epochs, [list(one) for one in genes]]),
                compute=lambda seed: lab.scores(seed, genes),
                store=store,
                stop=stop,
                kept="finished supernets",
                share=share,
                name=lambda seed: f"{name} from seed {seed}",
                heard=lambda _seed, _result: progress.advance(),
            )
    single = np.array([one["accuracy"] for one in alone]).reshape(len(genes), len(scale.truth_seeds))
    pairs = [(a, b) for a in range(single.shape[1]) for b in range(a)]
    ceiling = tuple(kendall_tau(single[:, a], single[:, b]) or 0.0 for a, b in pairs)
    table = space.table(lab.shape_alone)
    costs = {
        "parameters": np.array([float(table.cost(one).params) for one in genes]),
        "MACs": np.array([float(table.cost(one).macs) for one in genes]),
    }
    scores = {score: np.array([each[score] for each in found]) for score in found[0]}
    return Measured(name, single.mean(axis=1), ceiling, scores, costs)


def _over(one: Measured, name: str, other: str, scale: Scale) -> Estimate:
    return difference_of(kendall_tau, one.scores[name], one.scores[other], one.truth, draws=scale.resamples)


def _tau_of(one: Measured, cost: str) -> float:
    return kendall_tau(one.costs[cost], one.truth) or 0.0


def _listed(taus: Sequence[float]) -> str:
    return ", ".join(f"{tau:.2f}" for tau in taus)


def _span(one: Measured) -> str:
    return f"{one.truth.min():.1f} to {one.truth.max():.1f} %"


def _table(one: Measured, seeds: Sequence[int], scale: Scale) -> Table:
    rows = []
    for name in _ordered(one.scores):
        taus = one.taus(name)
        estimate = mean_of(kendall_tau, one.scores[name], one.truth, draws=scale.resamples)
        winners = ", ".join(f"{value:.1f}" for value in one.winners(name))
        rows.append((name, *(f"{tau:.3f}" for tau in taus), told(estimate), winners))
    for name, values in one.costs.items():
        estimate = mean_of(kendall_tau, values, one.truth, draws=scale.resamples)
        rows.append((f"{name}, no training", *("" for _ in seeds), told(estimate), f"{one.truth[values.argmax()]:.1f}"))
    ceiling = f"{min(one.ceiling):.2f} to {max(one.ceiling):.2f}" if one.ceiling else "-"
    columns = ("score", *(f"seed {seed}" for seed in seeds), "mean [95 %]", "accuracy of its first, %")
    caption = (
        f"Kendall tau with the truth, {one.space}; two seeds of the truth agree to {ceiling}, its best network has"
        f" {one.truth.max():.1f} %, the median {np.median(one.truth):.1f}"
    )
    return Table(columns, rows, caption=caption)


def _ordered(scores: Mapping[str, Floats]) -> list[str]:
    first = [LOSS, "accuracy", ANGLE]
    return [*first, *(name for name in scores if name not in first)]


def _claims(one: Measured) -> list[Claim]:
    flat, angle = one.taus(MID_NAME), one.taus(ANGLE)
    apart = [abs(a - b) for a, b in zip(one.taus(PAPER_NAME), one.taus(LOSS), strict=True)]
    lost = [float(one.truth.max()) - value for value in one.winners(MID_NAME)]
    above = [a - b for a, b in zip(flat, angle, strict=True)]
    return [
        Claim(
            "flatness (sigmas x 10) ranks the 64 networks of chain-a",
            "tau at least 0.5, every seed",
            ", ".join(f"{value:.3f}" for value in flat),
            min(flat) >= 0.5,
        ),
        Claim(
            "it ranks them better than the angle does",
            "tau higher by at least 0.3, every seed",
            ", ".join(f"{value:+.3f}" for value in above),
            min(above) >= 0.3,
        ),
        Claim(
            "with the paper's sigmas flatness is the loss",
            "taus no more than 0.03 apart, every seed",
            ", ".join(f"{value:.3f}" for value in apart),
            max(apart) <= 0.03,
        ),
        Claim(
            "the network that flatness puts first is nearly the best of 64",
            "within 1 point, every seed",
            ", ".join(f"{value:.2f}" for value in lost),
            max(lost) <= 1.0,
        ),
    ]


def _as_json(one: Measured, seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "truth": one.truth.tolist(),
        "ceiling": list(one.ceiling),
        "taus": {name: dict(zip(map(str, seeds), one.taus(name), strict=True)) for name in one.scores},
        "scores": {name: values.tolist() for name, values in one.scores.items()},
    }


def _draw(one: Measured, plots: Path) -> Path:
    rows = [Points(name, np.array(one.taus(name)), ours=name == MID_NAME) for name in _ordered(one.scores)]
    rows += [Points("parameters, no training", np.array([_tau_of(one, "parameters")]))]
    title = f"How well scores rank the 64 networks of {one.space}"
    return draw_points(plots / "taus", rows, title=title, x_label="Kendall tau with the true accuracy").png
