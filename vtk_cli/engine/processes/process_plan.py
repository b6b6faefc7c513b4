"""What `--dry-run` says of the processes that would share a training."""

from __future__ import annotations

from typing import Any

from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.parallel_options import SharedTrainingOptions
from vtk_cli.errors import UserError


def process_plan(options: SharedTrainingOptions, world: World, batch_size: int, unit: str = "images") -> dict[str, Any]:
    """How many processes there are, what of a batch each gets, and what each holds.

    Args:
        options: which may ask for processes that a plan does not start.
        world: those that are there.
        batch_size: over all processes.
        unit: what a batch is made of.

    Returns:
        `processes`, `<unit>_a_process` (of one batch) and, among several, `each_holds`.

    Raises:
        UserError: they cannot share a batch equally.
    """
    count = world.size if world.size > 1 else options.nproc or 1
    if batch_size % count:
        what = f"a batch of {batch_size} cannot be shared equally by {count} processes"
        raise UserError(what, "--batch-size", f"choose a multiple of {count}")
    plan = {"processes": count, f"{unit}_a_process": batch_size // count}
    if count == 1:
        return plan
    part = f"1/{count} of weights, gradients and optimiser state"
    return {**plan, "each_holds": part if options.parallel == "fsdp" else "all weights and their optimiser state"}
