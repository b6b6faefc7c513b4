"""The search itself: generations of architectures, measured and ranked, until the last; interrupted, it goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vtk_cli.console import Console
from vtk_cli.engine.pieces.results import ResultStore
from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.engine.signals import stop_requests
from vtk_cli.errors import UserError
from vtk_cli.files import write_json
from vtk_cli.models.spaces.cost import in_millions
from vtk_cli.models.spaces.space import SUPERNET, Shape, Space
from vtk_cli.search.candidates import Candidates
from vtk_cli.search.evolution import TRIES, Admits, Draw, Evolution, draw_within, within
from vtk_cli.search.evolution_settings import EvolutionSettings
from vtk_cli.search.judgement import Judgement
from vtk_cli.search.latency import Latency
from vtk_cli.search.options import LimitOptions
from vtk_cli.search.scores.combination import Combination

STATE = "evolution.json"
_TIMED = 30
"""So many architectures are timed before the limit of latency is held to be out of reach."""


@dataclass(frozen=True)
class Budget:
    """What architectures may cost, as networks of one shape.

    Args:
        options: the limits.
        space: whose architectures.
        shape: of the networks that are limited.
        latency: measures how long they take, where that is limited.
    """

    options: LimitOptions
    space: Space
    shape: Shape
    latency: Latency

    def admits(self) -> Admits:
        """Whether an architecture is within the limits."""
        limits, most = self.options.limits, self.options.max_latency
        cheap = within(limits, self.space.table(self.shape))
        if most is None:
            return cheap
        return lambda genes: cheap(genes) and self.latency.milliseconds(genes) <= most

    def draw(self) -> Draw:
        """Draws architectures that cost what the limits allow; latencies are left to `admits`."""
        return draw_within(self.space, self.options.limits, self.space.table(self.shape))

    def check(self, seed: int) -> None:
        """Refuse limits that no architecture meets, before anything is trained. Times nothing.

        Raises:
            UserError: none does.
        """
        limits, table = self.options.limits, self.space.table(self.shape)
        attainable = self.space.cost_range(self.shape)
        limits.check(attainable)
        draw, rng = self.draw(), np.random.default_rng(seed)
        if not any(limits.admit(table.cost(draw(rng))) for _ in range(TRIES)):
            macs, params = (" to ".join(map(in_millions, span)) for span in (attainable.macs, attainable.params))
            what = f"no architecture of {self.space.name} meets all limits at once"
            fix = f"give wider ones; attainable are {macs} multiply-accumulates and {params} parameters"
            raise UserError(what, _flags(self.options), fix)

    def check_latency(self, seed: int) -> None:
        """Refuse a latency that none of some architectures has, the cheapest among them, before anything is trained.

        Raises:
            UserError: none has.
        """
        most, table = self.options.max_latency, self.space.table(self.shape)
        if most is None:
            return
        draw, rng = self.draw(), np.random.default_rng(seed)
        tried = sorted((draw(rng) for _ in range(_TIMED)), key=lambda genes: table.cost(genes).macs)
        times = []
        for genes in dict.fromkeys(tried):
            times.append(self.latency.milliseconds(genes))
            if times[-1] <= most:
                return
        what = f"limit {most:g} ms is below the {min(times):.3g} ms of the fastest of {len(times)} architectures"
        raise UserError(what, "--max-latency", f"they take up to {max(times):.3g} ms here; give a higher one")


def budget_of(options: LimitOptions, space: Space, supernet: Shape, device: torch.device, store: ResultStore) -> Budget:
    """The limits, for networks of the form that the options name.

    Args:
        options: the limits.
        space: whose architectures.
        supernet: the shape of the supernet, whose images and classes the networks have.
        device: where latencies are measured.
        store: where they are kept.

    Raises:
        UserError: the space has no such form.
    """
    form = options.form or space.alone
    if form == SUPERNET:
        raise UserError("is no network that is trained by itself", f"--form {form}", "name another form")
    shape = space.shape(form, supernet.classes)
    if shape.resolution == space.forms[SUPERNET].resolution:  # it is for the same images
        shape = replace(shape, resolution=supernet.resolution)
    return Budget(options, space, shape, Latency(space, shape, device, store))


def evolve(
    candidates: Candidates,
    settings: EvolutionSettings,
    judgement: Judgement,
    budget: Budget,
    *,
    folder: Path | None,
    console: Console,
    share: Share = WHOLE,
) -> Evolution:
    """Search to the last generation, or go on with a search that was interrupted.

    Args:
        candidates: measures.
        settings: of the search.
        judgement: what they are judged by.
        budget: which architectures are allowed.
        folder: of the run, for the state; None keeps none: everything is found again in the store.
        console: shows the progress.
        share: with which measurements of a generation to begin, and whether to make any.

    Raises:
        UserError: no architecture is within the limits; the search that was begun is another; the share makes nothing,
            and measurements are missing.
        Preempted, KeyboardInterrupt: a signal came; scores and generations are kept.
    """
    evolution = _begun(folder, budget, settings, judgement.combination)
    left = settings.population * (settings.generations - evolution.generation)
    with stop_requests() as stop, console.progress("architectures", left) as progress:
        while asked := evolution.ask():
            status = _status(evolution)
            found = candidates.measured(asked, judgement.needs, stop, lambda: progress.advance(1, status), share)  # noqa: B023 - called at once
            metrics = (judgement.metrics(one) for one in found)
            evolution.tell(dict(zip(asked, metrics, strict=True)))
            if folder is not None:
                write_json(folder / STATE, evolution.state())
    if evolution.exhausted:
        console.note(f"the search ended after {evolution.generation} generations: nothing new is within the limits")
    return evolution


def _begun(folder: Path | None, budget: Budget, settings: EvolutionSettings, score: Combination) -> Evolution:
    try:
        state = None if folder is None else json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        state = None
    space, admits, draw = budget.space, budget.admits(), budget.draw()
    if state is None:
        return Evolution(space, settings, score, admits, draw=draw)
    return Evolution.from_state(space, settings, score, admits, state, draw=draw)


def _flags(options: LimitOptions) -> str:
    given = {"--max-flops": options.max_flops, "--min-flops": options.min_flops, "--max-params": options.max_params}
    return " ".join(flag for flag, value in given.items() if value is not None)


def _status(evolution: Evolution) -> str:
    best = evolution.history[-1].score if evolution.history else None
    return f"generation {evolution.generation + 1}" + ("" if best is None else f", best {best:.6g}")
