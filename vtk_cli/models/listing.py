"""What a list of networks says of each one. Imports nothing heavy.

A subcommand folder brings a `model_list.py` with

    TAKES       kind -> where such a network is named, e.g. {"timm": "vtk train --model"}; the kinds are `SHARED`
    listed()    the networks that are this subcommand's own
    built(name) one of them with the arguments of its forward pass, where listed() has any that can be built
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import nn

SharedKind = Literal["timm", "torchvision", "architecture"]
OwnKind = Literal["alias", "space", "classifier", "detector", "segmenter", "video", "generator"]
Kind = SharedKind | OwnKind

Built = tuple["nn.Module", tuple[Any, ...]]
"""A network, and the arguments of a forward pass of one image, clip or noise."""


@dataclass(frozen=True)
class ListedNetwork:
    """A network that users can name.

    Args:
        name: what they type.
        kind: what sort of a name it is.
        what: what it is, in a line; may be empty.
        taken_by: where it is typed, e.g. `vtk train --model`.
        params: parameters, where known without building it.
        macs: multiply-adds of one forward pass, where known without building it.
        weights: tags of published weights.
    """

    name: str
    kind: Kind
    what: str = ""
    taken_by: tuple[str, ...] = ()
    params: int | None = None
    macs: int | None = None
    weights: tuple[str, ...] = ()


class ModelList(Protocol):
    """The module that a subcommand brings."""

    TAKES: Mapping[SharedKind, str]
    listed: Callable[[], tuple[ListedNetwork, ...]]
    built: Callable[[str], Built]
