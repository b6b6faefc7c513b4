"""The story of `vtk prune run`, top to bottom.

Real images are opened and their features' moments measured; a generator is drawn from a seed; the engine searches for
the weights to keep; the generator is rebuilt from its ticket, measured beside its baselines, written and shown.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import cast

from safetensors.torch import load_file
from torch import nn

from vtk_cli.console import Console
from vtk_cli.engine.metrics import Row
from vtk_cli.engine.pieces.results import Result
from vtk_cli.engine.processes.distributed import join_world, shared_run
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.signals import stop_requests
from vtk_cli.errors import ExitCode
from vtk_cli.files import require_folder
from vtk_cli.models.best_weights import BestWeights
from vtk_cli.models.described_weights import save_described
from vtk_cli.prune.generators import Generator
from vtk_cli.prune.outcome import conclude
from vtk_cli.prune.plan import show_plan
from vtk_cli.prune.preparation import (
    Arm,
    Lab,
    Prepared,
    TicketPolicy,
    open_lab,
    picture_noise,
    prepare,
    validation_noise,
)
from vtk_cli.prune.report import Outcome
from vtk_cli.prune.trials import Trials, arm_of, floor_of, measured, quality_of, run_search, settle, theta_sha256
from vtk_cli.prune.verb_options import Baseline, RunVerbOptions
from vtk_cli.prune.watching import Strips, WatchedSearch

BEST = "best-search.safetensors"
_CLOSENESS = "closeness"
"""The distance times -1: what is kept is what has most of it."""
_MAY_CHANGE = {"device", "checkpoint-seconds", "skip-nonfinite", "baselines", "export", "codec", "parallel"}
"""Options that may differ when a run goes on: the search does not depend on them."""


def search_ticket(options: RunVerbOptions, console: Console) -> ExitCode:
    """Search: the whole command, or its plan.

    Raises:
        UserError: options, images, networks and run folder do not go together.
        JobError: the loss is not finite, or the disk is full; the last checkpoint stays.
        Preempted, KeyboardInterrupt: a signal came; the state is saved.
    """
    with join_world(options.device, options.parallel) as world:
        face = console if world.is_main else Console(quiet=True)
        if options.dry_run:
            world.on_main(lambda: show_plan(options, world, face))
            return ExitCode.DONE
        world.on_main(lambda: require_folder(options.out or Path("runs")))  # before networks are trained
        lab = open_lab(options, world.device, face, choose=options.eval_every is not None, world=world)
        prepared = prepare(lab, arm_of(options), TicketPolicy(options.store_weights, options.allow_framework_rng))
        name = f"{options.data_name}-{options.gen}"
        with shared_run(world, "prune run", name, options, face, may_change=_MAY_CHANGE) as run:
            _search(options, lab, prepared, run, face)
    return ExitCode.DONE


def _search(options: RunVerbOptions, lab: Lab, prepared: Prepared, run: RunFolder, console: Console) -> None:
    arm = prepared.arm
    network = cast("Generator", prepared.search.network)
    strips = Strips(run.path / "samples", picture_noise(arm.seed, network.nz), lab.device)
    best = BestWeights(run.path / BEST, _CLOSENESS, _save_search)

    def hear(row: Row, model: nn.Module, averaged: nn.Module | None) -> None:
        strips(row, model, averaged)
        if options.select == "best":
            best(row, model, averaged)

    before = theta_sha256(prepared)
    result = run_search(
        prepared,
        lab,
        console,
        folder=run.path,
        evaluate=lambda model: _looked_at(options, lab, prepared, model),
        after=hear,
    )
    chosen = _take_best(prepared, best, run.path / BEST) if options.select == "best" else None
    settled = settle(prepared, lab, before)
    quality = measured(settled.generator, lab, arm.seed, console)
    baselines = _baselines(options, lab, arm, console)

    def tell() -> None:
        outcome = Outcome(
            arm=arm,
            settled=settled,
            quality=quality,
            floor=floor_of(lab, console),
            baselines=baselines,
            history=() if result is None else result.history,
            steps=0 if result is None else result.steps,
            seconds=None if result is None else result.train_seconds,
            chosen=chosen,
        )
        conclude(options, lab, outcome, strips, run=run, console=console)

    lab.processes.on_main(tell)


def _looked_at(options: RunVerbOptions, lab: Lab, prepared: Prepared, model: nn.Module) -> dict[str, float]:
    """What a row of a search holds: its gaps, and where asked the distance to images that the report does not use."""
    row, watched = prepared.watch(model), cast("WatchedSearch", model)
    if options.eval_every is None or lab.validation is None:
        return row
    looks, length = int(watched.looks), prepared.batches.steps_per_epoch
    if looks % max(1, options.eval_every // length) and looks < prepared.plan.epochs:
        return row
    noise = validation_noise(prepared.arm.seed, prepared.batches.nz, options.samples)
    real = lab.summary(lab.validation, Console(quiet=True))
    k = lab.options.neighbours
    found = quality_of(watched, noise, real, lab.embedder, k=k, console=None, world=lab.world)
    return {**row, "distance": found.frechet, _CLOSENESS: -found.frechet}


def _baselines(options: RunVerbOptions, lab: Lab, arm: Arm, console: Console) -> list[Result]:
    """Each is made by one process, by itself; they take them in turn."""
    arms = [baseline_arm(one, arm) for one in options.compared]
    if not arms:
        return []
    with stop_requests() as stop:
        return Trials.of(replace(lab, world=None), None, console).results(arms, stop)


def baseline_arm(baseline: Baseline, arm: Arm) -> Arm:
    """What a search is compared with: as many weights, the same seed."""
    if baseline == Baseline.UNTRAINED:
        return Arm("random", Fraction(1), arm.scope, arm.seed)
    if baseline == Baseline.DENSE:
        return Arm("dense", Fraction(1), arm.scope, arm.seed)
    return Arm("random" if baseline == Baseline.RANDOM else "sparse", arm.keep, arm.scope, arm.seed)


def _save_search(path: Path, model: nn.Module, note: dict[str, str]) -> None:
    save_described(path, cast("WatchedSearch", model).search.state_dict(), note)


def _take_best(prepared: Prepared, best: BestWeights, path: Path) -> int | None:
    """Go back to the state that did best; the updates after which it was."""
    kept = best.kept()
    if kept is None:
        return None
    prepared.search.load_state_dict(load_file(path))
    return int(kept["epoch"]) * prepared.batches.steps_per_epoch
