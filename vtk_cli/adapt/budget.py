"""How many labels are asked for, in all and in each round. Nothing heavy is imported here."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from vtk_cli.console import Console
from vtk_cli.errors import UserError

COLD_START = 3
"""Labels a class below which the few first labels are better spread than ranked."""
_SHARE = re.compile(r"(\d+(?:\.\d+)?) ?%")


def parse_budget(text: str, pool: int, *, where: str = "--budget") -> int:
    """How many labels a budget means: `5%` of the pool, rounded up, or `40` images; `5` is five images.

    Args:
        text: what the user gave.
        pool: images in the target pool.
        where: the option or field, for messages.

    Raises:
        UserError: it is neither, nothing, or more than the pool has.
    """
    said = text.strip()
    share = _SHARE.fullmatch(said)
    if share is None and not (said.isascii() and said.isdigit()):
        raise UserError(f"{text!r} is no budget", where, "give images (40) or a share of the pool (5%)")
    total = share_of(Fraction(share[1]), pool) if share else int(said)
    if total < 1:
        raise UserError(f"a budget of {text} buys no label", where, f"give 1 to {pool} images, or a share such as 5%")
    if total > pool:
        raise UserError(f"{text} is {total} labels, but the pool has {pool} images", where, f"give at most {pool}")
    return total


def share_of(percent: Fraction | int, pool: int) -> int:
    """`percent` of `pool` images, rounded up: 1 % of 2,427 is 25."""
    return math.ceil(Fraction(percent) * pool / 100)


def round_sizes(total: int, rounds: int) -> tuple[int, ...]:
    """A budget over rounds: equal whole parts, what is left over in the last (as LADA, arXiv 2208.12856, does).

    Raises:
        ValueError: `rounds` is not in 1..`total`.
    """
    if not 1 <= rounds <= total:
        raise ValueError(f"{total} labels in {rounds} rounds")
    each = total // rounds
    return (*[each] * (rounds - 1), total - each * (rounds - 1))


def plan_rounds(text: str, pool: int, rounds: int, classes: int, console: Console) -> tuple[int, int]:
    """The budget and the rounds of a run, with what a user should know of them said.

    Args:
        text: the budget, as `parse_budget` reads it.
        pool: images in the target pool.
        rounds: asked for.
        classes: how many there are.
        console: told of fewer labels than rounds, and of fewer than `COLD_START` a class.

    Returns:
        Labels in all, and rounds: no more than there are labels.

    Raises:
        UserError: see `parse_budget`; or there are no rounds.
    """
    if rounds < 1:
        raise UserError(f"{rounds} rounds are out of range", "--rounds", "give at least 1")
    total = parse_budget(text, pool)
    if total < rounds:
        share = "" if "%" in text else f"; for a share of the pool write {text.strip()}%"
        console.warn(f"{total} labels are fewer than {rounds} rounds: {total} rounds of one label{share}")
    if total < COLD_START * classes:
        console.warn(
            f"{total} labels for {classes} classes are fewer than {COLD_START} a class: "
            "queries that spread (clue) or are blind (random) are safer than those that rank"
        )
    return total, min(rounds, total)
