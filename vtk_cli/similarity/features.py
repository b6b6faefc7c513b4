"""Thirteen architectural components of a network, read off the network itself (arXiv 2210.11407).

The paper describes its networks by a table; here the modules are walked instead, so that any network can be described,
in the table's vocabulary. A CSV file overrides what is read.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vtk_cli.errors import UserError, nearest
from vtk_cli.files import write_text
from vtk_cli.models import anatomy
from vtk_cli.models.names import PAPER69, NetworkName

FEATURE_NAMES = (
    "Base architecture",
    "Hierarchical structure",
    "Stem layer",
    "Input resolution",
    "Normalization",
    "Activation",
    "Pooling (stem)",
    "Pooling (final)",
    "2D SA",
    "CW attention",
    "Location of CW attention",
    "DW conv",
    "Group conv",
)
"""The published names of the components, in the published order: that of the fields of `ArchitectureFeatures`."""
NAME_COLUMN = "Model name"

YES, NO, NOWHERE = "Yes", "No", "~"


@dataclass(frozen=True)
class ArchitectureFeatures:
    """One network in thirteen words.

    Args:
        base_architecture: `CNN`, `Transformer`, `MLP-Mixer`, `Hybrid`, `NAS (CNN)` or `NAS (TFM)`.
        hierarchical: whether features are downsampled after the stem; `Yes` or `No`.
        stem: the stem's convolutions, `kernel s stride` joined by `/`, `s1` left out after the first: `3s2/3/3`.
        input_resolution: `height x width` in pixels: `224 x 224`.
        normalization: `BN`, `LN`, `GN`, `Affine transform`, `EvoNorm`, `Norm-free`, or several: `LN + BN`.
        activation: `ReLU`, `GeLU`, `SiLU`, `HardSwish`, `Leaky ReLU`, ..., or several: `ReLU + SiLU`; gates are not
            counted, and `-` is none.
        stem_pooling: whether the stem pools; `Yes` or `No`.
        final_pooling: `GAP` or `CLS token` (`Max`, `Attention` elsewhere).
        self_attention_2d: `No`, or `Yes (BoT)`, `Yes (Halo)`, `Yes (Lambda)`, or several.
        channel_attention: `No`, or `Yes (SE)`, `Yes (ECA)`, `Yes (GCA)`, `Yes (ESE)`; `Yes` for split attention.
        channel_attention_location: `Middle` or `End` of the block, `~` where there is none or it cannot be told.
        depthwise_conv: `Yes` or `No`.
        group_conv: convolutions in several groups of several channels; `Yes` or `No`.
    """

    base_architecture: str
    hierarchical: str
    stem: str
    input_resolution: str
    normalization: str
    activation: str
    stem_pooling: str
    final_pooling: str
    self_attention_2d: str
    channel_attention: str
    channel_attention_location: str
    depthwise_conv: str
    group_conv: str


def architecture_features(module: nn.Module, name: str, input_size: int) -> ArchitectureFeatures:
    """Describe a network.

    Args:
        module: the network; nothing is run.
        name: its timm name, with or without tag; for a name that is not known the base architecture is told from the
            modules (convolutions, attention, both, neither).
        input_size: side of its input, in pixels.
    """
    return ArchitectureFeatures(
        base_architecture=anatomy.family(module, name),
        hierarchical=_yes(anatomy.is_hierarchical(module)),
        stem=anatomy.stem_notation(module),
        input_resolution=f"{input_size} x {input_size}",
        normalization=" + ".join(anatomy.normalizations(module)) or "Norm-free",
        activation=" + ".join(anatomy.activations(module)) or "-",
        stem_pooling=_yes(anatomy.stem_pools(module)),
        final_pooling=anatomy.final_pooling(module),
        self_attention_2d=_yes_named(anatomy.self_attention_2d(module)),
        channel_attention=_yes_named(anatomy.channel_attention(module)),
        channel_attention_location=anatomy.channel_attention_location(module) or NOWHERE,
        depthwise_conv=_yes(anatomy.has_depthwise(module)),
        group_conv=_yes(anatomy.has_grouped(module)),
    )


def difference_vector(a: ArchitectureFeatures, b: ArchitectureFeatures) -> NDArray[np.int64]:
    """(13,) of 0 and 1: which components differ. Spelling, and the order of several in one, do not count."""
    pairs = zip(astuple(a), astuple(b), strict=True)
    return np.array([_canonical(left) != _canonical(right) for left, right in pairs], dtype=np.int64)


def read_features(path: Path) -> dict[str, ArchitectureFeatures]:
    """Features by network name from a CSV file: a column of names, then the 13 components by their published names.

    UTF-8 with or without a byte-order mark; columns in any order, further columns are ignored.

    Raises:
        UserError: naming file and line: it cannot be read, a column is missing, a value is empty, a name occurs twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except OSError as error:
        raise UserError(f"the features cannot be read ({error.strerror})", str(path), "check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"not a CSV file in UTF-8 ({error})", str(path), "export it as CSV (UTF-8)") from error
    rows = [(line, row) for line, row in rows if any(row)]
    if len(rows) < 2:
        raise UserError("holds no network", str(path), f"columns: {NAME_COLUMN}, {', '.join(FEATURE_NAMES)}")
    columns = _columns(rows[0][1], f"{path}:{rows[0][0]}")
    table: dict[str, ArchitectureFeatures] = {}
    for line, row in rows[1:]:
        where = f"{path}:{line}"
        if len(row) != len(rows[0][1]):
            raise UserError(
                f"has {len(row)} columns, the first line {len(rows[0][1])}", where, "write one value a column"
            )
        name, *values = (row[column] for column in columns)
        empty = next((column for column, value in zip(FEATURE_NAMES, values, strict=True) if not value), None)
        if not name or empty:
            raise UserError(f"no value for {empty or NAME_COLUMN!r}", where, "fill it in")
        if name in table:
            raise UserError(f"{name} occurs twice", where, "keep one line a network")
        table[name] = ArchitectureFeatures(*values)
    return table


def write_features(path: Path, table: Mapping[str, ArchitectureFeatures]) -> None:
    """Write features by network name, in the layout of the published table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([NAME_COLUMN, *FEATURE_NAMES])
    writer.writerows([name, *astuple(features)] for name, features in table.items())
    write_text(path, text.getvalue())


def features_in(table: Mapping[str, ArchitectureFeatures], name: NetworkName) -> ArchitectureFeatures | None:
    """What `table` says of a network: under its label, its timm name, or its name in the published tables."""
    published = [network.published for network in PAPER69 if network.timm.partition(".")[0] == name.name]
    known = (table.get(key) for key in (name.label, name.spec, name.tagged, name.name, *published))
    return next((features for features in known if features is not None), None)


def _columns(header: list[str], where: str) -> list[int]:
    """Where the name and the 13 components stand in a row; the name is in the first column, whatever it is called."""
    plain = [_canonical(cell) for cell in header]
    columns = [0]
    for name in FEATURE_NAMES:
        if _canonical(name) not in plain:
            near = nearest(name, header) or f"the columns are {', '.join(FEATURE_NAMES)}"
            raise UserError(f"no column {name!r}", where, near)
        columns.append(plain.index(_canonical(name)))
    return columns


def _canonical(value: str) -> tuple[str, ...]:
    """A value without case, spaces and the order of its parts: `Yes (Halo, BoT)` and `yes (bot,halo)` are the same."""
    return tuple(sorted(re.findall(r"[^\s,+()]+", value.lower())))


def _yes(fact: bool) -> str:
    return YES if fact else NO


def _yes_named(kinds: list[str]) -> str:
    named = ", ".join(filter(None, kinds))
    return f"{YES} ({named})" if named else _yes(bool(kinds))
