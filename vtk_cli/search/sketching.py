"""Boxes, lines and words on a sheet measured in inches, from which pictures of architectures are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from vtk_cli.reports.plots import INK, PALETTE, SOFT, axes_in_inches

LINE = 1.1  # points
_COLOURS = MappingProxyType(
    {
        "sep": PALETTE[0],
        "dil": PALETTE[6],
        "nor": PALETTE[2],
        "conv": PALETTE[2],
        "avg": PALETTE[1],
        "max": PALETTE[5],
        "skip": SOFT,
        "shuffle": PALETTE[0],
        "xception": PALETTE[3],
        "MB": PALETTE[0],
    }
)
"""By what an operation's name begins with."""


def colour_of(operation: str) -> str:
    """The colour of an operation, by its kind."""
    return next((colour for kind, colour in _COLOURS.items() if operation.startswith(kind)), PALETTE[9])


def tinted(colour: str, strength: float = 0.16) -> tuple[float, float, float]:
    """`colour` thinned with white."""
    red, green, blue = (1.0 - strength * (1.0 - part) for part in to_rgb(colour))
    return red, green, blue


@dataclass(frozen=True)
class Sheet:
    """An empty page on which places are given in inches from the lower left corner.

    Args:
        axes: whose coordinates are inches.
    """

    axes: Axes

    @classmethod
    def on(cls, figure: Figure, width: float, height: float) -> Sheet:
        """A page of the given size at the bottom of a figure."""
        axes = axes_in_inches(figure, 0.0, 0.0, width, height)
        axes.set_xlim(0.0, width)
        axes.set_ylim(0.0, height)
        axes.set_axis_off()
        return cls(axes)

    def box(
        self,
        centre: tuple[float, float],
        size: tuple[float, float],
        text: str,
        colour: str,
        *,
        dashed: bool = False,
        points: float = 8.0,
    ) -> None:
        """A rounded box with words in it."""
        (x, y), (width, height) = centre, size
        self.axes.add_patch(
            FancyBboxPatch(
                (x - width / 2.0, y - height / 2.0),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor="white" if dashed else tinted(colour),
                edgecolor=colour,
                linestyle="--" if dashed else "-",
                linewidth=LINE,
                zorder=3,
            )
        )
        self.words((x, y), text, points=points, across="center")

    def line(self, *points: tuple[float, float], colour: str = SOFT, width: float = LINE) -> None:
        """A line through `points`."""
        across, up = zip(*points, strict=True)
        self.axes.plot(across, up, color=colour, linewidth=width, solid_joinstyle="round", zorder=1)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str = SOFT) -> None:
        """A straight line with a head at its end."""
        arrow = FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=8.0,
            shrinkA=0,
            shrinkB=0,
            color=colour,
            linewidth=LINE,
            zorder=2,
        )
        self.axes.add_patch(arrow)

    def dots(self, places: Sequence[tuple[float, float]], colour: str = SOFT) -> None:
        """Where lines are joined."""
        for place in places:
            self.axes.add_patch(Circle(place, 0.04, color=colour, linewidth=0, zorder=2))

    def ring(self, centre: tuple[float, float], text: str, radius: float = 0.15) -> None:
        """A circle with a word in it."""
        self.axes.add_patch(Circle(centre, radius, facecolor="white", edgecolor=INK, linewidth=LINE, zorder=3))
        self.words(centre, text, points=8.5, across="center")

    def words(
        self,
        place: tuple[float, float],
        text: str,
        *,
        points: float = 8.0,
        colour: str = INK,
        across: str = "left",
        bold: bool = False,
    ) -> None:
        """Words beside or around `place`."""
        weight = "bold" if bold else "normal"
        x, y = place
        self.axes.text(
            x,
            y,
            text,
            fontsize=points,
            color=colour,
            ha=across,
            va="center",
            fontweight=weight,
            zorder=4,
            linespacing=1.15,
        )
