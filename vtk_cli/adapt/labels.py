"""Labels as people hand them back: read, and held against what was asked.

A label is a class name or, where no class is called by a number, the number of a class. `?` or `skip` puts an image
back, `bad` takes it out of the pool, `other` says that it is of none of the classes; where a class is called so, write
`:skip`, `:bad`, `:other`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.adapt.ledger import BAD, MARKS, OTHER, SKIP, LabelRow, Origin, charged, standing
from vtk_cli.adapt.state import AdaptState
from vtk_cli.adapt.tables import read_table, read_text
from vtk_cli.errors import UserError

_WORDS: Mapping[str, str] = {"?": SKIP, "skip": SKIP, "bad": BAD, "other": OTHER} | {mark: mark for mark in MARKS}
SPREADSHEETS = ",;\t"
"""What spreadsheets part columns by."""
_NEEDED = ("sample_id", "label")


@dataclass(frozen=True, slots=True)
class Given:
    """An answer as it was given.

    Args:
        sample_id: of the image.
        label: the text; empty: none.
        where: file and line, for messages.
    """

    sample_id: str
    label: str
    where: str


@dataclass(frozen=True)
class Answers:
    """Answers that were held against the question.

    Args:
        rows: for the ledger; none for what it has already.
        repeated: how many it has already.
        missing: asked and still without an answer.
        extra: how many were not asked for.
        marks: how many are skipped, bad, other.
    """

    rows: tuple[LabelRow, ...]
    repeated: int
    missing: tuple[str, ...]
    extra: int
    marks: Mapping[str, int]


@dataclass(frozen=True)
class Question:
    """What answers are held against.

    Args:
        pool: every sample id of the target.
        asked: in the open round, answered or not.
        audit: images of the audit.
        class_names: in order.
        round: the open round, or the last.
        budget: labels that may be bought in all.
    """

    pool: Collection[str]
    asked: Sequence[str]
    audit: Sequence[str]
    class_names: tuple[str, ...]
    round: int
    budget: int


def question_of(state: AdaptState, pool: Collection[str], class_names: tuple[str, ...]) -> Question:
    """What a run asks now."""
    asked = state.open_round.asked if state.open_round else ()
    return Question(frozenset(pool), asked, state.audit, class_names, state.round, state.budget.total)


def read_answers(path: Path) -> tuple[Given, ...]:
    """Read a CSV file with at least the columns `sample_id` and `label`, or a JSON export of Label Studio.

    Commas, semicolons or tabs part the columns, as spreadsheets write them. A `query.csv` with its labels filled in is
    such a file.

    Raises:
        UserError: it is not readable, a column is missing, or a row has no sample id.
    """
    if path.suffix.lower() == ".json":
        return _label_studio(read_text(path), path)
    table = read_table(path, SPREADSHEETS)
    if absent := [name for name in _NEEDED if name not in table.columns]:
        what = f"has no column {' and no column '.join(absent)}"
        raise UserError(what, f"{path}:1", "give at least sample_id,label")
    given = []
    for line, row in table.rows:
        name, label = (row[column] for column in _NEEDED)
        if not name and not label:
            continue
        if not name:
            raise UserError(f"the label {label!r} has no sample_id", f"{path}:{line}")
        given.append(Given(name, label, f"{path}:{line}"))
    return tuple(given)


def check_answers(
    given: Sequence[Given],
    question: Question,
    rows: Sequence[LabelRow],
    *,
    origin: Origin = "human",
    time: str,
    allow_extra: bool = False,
    replace: bool = False,
) -> Answers:
    """Hold answers against the question; nothing is kept of a file in which one is wrong.

    Args:
        given: in the order of the file.
        question: what was asked.
        rows: of the ledger.
        origin: who answers what was asked.
        time: now, ISO 8601 in UTC.
        allow_extra: take labels of images that were not asked about, too.
        replace: let a label of the open round take the place of another one of it.

    Raises:
        UserError: an image is not of the target or was not asked about, a class is unknown or out of range, an image
            has two labels, or there are more labels than the budget has.
    """
    said = standing(rows)
    asked, audit = frozenset(question.asked), frozenset(question.audit)
    first: dict[str, tuple[Given, str]] = {}
    for one in given:
        if not one.label:
            continue  # not answered yet
        label = meant(one.label, question.class_names, one.where)
        before = first.setdefault(one.sample_id, (one, label))
        if before[1] != label:
            what = (
                f"{one.sample_id} has two labels: {before[0].label} ({before[0].where}) and {one.label} ({one.where})"
            )
            raise UserError(what, fix="keep one of them")
    found: list[LabelRow] = []
    repeated = extra = 0
    for name, (one, label) in first.items():
        _check_known(one, question, asked | audit, said, allow_extra=allow_extra)
        whose: Origin = "audit" if name in audit else origin if name in asked else "extra"
        before_row = said.get(name)
        if before_row is not None and before_row.label == label:
            repeated += 1
            continue
        if before_row is not None:
            _check_replaced(before_row, one, question, replace=replace)
        extra += whose == "extra"
        found.append(LabelRow(name, label, question.round, whose, time))
    _check_budget(question, (*rows, *found), said.keys() | {row.sample_id for row in found})
    answered = said.keys() | {row.sample_id for row in found}
    missing = tuple(name for name in question.asked if name not in answered)
    marks = {mark.removeprefix(":"): sum(row.label == mark for row in found) for mark in MARKS}
    return Answers(tuple(found), repeated, missing, extra, marks)


def meant(text: str, class_names: Sequence[str], where: str) -> str:
    """The class name or mark that a label means.

    Raises:
        UserError: there is no such class; the three closest are named.
    """
    said = text.strip()
    if said in class_names:
        return said
    if said.lower() in _WORDS:
        return _WORDS[said.lower()]
    numbered = any(name.isascii() and name.isdigit() for name in class_names)
    if said.isascii() and said.removeprefix("-").isdigit() and not numbered:
        number = int(said) if len(said) < 10 else -1
        if not 0 <= number < len(class_names):
            raise UserError(f"the label {said} is out of range", where, f"give 0 to {len(class_names) - 1}, or a name")
        return class_names[number]
    close = difflib.get_close_matches(said.lower(), [name.lower() for name in class_names], n=3, cutoff=0.0)
    names = [next(name for name in class_names if name.lower() == one) for one in close]
    raise UserError(f"unknown class {said!r}", where, f"the closest are {', '.join(names)}; or give ?, bad or other")


def rows_text(rows: Sequence[LabelRow]) -> list[list[str]]:
    """Rows as cells of `labels.csv`."""
    return [[row.sample_id, row.label, str(row.round), row.origin, row.time] for row in rows]


def _check_known(
    one: Given, question: Question, asked: frozenset[str], said: Mapping[str, LabelRow], *, allow_extra: bool
) -> None:
    name = one.sample_id
    if name not in question.pool:
        fix = difflib.get_close_matches(name, list(question.asked), n=1)
        raise UserError(
            f"{name} is no image of the target",
            one.where,
            f"did you mean {fix[0]}?" if fix else "take the ids of query.csv",
        )
    if name not in asked and not (allow_extra or name in said):
        raise UserError(f"{name} was not asked for", one.where, "leave it out, or use --allow-extra")


def _check_budget(question: Question, rows: Sequence[LabelRow], answered: Collection[str]) -> None:
    bought, waiting = charged(rows), sum(name not in answered for name in question.asked)
    if bought + waiting > question.budget:
        what = f"{bought} labels, and {waiting} that are asked for, are more than the budget of {question.budget}"
        raise UserError(what, fix="leave out labels that were not asked for")


def _check_replaced(before: LabelRow, one: Given, question: Question, *, replace: bool) -> None:
    now = f"{one.sample_id} is labelled {before.label.removeprefix(':')} since round {before.round}, not {one.label}"
    if before.round != question.round and before.label != SKIP:
        raise UserError(now, one.where, "what was trained on stays; undo that round to change it")
    if before.round == question.round and not replace:
        raise UserError(now, one.where, "give --replace to change it")


def _label_studio(text: str, path: Path) -> tuple[Given, ...]:
    """Read Label Studio's JSON export: the choice of each task, whose data names the `sample_id`."""
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not JSON ({error})", str(path)) from error
    if not isinstance(tasks, list):
        raise UserError("is no export of Label Studio", str(path), "export as JSON, or give a CSV file")
    given = []
    for number, task in enumerate(tasks, 1):
        where = f"{path} (task {number})"
        try:
            name, labels = task["data"]["sample_id"], _choices(task)
        except (KeyError, TypeError, AttributeError):
            name, labels = None, []
        if not isinstance(name, str):
            what = "the task has no data.sample_id, or other annotations than choices"
            raise UserError(what, where, "import the tasks that vtk adapt query wrote, and export as JSON")
        given += [Given(name, label, where) for label in labels]
    return tuple(given)


def _choices(task: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for annotation in task.get("annotations") or ():
        for result in annotation.get("result") or ():
            found += [str(choice) for choice in result.get("value", {}).get("choices") or ()]
        if annotation.get("was_cancelled"):
            found.append("?")
    return found
