"""Every network that some command takes by name: what the subcommands list, and the names that many of them share."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Iterable, Sequence
from typing import Any

from vtk_cli.catalogue.library_names import LibraryNetwork
from vtk_cli.errors import UserError, nearest
from vtk_cli.families.discovery import members
from vtk_cli.models.listing import ListedNetwork, SharedKind
from vtk_cli.models.names import ALIASES
from vtk_cli.models.spaces.architecture import parse_architecture
from vtk_cli.models.spaces.catalog import RELEASED

FILE = "model_list"
"""The module that a subcommand folder brings."""
_TORCHVISION = "tv:"


def model_lists() -> dict[str, Any]:
    """Subcommand -> its `model_list` module, a `vtk_cli.models.listing.ModelList`."""
    return {name: importlib.import_module(module) for name, module in members(FILE).items()}


def own_names() -> list[ListedNetwork]:
    """What is named here and not by timm or torchvision: aliases, published architectures, the subcommands' own."""
    lists = model_lists()
    aliases = [ListedNetwork(name, "alias", target, _takers("timm", lists)) for name, target in ALIASES.items()]
    released = [_released(name, _takers("architecture", lists)) for name in RELEASED]
    return [*aliases, *(network for each in lists.values() for network in each.listed()), *released]


def library_names(known: dict[str, LibraryNetwork]) -> list[ListedNetwork]:
    """The networks of timm and of torchvision."""
    lists = model_lists()
    takers = {kind: _takers(kind, lists) for kind in ("timm", "torchvision")}
    return [
        ListedNetwork(name, kind, "", takers[kind], one.params, None, one.weights)
        for name, one in known.items()
        for kind in (("torchvision",) if name.startswith(_TORCHVISION) else ("timm",))
    ]


def matching(networks: Sequence[ListedNetwork], pattern: str) -> list[ListedNetwork]:
    """Those whose name the pattern matches.

    Args:
        networks: to choose from.
        pattern: `vit_*` with the shell's wildcards; without any, a part of the name. With a dot, as in
            `resnet50.*`, names are matched with the tag of their weights, a row each.

    Raises:
        UserError: none does; the nearest are named.
    """
    wanted = pattern.strip().lower()
    wanted = wanted if any(sign in wanted for sign in "*?[") else f"*{wanted}*"
    candidates = _with_tags(networks) if "." in wanted else (one for one in networks if not _is_shadowed(one))
    found = [network for network in candidates if fnmatch.fnmatchcase(network.name.lower(), wanted)]
    if not found:
        words = pattern.strip("*? ").lower()
        fix = nearest(words, dict.fromkeys(network.name for network in networks)) or "see all with `vtk models '*'`"
        raise UserError(f"no network matches {pattern!r}", fix=fix)
    return found


def _is_shadowed(network: ListedNetwork) -> bool:
    """Whether the name of a timm network is also an alias, which then is what the name means."""
    return network.kind == "timm" and network.name in ALIASES


def _with_tags(networks: Iterable[ListedNetwork]) -> Iterable[ListedNetwork]:
    for network in networks:
        if network.weights:
            for tag in network.weights:
                name = f"{network.name}.{tag}"
                yield ListedNetwork(name, network.kind, network.what, network.taken_by, network.params, None, (tag,))
        else:
            yield network


def _takers(kind: SharedKind, lists: dict[str, Any]) -> tuple[str, ...]:
    return tuple(each.TAKES[kind] for each in lists.values() if kind in each.TAKES)


def _released(name: str, takers: tuple[str, ...]) -> ListedNetwork:
    space, released = RELEASED[name]
    architecture = parse_architecture(name)
    cost = space.cost(architecture.genes, architecture.shape())
    return ListedNetwork(name, "architecture", released.source, takers, cost.params, cost.macs)
