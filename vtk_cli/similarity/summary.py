"""A result as files: the JSON, the matrices as CSV, and the bits from which all of it can be computed again."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from vtk_cli import __version__
from vtk_cli.files import atomic_path, write_text
from vtk_cli.reports.plain_names import spreadsheet_cell
from vtk_cli.similarity.matrix_file import write_matrix_csv
from vtk_cli.similarity.outcome import Result
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.sat import TransferBits
from vtk_cli.similarity.section import Section, plain


def summary(result: Result, sections: Sequence[Section], rows: Rows, about: str) -> dict[str, Any]:
    """What `--json` prints and `similarity.json` holds: plain JSON values."""
    matrix, control, comparison = result.matrix, result.control, rows.comparison
    settings = rows.passes.settings
    models = [
        {
            "label": member.label,
            "spec": member.name.spec,
            "timm_name": member.name.name if member.name.kind in {"timm", "file"} else None,
            "tag": None if member.name.kind == "file" or member.is_trained_here else member.name.tag or None,
            "weights": member.origin,
            "weights_sha256": member.weights_sha256,
            "input_size": member.pixels.input_size,
            "mean": list(member.pixels.mean),
            "std": list(member.pixels.std),
            "parameters": member.parameters,
            "accuracy": control.accuracy[i],
            "n_ok": control.n_ok[i],
            "whitebox": control.whitebox[i],
            "noise_floor": control.noise_floor[i],
        }
        for i, member in enumerate(comparison.members)
    ]
    content = {
        "networks": list(matrix.names),
        "about": about,
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
        "seed": settings.attack.seed,
        "versions": {"vtk": __version__, **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy")}},
    }
    plainly: dict[str, Any] = plain(content)
    return plainly


def write_tables(result: Result, folder: Path) -> None:
    """Write `sat.csv` (the layout of the released matrix), `transfer.csv` and `bits.npz`."""
    write_matrix_csv(folder / "sat.csv", result.matrix.names, result.matrix.score)
    write_text(folder / "transfer.csv", _transfer_csv(result))
    _write_bits(folder / "bits.npz", result.bits)


def _transfer_csv(result: Result) -> str:
    """Every directed pair on a line."""
    matrix, control = result.matrix, result.control
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["made_for", "fools", "sat", "ci_low", "ci_high", "n_common", "transfer", "beyond_noise"])
    for i, source in enumerate(matrix.names):
        for j, target in enumerate(matrix.names):
            numbers = (matrix.score, result.low, result.high, matrix.n_common, matrix.transfer, control.corrected)
            writer.writerow([spreadsheet_cell(source), spreadsheet_cell(target), *(number[i, j] for number in numbers)])
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
