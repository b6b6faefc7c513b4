"""`vtk similarity --dry-run`: what would be done, with nothing trained, fetched or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.similarity.command import SimilarityOptions


@dataclass(frozen=True)
class Plan:
    """What would be done.

    Args:
        networks: (label, timm name, where its weights come from, weights in millions or None).
        images: how many.
        device: where.
        store: where rows are kept.
        options: as resolved.
    """

    networks: Sequence[tuple[str, str, str, float | None]]
    images: int
    device: str
    store: Path
    options: SimilarityOptions

    @property
    def forward_equivalents(self) -> int:
        """The cost in forward passes of one image: clean and noisy passes, attacks (two a step), and evaluations."""
        return len(self.networks) * (2 * self.images + self.row_equivalents)

    @property
    def row_equivalents(self) -> int:
        """The cost of a row, which is one piece of work: its attack, and every network's evaluation."""
        steps = 1 if self.options.attack == "fgsm" else self.options.steps
        return self.images * (2 * steps + len(self.networks))


def show_plan(plan: Plan, console: Console) -> None:
    """Print the plan."""
    options, count = plan.options, len(plan.networks)
    rows = [
        (label, timm_name, "-" if size is None else f"{size:.2f} M", weights)
        for label, timm_name, weights, size in plan.networks
    ]
    console.table("Networks", ("network", "architecture", "weights", "from"), rows)
    steps = [
        ("images", f"{plan.images} of {options.data}"),
        ("attack", f"{options.attack}, eps {options.eps:.5f}, {options.steps} steps of {options.step:.5f}"),
        ("attacks", count),
        ("evaluations", count**2),
        ("forward passes of one image", f"at most {plan.forward_equivalents:,}"),
        ("pieces to share", f"{count} networks and their answers, then {count} rows: up to {count} tasks"),
        ("forward passes a row", f"at most {plan.row_equivalents:,}"),
        ("device", plan.device),
        ("rows are kept in", plan.store),
        ("run folder", options.out or "runs/similarity/DATE-NAME"),
    ]
    console.table("Plan", ("", ""), steps)
    console.emit(
        {
            "networks": [dict(zip(("label", "architecture", "weights", "from"), row, strict=True)) for row in rows],
            **{name.replace(" ", "_"): str(value) for name, value in steps},
            "config": options.as_config(),
        }
    )
