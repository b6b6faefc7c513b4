"""The verbs of a round, with a person in the loop: `query`, `label`, `train`, `undo`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from vtk_cli.adapt.job import tell
from vtk_cli.adapt.labels import Answers, Given, check_answers, meant, question_of, read_answers
from vtk_cli.adapt.ledger import LabelRow, Origin, standing
from vtk_cli.adapt.manifest import read_manifest
from vtk_cli.adapt.oracle import Oracle
from vtk_cli.adapt.outcome import standing_summary
from vtk_cli.adapt.questions import ask_more, ask_round, asked_before, extended, write_question, written_question
from vtk_cli.adapt.rounds import learner_at, train_round
from vtk_cli.adapt.run_files import append_rows, csv_text, now, read_classes, save_state
from vtk_cli.adapt.session import Session, at_work, began
from vtk_cli.adapt.sorted_folders import read_sorted
from vtk_cli.adapt.state import AdaptState, next_command, pending, require, require_answers, settled, withdraw
from vtk_cli.adapt.undoing import undo_round
from vtk_cli.adapt.verb_options import LabelOptions, QueryOptions, TrainOptions, UndoOptions
from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import join_world
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import write_text

GIVEN = "labels_in.csv"


def query(options: QueryOptions, console: Console) -> ExitCode:
    """Ask about images; asked again, the same ones.

    Raises:
        UserError: it is not the time, nothing is left to ask, or the model has not what the strategy asks.
    """
    with at_work(options.run, console, options.device) as session:
        state, rows = session.state, session.rows
        if not options.further:
            require(state, "query", session.name)
        is_open = state.phase != "adapted"
        if is_open and not options.redo and (options.n is not None or options.strategy is not None):
            what = f"round {state.round} is asked already"
            raise UserError(what, session.name, "draw it anew with --redo, or leave out --n and --strategy")
        if not is_open and (options.redo or options.further):
            raise UserError("no round is open", session.name, f"next: {next_command(state, session.name)}")
        if (
            is_open
            and not (options.redo or options.further or options.copies or options.blind)
            and written_question(session.files, state)
        ):
            return _asked(session, state, console)
        _ask(session, options, state, rows, console)
    return ExitCode.DONE


def label(options: LabelOptions, console: Console) -> ExitCode:
    """Take labels, all of a file or none of it.

    Raises:
        UserError: one of them is wrong, or it is not the time.
    """
    with at_work(options.run, console) as session:
        state, rows = session.state, session.rows
        names = read_classes(session.files)
        origin: Origin = "oracle" if options.oracle else "human"
        given = _given(options, session, names, console)
        if not given or any(one.sample_id not in state.audit for one in given):
            require(state, "label", session.name)
        question = question_of(state, session.pool, names)
        answers = check_answers(
            given, question, rows, origin=origin, time=now(), allow_extra=options.allow_extra, replace=options.replace
        )
        if answers.rows and state.round:
            _keep_given(session, given)
        append_rows(session.files.labels, answers.rows)
        rows = (*rows, *answers.rows)
        state = settled(state, rows)
        save_state(session.files, state)
        _tell_answers(session, state, rows, answers, console)
    return ExitCode.DONE


def train(options: TrainOptions, console: Console) -> ExitCode:
    """Train on the answers of the round.

    Raises:
        UserError: no answers are in, or some are missing, or it is not the time.
        JobError, Preempted, KeyboardInterrupt: as the stages.
    """
    before = began(options.run)
    with join_world(options.device or before.device, options.parallel or before.parallel) as world:
        face = console if world.is_main else Console(quiet=True)
        with at_work(options.run, face, world=world) as session:
            require_answers(session.state, session.rows, partial=options.allow_partial, run=session.name)
            lab = session.lab(face, look=True, world=world)
            train_round(lab, session.files, session.state, session.rows)
            if (run := session.run) is not None:
                world.on_main(lambda: tell(session.options, session.files, run, face))
    return ExitCode.DONE


def undo(options: UndoOptions, console: Console) -> ExitCode:
    """Take the last round back.

    Raises:
        UserError: there is none.
    """
    with at_work(options.run, console) as session:
        state = undo_round(session.files)
        console.note(f"round {state.round + 1} is taken back; its labels stay in labels.csv as undone")
        if session.run is not None:
            tell(session.options, session.files, session.run, console)
    return ExitCode.DONE


def _ask(
    session: Session, options: QueryOptions, state: AdaptState, rows: tuple[LabelRow, ...], console: Console
) -> None:
    """Choose, write, and note the question; one that is asked already is written again."""
    files = session.files
    lab = session.lab(console, options.device)
    learner = learner_at(lab, files, state.model)
    if options.further:
        before = state.history[-1].asked
        state, chosen = ask_more(lab, learner, state, rows)
        chosen = extended(before, chosen)
    elif state.phase == "adapted" or options.redo:
        draw = 0
        if state.phase != "adapted":
            draw = state.history[-1].draw + 1
            state = withdraw(state, rows)
        state, chosen = ask_round(lab, learner, state, rows, strategy=options.strategy, wanted=options.n, draw=draw)
    else:
        chosen = asked_before(lab, learner, state, rows)
    write_question(lab, learner, files, state, chosen, blind=options.blind, copies=options.copies)
    save_state(files, state)
    _asked(session, state, console)


def _asked(session: Session, state: AdaptState, console: Console) -> ExitCode:
    record, folder = state.history[-1], session.files.round(state.round)
    summary: dict[str, Any] = {
        **standing_summary(session.files, state, session.rows, session.pool),
        "asked": list(record.asked),
        "table": str(folder / "query.csv"),
        "page": str(folder / "label.html"),
        "sheets": [str(path) for path in sorted(folder.glob("contact_sheet_*.png"))],
    }
    console.text(f"Round {record.round}: {len(record.asked)} images by {record.strategy}")
    console.text(f"Label them in {folder / 'label.html'}, or fill the column label of {folder / 'query.csv'}")
    console.text(f"next: {summary['next']}")
    _finish(session, summary, console)
    return ExitCode.DONE


def _given(options: LabelOptions, session: Session, names: Sequence[str], console: Console) -> tuple[Given, ...]:
    state, rows = session.state, session.rows
    if options.file is not None:
        return read_answers(options.file)
    if options.from_folders is not None:
        asked = state.open_round.asked if state.open_round else ()
        pool = session.lab(console, "cpu").pool
        return read_sorted(options.from_folders, pool, read_manifest(session.files.manifest), (*asked, *state.audit))
    unanswered = [name for name in state.audit if name not in standing(rows)]
    if not unanswered:
        require(state, "label", session.name)
    lab = session.lab(console, "cpu")
    if options.oracle:
        oracle = Oracle(lab.domains.truth, lab.class_names)
        audit = [one for one in oracle.audit(state) if one.sample_id in unanswered]
        return (*audit, *oracle.answers(state, rows))
    waiting = (*unanswered, *pending(state, rows))
    return _asked_here([(name, lab.pool.path(name)) for name in waiting], names, console)


def _asked_here(waiting: Sequence[tuple[str, str]], names: Sequence[str], console: Console) -> tuple[Given, ...]:
    """Ask on the terminal, image by image; an empty line ends it, and what was said stays."""
    console.note(f"classes: {', '.join(names)}; or ?, bad, other; an empty line ends")
    given: list[Given] = []
    for number, (name, path) in enumerate(waiting, 1):
        while True:
            said = typer.prompt(f"{number}/{len(waiting)} {path}", default="", show_default=False, err=True).strip()
            if not said:
                return tuple(given)
            try:
                meant(said, names, name)
            except UserError as error:
                console.warn(str(error))
                continue
            given.append(Given(name, said, "terminal"))
            break
    return tuple(given)


def _keep_given(session: Session, given: Sequence[Given]) -> None:
    """What was handed in, beside the question it answers."""
    rows = [("sample_id", "label"), *((one.sample_id, one.label) for one in given if one.label)]
    write_text(session.files.round(session.state.round) / GIVEN, csv_text(rows))


def _tell_answers(
    session: Session, state: AdaptState, rows: tuple[LabelRow, ...], answers: Answers, console: Console
) -> None:
    asked = len(state.history[-1].asked) if state.open_round else 0
    summary: dict[str, Any] = {
        **standing_summary(session.files, state, rows, session.pool),
        "new": len(answers.rows),
        "repeated": answers.repeated,
        "extra": answers.extra,
        "missing": list(answers.missing),
        **answers.marks,
    }
    marks = ", ".join(f"{count} {name}" for name, count in answers.marks.items() if count)
    said = f"{len(answers.rows)} new answers" + (f" ({marks})" if marks else "")
    if answers.repeated:
        said += f", {answers.repeated} known already"
    console.text(said)
    if asked:
        console.text(f"{asked - len(answers.missing)} of {asked}, {len(answers.missing)} missing")
    console.text(f"next: {summary['next']}")
    _finish(session, summary, console)


def _finish(session: Session, summary: Mapping[str, Any], console: Console) -> None:
    if session.run is not None:
        session.run.finish(summary)
    console.emit(summary)
