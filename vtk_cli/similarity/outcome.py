"""From rows to a result: the scores with their intervals and controls, what is printed, and what is written."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from vtk_cli import __version__
from vtk_cli.console import Console
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.files import atomic_path, write_json, write_text
from vtk_cli.similarity.examples import draw_examples
from vtk_cli.similarity.matrix_file import write_matrix_csv
from vtk_cli.similarity.members import Member
from vtk_cli.similarity.report import write_page
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
from vtk_cli.similarity.section import Section, plain

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


def publish(
    result: Result, sections: Sequence[Section], rows: Rows, banner: str, run: RunFolder, console: Console, seed: int
) -> None:
    """Print the result and write everything of it into the run folder."""
    own = [_network_section(result, rows.comparison.members), *_score_sections(result)]
    summary = _summary(result, [*sections], rows, banner, seed)
    pictures = {section.key: section.draw(run.plots) for section in sections if section.draw is not None}
    pictures["examples"] = draw_examples(rows, run.plots)
    write_json(run.path / "similarity.json", summary)
    write_matrix_csv(run.path / "sat.csv", result.matrix.names, result.matrix.score)
    write_text(run.path / "transfer.csv", _transfer_csv(result))
    _write_bits(run.path / "bits.npz", result.bits)
    clusters = next((section for section in sections if section.key == "clusters"), None)
    if clusters is not None:
        write_json(run.path / "clusters.json", plain(clusters.data))
    page = write_page(run.path / "report.html", _headline(result), banner, [*own, *sections], pictures, result.warnings)
    run.finish(summary)
    console.text(banner)
    _print([*own, *sections], console)
    for warning in result.warnings:
        console.warn(warning)
    console.text(_headline(result), style="bold")
    console.text(f"everything is in {run.path}; open {page}")
    console.emit(summary)


def publish_matrix(
    names: Sequence[str], score: Floats, source: Path, sections: Sequence[Section], run: RunFolder, console: Console
) -> None:
    """Print and write what an imported matrix shows."""
    summary = {
        "imported": str(source),
        "networks": list(names),
        "sat": plain(score),
        **{section.key: plain(section.data) for section in sections},
    }
    pictures = {section.key: section.draw(run.plots) for section in sections if section.draw is not None}
    write_json(run.path / "similarity.json", summary)
    headline = f"{len(names)} networks from {source}"
    page = write_page(run.path / "report.html", headline, "", sections, pictures, [])
    run.finish(summary)
    _print(sections, console)
    console.text(f"everything is in {run.path}; open {page}")
    console.emit(summary)


def _headline(result: Result) -> str:
    matrix = result.matrix
    if len(matrix.names) == 2:
        low, high = result.low[0, 1], result.high[0, 1]
        return f"SAT({matrix.names[0]}, {matrix.names[1]}) = {matrix.score[0, 1]:.3f}  (95 % interval {low:.3f} to {high:.3f})"
    upper = np.triu_indices(len(matrix.names), 1)
    return f"SAT between {len(matrix.names)} networks: mean {matrix.score[upper].mean():.3f}"


def _print(sections: Sequence[Section], console: Console) -> None:
    for section in sections:
        if section.columns:
            console.table(section.title, section.columns, section.rows)
        if section.note:
            console.text(section.note)


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
    columns = ("network", "weights", "from", "accuracy", "white-box success", "noise floor")
    return Section("networks", "Networks", columns=columns, rows=rows)


def _score_sections(result: Result) -> list[Section]:
    """The scores: a line a direction for two networks, a matrix for a few, the nearest of each for many."""
    matrix, control = result.matrix, result.control
    names = matrix.names
    if len(names) == 2:
        rows = [
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
        return [Section("scores", "SAT", columns=("", *names), rows=rows)]
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
    return [Section("scores", "SAT", columns=("network", "most alike", "least alike"), rows=rows)]


def _summary(result: Result, sections: Sequence[Section], rows: Rows, banner: str, seed: int) -> dict[str, Any]:
    """What `--json` prints."""
    matrix, control, comparison = result.matrix, result.control, rows.comparison
    settings = rows.passes.settings
    models = [
        {
            "label": member.label,
            "spec": member.name.spec,
            "timm_name": member.name.name if member.name.kind in {"timm", "file"} else None,
            "tag": member.name.tag or None,
            "weights": member.origin,
            "weights_sha256": member.weights_sha256,
            "input_size": member.size,
            "mean": list(member.mean),
            "std": list(member.std),
            "parameters": member.parameters,
            "accuracy": control.accuracy[i],
            "n_ok": control.n_ok[i],
            "whitebox": control.whitebox[i],
            "noise_floor": control.noise_floor[i],
        }
        for i, member in enumerate(comparison.members)
    ]
    summary = {
        "networks": list(matrix.names),
        "about": banner,
        "models": models,
        "sat": matrix.score,
        "ci_low": result.low,
        "ci_high": result.high,
        "transfer": matrix.transfer,
        "transfer_beyond_noise": control.corrected,
        "n_common": matrix.n_common,
        "floored": matrix.floored,
        "attack": {
            **asdict(settings.attack),
            "precision": settings.attack_precision,
            "protocol": settings.protocol,
            "scoring_precision": settings.precision,
        },
        "data": {
            "name": comparison.images.name,
            "n": len(comparison.images),
            "fingerprint": comparison.images.fingerprint,
        },
        **{section.key: section.data for section in sections},
        "warnings": result.warnings,
        "seed": seed,
        "versions": {"vtk": __version__, **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy")}},
    }
    plainly: dict[str, Any] = plain(summary)
    return plainly


def _transfer_csv(result: Result) -> str:
    """Every directed pair on a line."""
    matrix, control = result.matrix, result.control
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["made_for", "fools", "sat", "ci_low", "ci_high", "n_common", "transfer", "beyond_noise"])
    for i, source in enumerate(matrix.names):
        for j, target in enumerate(matrix.names):
            numbers = (matrix.score, result.low, result.high, matrix.n_common, matrix.transfer, control.corrected)
            writer.writerow([source, target, *(number[i, j] for number in numbers)])
    return text.getvalue()


def _write_bits(path: Path, bits: TransferBits) -> None:
    """The answers themselves, one bit each: enough to merge, resample or sub-set without any network."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            names=np.array(bits.names),
            images=bits.correct.shape[1],
            correct=np.packbits(bits.correct, axis=-1),
            wrong=np.packbits(bits.wrong, axis=-1),
            noisy_wrong=np.packbits(bits.noisy_wrong, axis=-1),
        )
