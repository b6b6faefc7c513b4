"""A generator by the path of whatever holds one: a ticket, an export, a published checkpoint, a run folder."""

from __future__ import annotations

from pathlib import Path

from vtk_cli.engine.run_weights import LAST
from vtk_cli.errors import UserError
from vtk_cli.prune.generator_file import read_generator
from vtk_cli.prune.generators import Generator
from vtk_cli.prune.published_generators import read_published
from vtk_cli.prune.rebuilding import rebuild
from vtk_cli.prune.ticket_file import SUFFIX, read_ticket

TICKET = "ticket.vtkt"
"""The ticket in a run folder."""


def open_generator(path: Path, theta: Path | None = None) -> Generator:
    """The plain generator that a path holds, in eval mode on the CPU.

    Args:
        path: a ticket (`.vtkt`); a generator of `export_generator` (`.safetensors`, in any packing); a checkpoint of
            the published code (any other suffix); or the folder of a run, whose ticket comes before its weights.
        theta: what holds the weights that a ticket on a checkpoint selects from; anything that `path` may be.

    Raises:
        UserError: there is nothing, or what is there cannot be read.
    """
    file = _in_run(path) if path.is_dir() else path
    if file.suffix == SUFFIX:
        ticket = read_ticket(file)
        return rebuild(ticket, None if theta is None else open_generator(theta).state_dict())
    if theta is not None:
        raise UserError("only a ticket selects from other weights", "--theta", f"{file} is none: leave it out")
    if not file.is_file():
        raise UserError("no such file", str(path), "name a ticket, a weight file or the folder of a run")
    return read_generator(file) if file.suffix == ".safetensors" else read_published(file).network


def _in_run(folder: Path) -> Path:
    """The file of a run folder that holds its generator."""
    for name in (TICKET, LAST):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"holds neither {TICKET} nor {LAST}", str(folder), "name the folder of a finished run")
