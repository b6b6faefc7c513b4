"""From rows to a result: the scores with their intervals and controls, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vtk_cli.similarity.members import Member
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.sat import (
    Controls,
    Floats,
    SatMatrix,
    TransferBits,
    bootstrap_interval,
    control_warnings,
    controls,
    sat_matrix,
)
from vtk_cli.similarity.section import Section

_MOST_SHOWN = 12
"""Matrices of more networks are not printed on the terminal."""


@dataclass(frozen=True)
class Result:
    """The scores and what is needed to read them.

    Args:
        bits: what the networks did.
        matrix: the scores.
        low, high: (N, N) 95 % bootstrap interval.
        control: accuracies, white-box success, noise floors, corrected transfer.
        warnings: what a reader must know, a sentence each.
    """

    bits: TransferBits
    matrix: SatMatrix
    low: Floats
    high: Floats
    control: Controls
    warnings: list[str]


def assess(rows: Rows, *, eps_s: float, resamples: int, seed: int) -> Result:
    """Compute what is missing of the rows, and score them.

    Raises:
        NothingInCommon: two networks have no image that both classify correctly.
    """
    bits = rows.bits()
    matrix = sat_matrix(bits, eps_s)
    matrix.require_complete()
    control = controls(bits)
    low, high = bootstrap_interval(bits, resamples, seed, eps_s)
    return Result(bits, matrix, low, high, control, control_warnings(matrix, control))


def headline(result: Result, asked: int) -> str:
    """The result in a line: of the first `asked` networks; the others are references."""
    matrix = result.matrix
    if asked == 2:
        low, high = result.low[0, 1], result.high[0, 1]
        pair = f"SAT({matrix.names[0]}, {matrix.names[1]})"
        return f"{pair} = {matrix.score[0, 1]:.3f}   (95 % interval {low:.3f} to {high:.3f})"
    upper = np.triu_indices(asked, 1)
    return f"SAT between {asked} networks: mean {matrix.score[upper].mean():.3f}"


def result_sections(result: Result, members: Sequence[Member]) -> list[Section]:
    """The tables of the networks and of the scores."""
    return [_network_section(result, members), *_score_sections(result)]


def _network_section(result: Result, members: Sequence[Member]) -> Section:
    control = result.control
    rows = [
        (
            member.label,
            f"{member.parameters / 1e6:.2f} M",
            member.origin,
            f"{100 * control.accuracy[i]:.1f} %",
            f"{100 * control.whitebox[i]:.1f} %",
            f"{100 * control.noise_floor[i]:.1f} %",
        )
        for i, member in enumerate(members)
    ]
    columns = ("network", "size", "weights", "accuracy", "white-box", "noise floor")
    return Section("networks", "Networks", columns=columns, rows=rows)


def _score_sections(result: Result) -> list[Section]:
    """The scores: a line a direction for two networks, a matrix for a few, the nearest of each for many."""
    matrix, control = result.matrix, result.control
    names = matrix.names
    if len(names) == 2:
        rows: list[tuple[object, ...]] = [
            (
                f"{names[i]} -> {names[j]}",
                matrix.n_common[i, j],
                f"{100 * matrix.transfer[i, j]:.2f} %",
                f"{100 * control.corrected[i, j]:.2f} %",
            )
            for i, j in ((0, 1), (1, 0))
        ]
        columns = ("made for -> fools", "images", "transfer", "beyond noise")
        return [Section("transfer", "Transfer", columns=columns, rows=rows)]
    if len(names) <= _MOST_SHOWN:
        rows = [(name, *(f"{value:.2f}" for value in matrix.score[i])) for i, name in enumerate(names)]
        scores = Section("scores", "SAT", columns=("", *names), rows=rows, note=_images_note(matrix))
        return [scores, _transfer_table(result)]
    others = matrix.score - np.diag(np.full(len(names), np.inf))
    nearest, farthest = others.argmax(axis=1), (-matrix.score).argmax(axis=1)
    rows = [
        (
            name,
            f"{names[nearest[i]]} ({matrix.score[i, nearest[i]]:.2f})",
            f"{names[farthest[i]]} ({matrix.score[i, farthest[i]]:.2f})",
        )
        for i, name in enumerate(names)
    ]
    note = _images_note(matrix)
    return [Section("scores", "SAT", columns=("network", "most alike", "least alike"), rows=rows, note=note)]


def _transfer_table(result: Result) -> Section:
    """Every direction of every pair."""
    matrix, beyond = result.matrix, result.control.corrected
    rows = [
        (name, *(f"{100 * t:.1f} / {100 * c:.1f}" for t, c in zip(matrix.transfer[i], beyond[i], strict=True)))
        for i, name in enumerate(matrix.names)
    ]
    note = "The row's network was attacked, the column's was shown the images; in percent, and beyond noise."
    return Section("transfer", "Transfer / beyond noise, %", columns=("", *matrix.names), rows=rows, note=note)


def _images_note(matrix: SatMatrix) -> str:
    pairs = matrix.n_common[np.triu_indices(len(matrix.names), 1)]
    return (
        f"On {pairs.min()} to {pairs.max()} images a pair, those that both classify correctly; intervals: transfer.csv."
    )
