"""Weight files that say what they hold: a safetensors file whose metadata names the network and its classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from vtk_cli.files import atomic_path


def save_described(path: Path, state: Mapping[str, Tensor], said: Mapping[str, str]) -> None:
    """Write a state dict and what the file says of itself; `models.names.file_metadata` reads that.

    Args:
        path: `.safetensors`.
        state: on any device.
        said: key to text.

    Raises:
        JobError: the disk is full.
        UserError: the folder may not be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic_path(path) as temporary:
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, dict(said))
        temporary.chmod(mode)  # safetensors puts a file of its own there, which its owner alone may read


def classes_to_text(names: Sequence[str], category_ids: Sequence[int]) -> str:
    """What labels mean, by label, as text; `classes_from_text` reads it."""
    return json.dumps({"names": list(names), "category_ids": list(category_ids)})


def classes_from_text(text: str, count: int | None = None) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names and the category ids of at least one class, by label.

    Args:
        text: of `classes_to_text`.
        count: how many classes there must be; None takes any number.

    Raises:
        ValueError: the text says something else.
    """
    values = json.loads(text)
    if not isinstance(values, dict) or not values.keys() >= {"names", "category_ids"}:
        raise ValueError("names and category ids of the classes are missing")
    names, ids = values["names"], values["category_ids"]
    kinds = ((names, str), (ids, int))
    if any(not isinstance(given, list) or not all(isinstance(each, kind) for each in given) for given, kind in kinds):
        raise ValueError("class names are a list of text and category ids one of whole numbers")
    if not names or len(names) != len(ids):
        raise ValueError(f"{len(names)} class names for {len(ids)} category ids")
    if count not in {None, len(names)}:
        raise ValueError(f"{len(names)} class names and {len(ids)} category ids for {count} classes")
    return tuple(names), tuple(ids)


def some_names(names: Sequence[str], shown: int = 5) -> str:
    """How many names there are, and the first of them."""
    return f"{len(names)}: {', '.join(names[:shown])}{', ...' if len(names) > shown else ''}"
