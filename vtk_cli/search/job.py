"""The story of `vtk search run`, top to bottom, and of its stages by themselves.

A supernet is trained on one half of the training images; architectures are judged with its weights on the other half;
evolution looks for the best within the limits; the winner is trained from scratch on all training images.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.engine.pieces.assembly import end_shard, require_place
from vtk_cli.engine.pieces.sharding import work_on_devices
from vtk_cli.engine.processes.distributed import World, join_world, shared_run
from vtk_cli.engine.run_folder import SUMMARY, RunFolder
from vtk_cli.engine.signals import StopRequest
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import disk_errors, make_folder
from vtk_cli.models.spaces.architecture import Architecture, write_architecture
from vtk_cli.options import flag_name, option_fields
from vtk_cli.search.candidates import KEPT
from vtk_cli.search.evolution import Evolution
from vtk_cli.search.evolution_stage import Budget, budget_of, evolve
from vtk_cli.search.measuring import candidates_of, result_store
from vtk_cli.search.options import StoreOptions
from vtk_cli.search.outcome import ARCHITECTURE, Outcome, conclude
from vtk_cli.search.plan import search_rows, show_plan, supernet_rows
from vtk_cli.search.retraining import Retrained, retrain
from vtk_cli.search.scored import Scores
from vtk_cli.search.supernet_file import SupernetRun, open_supernet
from vtk_cli.search.supernet_stage import prepare, train_supernet
from vtk_cli.search.taking_over import take_over
from vtk_cli.search.verb_options import EvolveOptions, ImportOptions, SearchOptions
from vtk_cli.search.winner import Winner, check_retraining, retraining_of, winner_of

RETRAINED = "retrained"
"""The folder of the winner's training, in that of the run."""
_MAY_CHANGE = {
    "device",
    "workers",
    "checkpoint-seconds",
    "skip-nonfinite",
    "score-batch-size",
    "generations",
    "parallel",
} | {flag_name(name) for name in set(option_fields(StoreOptions)) - {"seed", "out"}}
"""Options that may differ when a run goes on: what was computed before stays true."""


def search(options: SearchOptions, console: Console) -> ExitCode:
    """The whole search, or its plan.

    Raises:
        UserError: options and images do not go together.
        JobError: a loss is not finite, or the disk is full; what was finished stays.
        Preempted, KeyboardInterrupt: a signal came; the state is saved.
    """
    with join_world(options.device, options.parallel) as world:
        face = console if world.is_main else Console(quiet=True)
        prepared = prepare(options, face)
        _check_devices(options, world)
        check_retraining(options, prepared.space)
        budget = budget_of(options, prepared.space, prepared.shape, world.device, result_store(options.store))
        budget.check(options.seed)
        if options.dry_run:
            rows = [*supernet_rows(options, prepared, world), *search_rows(options, budget)]
            world.on_main(lambda: show_plan(rows, options.as_config(), face))
            return ExitCode.DONE
        budget.check_latency(options.seed)
        name = f"{options.data_name}-{prepared.space.name}"
        with shared_run(world, "search run", name, options, face, may_change=_MAY_CHANGE) as run:
            supernet = train_supernet(options, prepared, run.path, world, face, sync_bn=options.sync_bn)
            evolving = _evolving(options, supernet)
            evolution, scores = _searched(evolving, supernet, budget, run.path, world=world, console=face)
            winner = winner_of(scores, supernet, fit_width=options.fit_width)
            retrained = _retrained(options, winner, run, world, face) if options.retrain else None
            outcome = Outcome(supernet, evolution, scores, winner, retrained)
            world.on_main(lambda: conclude(outcome, run, face, options.as_config()))
    return ExitCode.DONE


def supernet_alone(options: ImportOptions, console: Console) -> ExitCode:
    """Train a supernet, or take over one that others trained.

    Raises:
        UserError, JobError, Preempted, KeyboardInterrupt: see `search`.
    """
    with join_world(options.device, options.parallel) as world:
        face = console if world.is_main else Console(quiet=True)
        prepared = prepare(options, face)
        if options.dry_run:
            world.on_main(lambda: show_plan(supernet_rows(options, prepared, world), options.as_config(), face))
            return ExitCode.DONE
        name = f"{options.data_name}-{prepared.space.name}"
        with shared_run(world, "search supernet", name, options, face, may_change=_MAY_CHANGE) as run:
            if options.weights is not None:
                world.on_main(lambda: take_over(options, prepared, run.path, face))
            supernet = train_supernet(options, prepared, run.path, world, face, sync_bn=options.sync_bn)
            world.on_main(lambda: _tell_supernet(supernet, run, face))
    return ExitCode.DONE


def evolve_alone(options: EvolveOptions, console: Console) -> ExitCode:
    """Search with a supernet that is trained: by itself, as one task of many, or the plan.

    Raises:
        UserError, JobError, Preempted, KeyboardInterrupt: see `search`.
    """
    with join_world(options.device) as world:
        face = console if world.is_main else Console(quiet=True)
        supernet = open_supernet(options.supernet)
        budget = budget_of(options, supernet.space, supernet.shape, world.device, result_store(options.store))
        _check_devices(options, world)
        budget.check(options.seed)
        if options.dry_run:
            world.on_main(lambda: show_plan(search_rows(options, budget), options.as_config(), face))
            return ExitCode.DONE
        require_place(options)
        budget.check_latency(options.seed)

        def assemble() -> Path:
            with shared_run(world, "search evolve", supernet.name, options, face, may_change=_MAY_CHANGE) as run:
                evolution, scores = _searched(options, supernet, budget, run.path, world=world, console=face)
                outcome = Outcome(supernet, evolution, scores, winner_of(scores, supernet), None)
                world.on_main(lambda: conclude(outcome, run, face, options.as_config()))
            return run.path / SUMMARY

        if options.shard is None:
            assemble()
            return ExitCode.DONE
        evolution, _ = _searched(options, supernet, budget, None, world=world, console=face)
        keys, folder = [str(supernet.sha256), *map(str, evolution.scored)], result_store(options.store).folder
        return end_shard(options, "search evolve", keys, folder, assemble, kept="architectures", console=face)


def _check_devices(options: SearchOptions | EvolveOptions, world: World) -> None:
    if (options.devices or options.shard) and world.size > 1:
        what = f"{world.size} processes share the work already"
        raise UserError(what, "--devices" if options.devices else "--shard", "leave it out, or start one process")


def _evolving(options: SearchOptions, supernet: SupernetRun) -> EvolveOptions:
    """The search of a run, as the options of the search alone."""
    known = {field.name for field in fields(EvolveOptions)} - {"supernet"}
    values = {name: getattr(options, name) for name in known}
    return EvolveOptions(**values, supernet=supernet.folder)


def _searched(
    options: EvolveOptions,
    supernet: SupernetRun,
    budget: Budget,
    folder: Path | None,
    *,
    world: World,
    console: Console,
) -> tuple[Evolution, Scores]:
    """The search, and the scores of all architectures that it came across."""
    if options.devices and world.is_main:
        work_on_devices("search evolve", options, console, KEPT)
    judgement = options.judgement
    candidates = candidates_of(
        supernet,
        judgement,
        judgement.needs,
        store=result_store(options.store),
        device=world.device,
        console=console,
    )
    settings = options.evolution(official=options.official_quirks, genes=supernet.space.length)
    own = folder if world.is_main else None
    evolution = evolve(candidates, settings, judgement, budget, folder=own, console=console, share=options.share)
    measured = candidates.measured(evolution.scored, judgement.needs, StopRequest())
    found = dict(zip(evolution.scored, measured, strict=True))
    return evolution, Scores.of(found, supernet.space, budget.shape, judgement)


def _retrained(options: SearchOptions, winner: Winner, run: RunFolder, world: World, console: Console) -> Retrained:
    space, place = winner.architecture.space, RunFolder.follow(run.path / RETRAINED)
    genes, training = winner.architecture.genes, retraining_of(options, winner)
    world.on_main(lambda: _make_room(place.path, winner))
    return retrain(
        training, space, genes, winner.shape, world=world, console=console, run=place, sync_bn=options.sync_bn
    )


def _make_room(folder: Path, winner: Winner) -> None:
    """Remove the training of an earlier winner: a search that goes on for more generations may find a better one."""
    network, note = Architecture(winner.architecture.space, winner.architecture.genes), folder / ARCHITECTURE
    with suppress(OSError, ValueError):
        if json.loads(note.read_text(encoding="utf-8")) == network.as_json(winner.shape):
            return
    with disk_errors(folder):
        if folder.exists():
            shutil.rmtree(folder)
    make_folder(folder)
    write_architecture(note, network, winner.shape)


def _tell_supernet(supernet: SupernetRun, run: RunFolder, console: Console) -> None:
    summary = {
        "space": supernet.space.name,
        "supernet": str(supernet.final),
        "sha256": supernet.sha256["final"],
        "classes": supernet.shape.classes,
    }
    run.finish(summary)
    console.text(f"The supernet is in {supernet.final}")
    console.text(f"Search with it: vtk search evolve --supernet {run.path}")
    console.emit(summary)
