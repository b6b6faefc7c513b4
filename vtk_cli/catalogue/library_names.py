"""The names that timm and torchvision know, kept in the cache: asking the libraries takes seconds.

The file is named for the versions of both; another version asks anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.errors import VtkError
from vtk_cli.files import cache_folder, content_key, write_json

_FORMAT = 1


@dataclass(frozen=True)
class LibraryNetwork:
    """A network of timm, or of torchvision (`tv:NAME`).

    Args:
        weights: tags of its published weights; the one that is taken unless another is named comes first.
        params: parameters, where the library says.
    """

    weights: tuple[str, ...]
    params: int | None = None


def library_networks(console: Console) -> dict[str, LibraryNetwork]:
    """Name -> what is known; from the cache, or from the libraries, which is then kept."""
    known = kept_networks()
    if known is None:
        console.note("asking timm and torchvision for the networks they know; the answer is kept")
        known = {**_of_timm(), **_of_torchvision()}
        try:
            write_json(_file(), {name: [list(one.weights), one.params] for name, one in known.items()})
        except VtkError as refusal:  # a cache that cannot be written costs seconds, no more
            console.warn(str(refusal))
    return known


def kept_networks() -> dict[str, LibraryNetwork] | None:
    """What the cache holds for the installed versions; None where that is nothing whole."""
    try:
        table = json.loads(_file().read_text(encoding="utf-8"))
        return {name: LibraryNetwork(tuple(weights), params) for name, (weights, params) in table.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _file() -> Path:
    versions = {"format": _FORMAT, "timm": version("timm"), "torchvision": version("torchvision")}
    return cache_folder() / "models" / f"names-{content_key(versions)}.json"


def _of_timm() -> dict[str, LibraryNetwork]:
    from timm.models import get_pretrained_cfg, list_models, list_pretrained

    tags: dict[str, list[str]] = {name: [] for name in list_models()}
    for tagged in list_pretrained():
        name, _, tag = tagged.partition(".")
        if name in tags and tag:
            tags[name].append(tag)
    for name, several in tags.items():
        config = get_pretrained_cfg(name)
        several.sort(key=lambda tag, first=config.tag if config else "": (tag != first, tag))  # type: ignore[misc]
    return {name: LibraryNetwork(tuple(several)) for name, several in tags.items()}


def _of_torchvision() -> dict[str, LibraryNetwork]:
    from torchvision import models

    known = {}
    for name in models.list_models(module=models):
        weights = models.get_model_weights(name)
        default = weights.__members__["DEFAULT"]
        tags = (default.name, *(each.name for each in weights if each.name != default.name))
        known[f"tv:{name}"] = LibraryNetwork(tags, default.meta["num_params"])
    return known
