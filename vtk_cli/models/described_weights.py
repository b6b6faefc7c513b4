"""Weight files that say what they hold: a safetensors file whose metadata names the network and its classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from vtk_cli.errors import UserError, VtkError
from vtk_cli.files import atomic_path

_PACKED = 32
"""How many times the file's size the network may take: 2 bits a weight are 16 times fewer than 32, and some weights
are made twice."""
_SPARE = 2**26
"""Bytes that a network may always take: buffers are not in the file."""
_LARGEST_SUM = 2**20
"""Of the whole numbers in a description: widths, depths, sides."""
_SHOWN = 80
"""Of an error of torch's, characters."""


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


@contextmanager
def as_described(path: Path) -> Iterator[None]:
    """Build in here a network by nothing but what a weight file says of it.

    Raises:
        UserError: it cannot be built, or see `no_larger_than`.
    """
    try:
        with no_larger_than(path):
            yield
    except VtkError:
        raise
    except Exception as error:  # sizes that contradict one another are refused in as many ways as there are layers
        reason = " ".join(str(error).split())[:_SHOWN] or type(error).__name__
        raise UserError(f"describes a network that cannot be built ({reason})", str(path), "write it anew") from error


@contextmanager
def no_larger_than(path: Path) -> Iterator[None]:
    """Build in here a network for a weight file: a few bytes of it can ask for one of any size.

    Raises:
        UserError: the network becomes many times larger than the file.
    """
    most, made = _SPARE + _PACKED * path.stat().st_size, 0

    def count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal made
        made += 0 if tensor is None or tensor.is_meta else tensor.numel() * tensor.element_size()
        if made > most:
            what = f"describes a network of more than {most / 2**20:.0f} MiB, for which it has no weights"
            raise UserError(what, str(path), "fetch or write it anew")

    hooks = register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def refuse_absurd(described: Any, path: Path) -> None:
    """Refuse a description with numbers that no network has: some of them are walked or listed before a layer is made.

    Args:
        described: JSON values.
        path: the file, for the error.

    Raises:
        UserError: its whole numbers come to more than a million.
    """
    waiting, total = [described], 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            waiting.extend(one)
        elif isinstance(one, int):
            total += abs(one)
    if total > _LARGEST_SUM:
        raise UserError("describes a network of absurd size", str(path), "fetch or write it anew")


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
