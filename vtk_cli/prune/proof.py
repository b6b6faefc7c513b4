"""`vtk proof prune`: a tenth of a frozen random generator does what a trained one does (arXiv 2212.08311).

A tiny generator of the embedded digits, from several seeds: tickets of several sizes by layer and by one threshold over
all weights, beside random masks, the untrained and the trained dense generator, and a random tenth that is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from statistics import mean, stdev

import torch

from vtk_cli.console import Console
from vtk_cli.engine.pieces.results import Result
from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.engine.signals import stop_requests
from vtk_cli.files import cache_folder
from vtk_cli.prune.keeping import AlgorithmName, Scope
from vtk_cli.prune.options import TrialOptions
from vtk_cli.prune.pictures import Shown, draw_rows
from vtk_cli.prune.preparation import Arm, Lab, open_lab
from vtk_cli.prune.recipes import RECIPES
from vtk_cli.prune.trials import Trials, floor_of, from_png, kernel_of, without_samples
from vtk_cli.prune.watching import SHOWN
from vtk_cli.reports.evidence import Claim, Proof
from vtk_cli.reports.page import Table

OF_RANDOM, OF_DENSE, SMALLER = 0.15, 1.5, 25
_RANDOM, _DENSE, _TICKET = "random mask, 0.1", "trained dense", "ticket, global, 0.1"
_BY_LAYER, _SPARSE = "ticket, layer, 0.1", "trained, random mask, 0.1"
Point = tuple[AlgorithmName, str, Scope]
POINTS: tuple[Point, ...] = (
    ("random", "0.1", "global"),
    ("random", "0.3", "global"),
    ("random", "0.5", "global"),
    ("random", "1", "global"),
    ("dense", "1", "global"),
    ("sparse", "0.1", "global"),
    ("edge-popup", "0.1", "layer"),
    ("edge-popup", "0.3", "layer"),
    ("edge-popup", "0.5", "layer"),
    ("edge-popup", "0.1", "global"),
)


def prove(seeds: Sequence[int], *, smallest: bool, plots: Path, device: torch.device, console: Console) -> Proof:
    """Search at every point from every seed (finished ones are kept in the cache) and judge the claims."""
    options = options_of(smallest=smallest)
    lab = open_lab(options, device, console)
    found = searched(lab, seeds, POINTS, console)
    floor = floor_of(lab, console)
    return Proof(
        name="prune",
        title="A tenth of a random generator's weights, none of them trained, does what the trained generator does"
        " (arXiv 2212.08311)",
        setting=(
            f"`{options.gen}` at 16 pixels, {found[_DENSE][0]['weights']:,} signed constants, {options.steps} steps"
            f" of {options.batch} images, moments of three layers of a small classifier of digits. Adam,"
            f" {options.lr:g} for scores, {options.weights_lr:g} for weights, the best of four tried for the dense"
            f" generator on seed 0. Measured by another classifier's features: {lab.embedder.distance},"
            f" {options.samples:,} samples against the {len(lab.report)} digits that no search sees; the"
            f" {len(lab.splits.train):,} others have {floor.frechet:.1f}. Seeds {', '.join(map(str, seeds))}."
        ),
        tables=[_table(found, seeds), _kept_table(found[_TICKET], seeds)],
        claims=claims_of(found),
        not_claimed=_not_claimed(found),
        pictures=[_draw(found, lab, seeds[0], plots)],
        data={name: [without_samples(one) for one in each] for name, each in found.items()},
    )


def work(
    seeds: Sequence[int], *, smallest: bool, device: torch.device, console: Console, share: Share = WHOLE
) -> dict[str, list[Result]]:
    """All searches, those of `share` first: name -> a result for each seed."""
    return searched(open_lab(options_of(smallest=smallest), device, console), seeds, POINTS, console, share)


def options_of(*, smallest: bool) -> TrialOptions:
    """The recipe for digits; the smallest makes four steps of a narrow generator."""
    options = TrialOptions(**RECIPES["digits"])
    return replace(options, steps=4, every=2, batch=8, ngf=8, nz=8, samples=64) if smallest else options


def searched(
    lab: Lab, seeds: Sequence[int], points: Sequence[Point], console: Console, share: Share = WHOLE
) -> dict[str, list[Result]]:
    """Name -> a result for each seed; finished ones are not made again."""
    arms = [Arm(algorithm, Fraction(keep), scope, seed) for seed in seeds for algorithm, keep, scope in points]
    trials = Trials(lab, cache_folder() / "proof-prune", Console(quiet=True))
    with stop_requests() as stop, console.progress("searches", len(arms)) as progress:
        results = trials.results(arms, stop, lambda arm, _: progress.advance(1, arm.name), share)
    found: dict[str, list[Result]] = {}
    for one in results:
        found.setdefault(str(one["name"]), []).append(one)
    return found


def _table(found: Mapping[str, Sequence[Result]], seeds: Sequence[int]) -> Table:
    rows = []
    for name, each in found.items():
        distances = [float(one["fd"]) for one in each]
        spread = f" ({stdev(distances):.1f})" if len(distances) > 1 else ""
        qualities = [one["quality"] for one in each]
        rows.append(
            (
                name,
                *(f"{value:.1f}" for value in distances),
                f"{mean(distances):.1f}{spread}",
                f"{mean(kernel_of(one) for one in qualities):.1f}",
                f"{mean(one['precision'] for one in qualities):.2f}",
                f"{mean(one['recall'] for one in qualities):.2f}",
            )
        )
    columns = ("generator, kept", *(f"seed {seed}" for seed in seeds), "mean (sd)", "kernel", "precision", "recall")
    return Table(columns, rows, caption="Frechet distance, lower is better; what follows are means of the seeds")


def _kept_table(tickets: Sequence[Result], seeds: Sequence[int]) -> Table:
    rows = [
        (
            seed,
            *(f"{100 * layer['kept'] / layer['n']:.1f}" for layer in one["layers"]),
            f"{one['kept']:,}",
            f"{one['bytes']:,}",
            f"1/{4 * one['weights'] / one['bytes']:.1f}",
        )
        for seed, one in zip(seeds, tickets, strict=True)
    ]
    layers = (f"layer {number + 1}, %" for number in range(len(tickets[0]["layers"])))
    columns = ("seed", *layers, "weights kept", "ticket, bytes", "of float32")
    return Table(columns, rows, caption="What the ticket with one threshold keeps of each layer, and what it weighs")


def claims_of(found: Mapping[str, Sequence[Result]]) -> list[Claim]:
    """What is claimed of a ticket of a tenth; `found` has it, the random tenth and the trained dense generator."""
    tickets = found[_TICKET]
    over_random = _ratios(tickets, found[_RANDOM])
    over_dense = _ratios(tickets, found[_DENSE])
    smaller = [4 * one["weights"] / one["bytes"] for one in tickets]
    frozen = [one for name, each in found.items() if name.startswith("ticket") for one in each]
    changed = sum(one["theta"][0] != one["theta"][1] for one in frozen)
    return [
        Claim(
            "a searched tenth is far better than a random tenth",
            f"distance below {OF_RANDOM:g} x, every seed",
            ", ".join(f"{ratio:.3f}" for ratio in over_random),
            max(over_random) < OF_RANDOM,
        ),
        Claim(
            "it is about as good as the dense generator, trained for as many steps",
            f"distance below {OF_DENSE:g} x, every seed",
            ", ".join(f"{ratio:.2f}" for ratio in over_dense),
            max(over_dense) < OF_DENSE,
        ),
        Claim(
            "its file is small",
            f"below 1/{SMALLER} of the weights as float32, every seed",
            ", ".join(f"1/{ratio:.1f}" for ratio in smaller),
            min(smaller) > SMALLER,
        ),
        Claim(
            "no weight changes",
            "the same SHA-256 before and after every search",
            f"{changed} of {len(frozen)} changed",
            changed == 0,
        ),
    ]


def _not_claimed(found: Mapping[str, Sequence[Result]]) -> list[str]:
    by_layer, dense, tickets = (_mean(found[name]) for name in (_BY_LAYER, _DENSE, _TICKET))
    sparse = _mean(found[_SPARSE])
    return [
        f"That a tenth of every layer does as well: {by_layer:.1f}, the trained generator {dense:.1f}.",
        f"That it beats a trained one: {tickets:.1f} against {dense:.1f} (and {sparse:.1f} for a random tenth that is"
        " trained, at the dense generator's rate) is after few steps; trained longer, each may go on to improve.",
        "That these are good digits: they are legible and blurry, far from the real ones' score; matched means and"
        " variances do not make every image plausible.",
        "That it is faster: weights left out here and there make the file small, not the generator fast.",
    ]


def _ratios(ours: Sequence[Result], theirs: Sequence[Result]) -> list[float]:
    return [float(one["fd"]) / float(other["fd"]) for one, other in zip(ours, theirs, strict=True)]


def _mean(results: Sequence[Result]) -> float:
    return mean(float(one["fd"]) for one in results)


def _draw(found: Mapping[str, Sequence[Result]], lab: Lab, seed: int, plots: Path) -> Path:
    rows = [Shown(f"{name}: {each[0]['fd']:.1f}", from_png(each[0]["samples"])) for name, each in found.items()]
    rows.append(Shown("real digits, none of them searched on", next(lab.report.batches(SHOWN))))
    title = f"Digits out of generators of {found[_DENSE][0]['weights']:,} weights"
    subtitle = f"the same noise in every row; Frechet distance; seed {seed}"
    return draw_rows(plots / "samples", rows, title=title, subtitle=subtitle).png
