"""Weights of a supernet that others trained, taken over into a run, so that every stage finds them as its own."""

from __future__ import annotations

from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.models.spaces.supernet import Supernet
from vtk_cli.search.official import load_supernet
from vtk_cli.search.supernet_file import FINAL, FOLDER, INITIAL, save_state
from vtk_cli.search.supernet_stage import Prepared, write_images
from vtk_cli.search.verb_options import ImportOptions


def take_over(options: ImportOptions, prepared: Prepared, folder: Path, console: Console) -> None:
    """Write the weights that the options name as the supernet of a run.

    Args:
        options: with `weights`, and `initial` for the angle.
        prepared: the images and the shape that the supernet must have.
        folder: of the run.
        console: told what is missing.

    Raises:
        UserError: a file cannot be read, holds code, or is of another supernet.
        JobError: the disk is full.
    """
    if options.weights is None:
        raise ValueError("there are no weights to take over")
    place = folder / FOLDER
    names = prepared.images.splits.train.class_names
    final = _loaded(options.weights, prepared, trained=True)
    initial = None if options.initial is None else _loaded(options.initial, prepared, trained=False)
    write_images(prepared.images, place)
    if initial is None:
        console.note("without --initial there are no weights from before the training: no angle can be measured")
        (place / INITIAL).unlink(missing_ok=True)
    else:
        save_state(place / INITIAL, initial.state_dict(), prepared.shape, names)
    save_state(place / FINAL, final.state_dict(), prepared.shape, names)


def _loaded(path: Path, prepared: Prepared, *, trained: bool) -> Supernet:
    supernet, checkpoint = load_supernet(path, prepared.space, resolution=prepared.shape.resolution)
    if checkpoint.epoch is not None and checkpoint.is_initial == trained:
        when, flag, other = ("before", "--weights", "--initial") if trained else ("after", "--initial", "--weights")
        what = f"holds the weights {when} training: its epoch is {checkpoint.epoch}"
        raise UserError(what, f"{flag} {path}", f"give it as {other}")
    wanted, found = prepared.shape, supernet.shape
    for name in ("classes", "width", "cells"):
        here, there = getattr(wanted, name), getattr(found, name)
        if here != there:
            fix = "give images with as many" if name == "classes" else f"give --{name} {there}"
            raise UserError(f"is of a supernet with {name} {there}, not {here}", str(path), fix)
    return supernet
