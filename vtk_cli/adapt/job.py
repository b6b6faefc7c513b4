"""The story of `vtk adapt start` and `vtk adapt run`, top to bottom.

The domains are opened and written down; the network learns the source and adapts without labels (round 0). `run` goes
on: the model asks, a simulated person who knows the target's labels answers what was asked, the model trains, until the
budget is spent. Made by hand with `query`, `label` and `train`, the same steps come to the same end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from signal import Signals

from vtk_cli.adapt.asking import DETAILS
from vtk_cli.adapt.labels import Given, check_answers, question_of
from vtk_cli.adapt.ledger import LabelRow, standing
from vtk_cli.adapt.manifest import read_manifest
from vtk_cli.adapt.options import AdaptOptions
from vtk_cli.adapt.oracle import Oracle
from vtk_cli.adapt.outcome import show_standing, standing_summary
from vtk_cli.adapt.plan import show_plan
from vtk_cli.adapt.preparation import Lab
from vtk_cli.adapt.questions import ask_round, write_audit, write_question
from vtk_cli.adapt.report import write_report
from vtk_cli.adapt.rounds import begin, learner_at, train_round
from vtk_cli.adapt.run_files import RunFiles, append_rows, load_run, now, save_state
from vtk_cli.adapt.session import MAY_CHANGE, Session, held_together
from vtk_cli.adapt.state import AdaptState, require, settled
from vtk_cli.adapt.undoing import finish_undo
from vtk_cli.adapt.verb_options import StartOptions
from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import World, join_world, shared_run
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.signals import StopRequest, stop_requests
from vtk_cli.errors import ExitCode

KEPT = "finished steps"


def start(options: StartOptions, console: Console) -> ExitCode:
    """Train on the source, adapt without labels: the whole command, or its plan.

    Raises:
        UserError: options, data and run folder do not go together, or the run is further already.
        JobError: the loss is not finite, or the disk is full; the last checkpoint stays.
        Preempted, KeyboardInterrupt: a signal came; the state is saved.
    """
    options = replace(options, out=options.run or options.out)
    with join_world(options.device, options.parallel) as world:
        face = console if world.is_main else Console(quiet=True)
        if options.dry_run:
            world.on_main(lambda: show_plan(options, world, face))
            return ExitCode.DONE
        with _owned("adapt start", options, world, face) as run:
            files = RunFiles(run.path)

            def check() -> None:
                if files.state.is_file() and (before := load_run(files)[0]).phase != "source_ready":
                    require(before, "start", str(run.path))

            world.on_main(check)
            lab, state, rows = _begun(options, files, world, face)
            if state.phase == "source_ready":
                train_round(lab, files, state, rows)
            world.on_main(lambda: tell(options, files, run, face))
    return ExitCode.DONE


def run_simulated(options: StartOptions, console: Console) -> ExitCode:
    """All rounds, with the target's own labels for answers: the whole command, or its plan.

    Raises:
        UserError: as `start`; or the target has no labels.
        JobError, Preempted, KeyboardInterrupt: as `start`.
    """
    options = replace(options, out=options.run or options.out)
    with join_world(options.device, options.parallel) as world:
        face = console if world.is_main else Console(quiet=True)
        if options.dry_run:
            world.on_main(lambda: show_plan(options, world, face))
            return ExitCode.DONE
        with _owned("adapt run", options, world, face) as run, stop_requests() as stop:
            files = RunFiles(run.path)
            lab, state, rows = _begun(options, files, world, face)
            simulate(lab, files, state, rows, stop)
            world.on_main(lambda: tell(options, files, run, face))
    return ExitCode.DONE


def simulate(
    lab: Lab,
    files: RunFiles,
    state: AdaptState,
    rows: Sequence[LabelRow],
    stop: StopRequest,
    *,
    write: bool = True,
) -> AdaptState:
    """Go on from wherever a run is to its end, with a simulated person.

    Args:
        lab: of the run; its target is labelled.
        files: its folder.
        state, rows: as they are on disk.
        stop: obeyed between two steps.
        write: the files that people label with, too.

    Raises:
        UserError: the target has no labels.
    """
    oracle, world = Oracle(lab.domains.truth, lab.class_names), lab.circumstances.processes
    if unanswered := [name for name in state.audit if name not in standing(rows)]:
        given = [one for one in oracle.audit(state) if one.sample_id in unanswered]
        rows = _answered(lab, files, state, rows, given)
    while state.phase != "done":
        _obey(stop, world)
        if state.phase == "adapted":
            learner = learner_at(lab, files, state.model)
            state, chosen = ask_round(lab, learner, state, rows)
            if write:
                write_question(lab, learner, files, state, chosen)
            _save(files, state, world)
        elif state.phase == "await_labels":
            rows = _answered(lab, files, state, rows, oracle.answers(state, rows))
            state = settled(state, rows)
            _save(files, state, world)
        else:
            state = train_round(lab, files, state, rows)
    return state


def tell(options: AdaptOptions, files: RunFiles, run: RunFolder, console: Console) -> None:
    """Write the page and the summary of a run, and print where it stands."""
    state, rows = load_run(files)
    pool = _pool_ids(files)
    summary = standing_summary(files, state, rows, pool)
    page = write_report(files, options, summary, plots=run.plots)
    show_standing(summary, console)
    console.text(f"Look at {page}")
    whole = {**summary, "report": str(page)}
    run.finish(whole)
    console.emit(whole)


@contextmanager
def _owned(command: str, options: StartOptions, world: World, console: Console) -> Iterator[RunFolder]:
    with shared_run(world, command, options.name, options, console, may_change=MAY_CHANGE) as run:
        files = RunFiles(run.path)
        try:
            with held_together(files, world):
                yield run
        finally:
            if world.is_main and not files.state.is_file():  # nothing came of it: what is left is to be nothing too
                files.lock.unlink(missing_ok=True)


def _begun(
    options: StartOptions, files: RunFiles, world: World, console: Console
) -> tuple[Lab, AdaptState, tuple[LabelRow, ...]]:
    """A run after its first step, which is made where it was not."""
    state, rows = world.on_main(lambda: _found(files))
    if state is None or state.phase == "new":
        lab, state = begin(options, files, console, world=world)
    else:
        lab = Session(options, files, state, rows, _pool_ids(files)).lab(console, world=world)
    asked = state
    if state.audit:
        world.on_main(lambda: None if (files.audit / DETAILS).is_file() else write_audit(lab, files, asked))
    return lab, state, rows


def _found(files: RunFiles) -> tuple[AdaptState | None, tuple[LabelRow, ...]]:
    if not files.state.is_file():
        return None, ()
    finish_undo(files)
    return load_run(files)


def _answered(
    lab: Lab, files: RunFiles, state: AdaptState, rows: Sequence[LabelRow], given: Sequence[Given]
) -> tuple[LabelRow, ...]:
    question = question_of(state, lab.pool.ids, lab.class_names)

    def answer() -> tuple[LabelRow, ...]:
        answers = check_answers(given, question, rows, origin="oracle", time=now())
        append_rows(files.labels, answers.rows)
        return answers.rows

    return (*rows, *lab.circumstances.processes.on_main(answer))


def _save(files: RunFiles, state: AdaptState, world: World) -> None:
    world.on_main(lambda: save_state(files, state))


def _obey(stop: StopRequest, world: World) -> None:
    """A signal that any process got counts for all."""
    (number,) = world.largest(int(stop.signal or 0))
    stop.signal = Signals(number) if number else None
    stop.raise_if_requested(KEPT)


def _pool_ids(files: RunFiles) -> tuple[str, ...]:
    return tuple(read_manifest(files.manifest).entries)
