"""What every picture shares: one style, one palette that colour-blind readers can tell apart, and how it is saved.

Figures are made without pyplot, so no global backend, figure list or rcParams is touched. The same data give the same
bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vtk_cli.files import atomic_path
from vtk_cli.reports.plain_names import printable

INK, SOFT, FAINT = "#1f2933", "#5b6770", "#d5dade"

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#332288", "#661100", "#C9B37E", "#2B2B2B")
"""Okabe and Ito's colours without yellow, which vanishes on white; then indigo, wine, sand and near-black, chosen to
stay apart from them and from one another with protanopia and deuteranopia too."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", ">")
"""One a colour: no two groups differ by colour alone."""

DOTS_PER_INCH = 160

_STYLE: MappingProxyType[Any, Any] = MappingProxyType(
    {
        "font.family": "DejaVu Sans",
        "font.size": 9.0,
        "text.color": INK,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "svg.fonttype": "path",
        "svg.hashsalt": "vtk",
    }
)


@dataclass(frozen=True)
class Picture:
    """A picture on disk, twice: pixels for documents, lines for screens and print."""

    png: Path
    svg: Path


@contextmanager
def style() -> Iterator[None]:
    """The house style, for as long as the block lasts."""
    with mpl.rc_context(dict(_STYLE)):
        yield


def axes_in_inches(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place and size given in inches from the figure's lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def write_titles(axes: Axes, title: str, subtitle: str = "", above: float = 0.12, left: float = 0.0) -> None:
    """A bold title and a soft subtitle over `axes`.

    Args:
        axes: whose left edge the titles keep to.
        title: one line.
        subtitle: one line, or empty.
        above: inches between the axes' top and the lower line of text.
        left: inches from the axes' left edge.
    """
    offset = 72.0 * above
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    if subtitle:
        axes.annotate(subtitle, (0.0, 1.0), (72.0 * left, offset), color=SOFT, fontsize=9.0, va="bottom", **place)
        offset += 15.0
    axes.annotate(
        title, (0.0, 1.0), (72.0 * left, offset), color=INK, fontsize=12.5, fontweight="bold", va="bottom", **place
    )


def group_styles(groups: Sequence[str]) -> Mapping[str, tuple[str, str]]:
    """A (colour, marker) for each different group, in order of their names (numbers as numbers: 9 before 10).

    From the eleventh on the colours come again with other markers, so up to 100 groups stay apart.
    """
    known = sorted(set(groups), key=_natural)
    count = len(PALETTE)
    return {
        group: (PALETTE[index % count], MARKERS[(index + index // count) % len(MARKERS)])
        for index, group in enumerate(known)
    }


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def save(figure: Figure, path: Path) -> Picture:
    """Write `figure` beside `path` as .png and .svg (the suffix of `path`, if any, does not matter), each atomically.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    picture = Picture(path.with_suffix(".png"), path.with_suffix(".svg"))
    with style():
        with atomic_path(picture.png) as temporary:
            figure.savefig(
                temporary, dpi=DOTS_PER_INCH, bbox_inches="tight", pad_inches=0.2, metadata={"Software": None}
            )
        with atomic_path(picture.svg) as temporary:
            figure.savefig(temporary, dpi=DOTS_PER_INCH, bbox_inches="tight", pad_inches=0.2, metadata={"Date": None})
    return picture


def literal(text: str) -> str:
    """`text` as it is: matplotlib reads what stands between two dollars as a formula, and refuses half characters."""
    return printable(text).replace("$", r"\$")


def shortened(text: str, most: int = 26) -> str:
    """`literal`, cut to `most` characters."""
    return literal(text if len(text) <= most else text[: most - 1] + "…")
