"""An architecture as people write and keep it: words on the command line, and a JSON file. Imports nothing heavy.

    {"space": "darts", "form": "imagenet", "genes": [3, 6, ...], "width": 46, "cells": 14, "num_classes": 1000,
     "resolution": 224, "flops": 579473088, "params": 5195176, "score": {...}, "supernet_sha256": "..."}

A weight file names it in one word, `searched:darts/3.6.0.../form=imagenet/width=46/cells=14/resolution=224`.

Read are also a file with `normal` and `reduce`, the genotype lists of DARTS; one that is a plain list of genes; and one
whose `arch` or whole content is a string of NAS-Bench-201.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtk_cli.errors import UserError, nearest
from vtk_cli.files import write_json
from vtk_cli.models.spaces.catalog import RELEASED, SPACES, space_named
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Shape, Space

SUFFIX = ".json"
NAMED = "searched:"
"""What the name of a network begins with that is an architecture of a space."""
_SIZES = ("form", "width", "cells", "resolution")
CLASSES = 10
"""Of a network whose number of classes nobody said."""
_IMAGENET = 1000
"""Classes of the published networks."""


@dataclass(frozen=True)
class Architecture:
    """An architecture, and what is known of the network that it stands for; None is left to whoever builds it.

    Args:
        space: whose it is.
        genes: of it.
        form: of the network.
        width: channels that the other widths are multiples of.
        cells: number of cells.
        classes: of the images.
        resolution: side of the input, in pixels.
        found: what else its file says: its score, the supernet it was found with.
    """

    space: Space
    genes: Genes
    form: str | None = None
    width: int | None = None
    cells: int | None = None
    classes: int | None = None
    resolution: int | None = None
    found: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def shape(
        self,
        *,
        form: str | None = None,
        classes: int | None = None,
        resolution: int | None = None,
        width: int | None = None,
        cells: int | None = None,
    ) -> Shape:
        """The shape of its network; arguments win over what the architecture says, the form's own come last.

        Raises:
            UserError: the space has no such form, or the form cannot have that size.
        """
        wanted = form or self.form or self.space.alone
        kept = self if wanted == (self.form or self.space.alone) else Architecture(self.space, self.genes)
        return self.space.shape(
            wanted,
            classes or kept.classes or CLASSES,
            resolution=resolution or kept.resolution,
            width=width or kept.width,
            cells=cells or kept.cells,
        )

    def as_json(self, shape: Shape) -> dict[str, Any]:
        """The content of its file, for a network of the given shape."""
        cost = self.space.cost(self.genes, shape)
        sizes = {"width": shape.width, "cells": shape.cells}
        return {
            "space": self.space.name,
            "form": shape.form,
            "genes": list(self.genes),
            **{name: size for name, size in sizes.items() if size},
            "num_classes": shape.classes,
            "resolution": shape.resolution,
            "flops": cost.macs,
            "params": cost.params,
            **self.found,
        }


def write_architecture(path: Path, architecture: Architecture, shape: Shape) -> None:
    """Write its file.

    Raises:
        JobError, UserError: the disk is full, or the folder may not be written.
    """
    write_json(path, architecture.as_json(shape))


def network_name(architecture: Architecture, shape: Shape | None = None) -> str:
    """The one word that weight files and `models.names` call the network of an architecture.

    Args:
        architecture: which.
        shape: of its network; None leaves what the architecture does not say to whoever builds it.
    """
    known: Any = architecture if shape is None else shape
    sizes = {name: getattr(known, name) for name in _SIZES}
    said = [f"{name}={value}" for name, value in sizes.items() if value]
    return NAMED + "/".join((architecture.space.name, ".".join(map(str, architecture.genes)), *said))


def read_network_name(name: str) -> Architecture:
    """The architecture that `network_name` wrote, or a published one: `searched:genas-flatness-cifar10`.

    Raises:
        UserError: the word says no architecture.
    """
    text = name.removeprefix(NAMED)
    space, *parts = text.split("/")
    if not parts:
        return parse_architecture(text) if text in RELEASED else _no_network(name)
    genes, *sizes = parts
    try:
        given = dict(size.split("=", 1) for size in sizes)
        content = {size: value if size == "form" else int(value) for size, value in given.items()}
        numbers = [int(gene) for gene in genes.split(".")]
    except ValueError:
        return _no_network(name)
    if not content.keys() <= set(_SIZES):
        return _no_network(name)
    return _from_json({"space": space, "genes": numbers, **content})


def _no_network(name: str) -> Architecture:
    raise UserError(f"{name!r} names no architecture", fix=f"write e.g. {NAMED}chain-a/2.0.3, or a published name")


def parse_architecture(text: str, space: str | None = None) -> Architecture:
    """What a user wrote: the path of a file, a published name, a string of NAS-Bench-201, or genes.

    Args:
        text: `arch.json`, `genas-flatness-cifar100`, `|nor_conv_3x3~0|+...`, `2 0 3`.
        space: whose genes these are; None where the text says so itself.

    Raises:
        UserError: it is none of these, or of another space.
    """
    text = text.strip()
    path = Path(text)
    if path.suffix == SUFFIX:
        return _checked(read_architecture(path), space)
    name = text.lower().replace("_", "-")
    if name in RELEASED:
        home, released = RELEASED[name]
        published = Architecture(home, released.genes, released.form, released.width, classes=_IMAGENET)
        return _checked(published, space)
    if text.startswith("|"):
        return _checked(_in_space("nasbench201", text), space)
    if space is None:
        known = nearest(name, RELEASED) or f"published are {', '.join(RELEASED)}; genes need --space"
        raise UserError(f"{text!r} is no architecture", fix=known)
    return _in_space(space, text)


def read_architecture(path: Path) -> Architecture:
    """The architecture in a file.

    Raises:
        UserError: naming the file: it cannot be read, or holds no architecture.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", str(path), "check the path") from error
    except (ValueError, RecursionError) as error:
        raise UserError("is no JSON", str(path), "give an architecture file") from error
    try:
        return _from_json(content)
    except UserError as error:
        what = f"{error.where}: {error.what}" if error.where else error.what
        raise UserError(what, str(path), error.fix) from error


def _checked(architecture: Architecture, space: str | None) -> Architecture:
    if space not in {None, architecture.space.name}:
        what = f"the architecture is of {architecture.space.name}, not of {space}"
        raise UserError(what, fix="leave --space out")
    return architecture


def _in_space(space: str, text: str) -> Architecture:
    home = space_named(space)
    return Architecture(home, home.parse(text))


def _from_json(content: object) -> Architecture:
    if isinstance(content, list):
        content = {"genes": content}
    if isinstance(content, str):
        content = {"arch": content}
    if not isinstance(content, dict):
        raise UserError("holds no architecture", fix='write {"space": "darts", "genes": [...]}')
    space = _space_of(content)
    genes = _genes_of(content, space)
    space.validate(genes)
    form = content.get("form")
    if form is not None and (not isinstance(form, str) or form not in space.forms):
        raise UserError(f"{space.name} has no networks of the form {form!r}", fix=f"there are {', '.join(space.forms)}")
    sizes = {name: _whole(content, name) for name in ("width", "cells", "num_classes", "resolution")}
    found = {name: content[name] for name in ("score", "supernet_sha256") if name in content}
    architecture = Architecture(
        space,
        genes,
        form or _form_of_cells(space, sizes["cells"]),
        sizes["width"],
        sizes["cells"],
        sizes["num_classes"],
        sizes["resolution"],
        found,
    )
    architecture.shape()
    return architecture


def _space_of(content: Mapping[str, Any]) -> Space:
    if "space" in content:
        return space_named(str(content["space"]))
    if "normal" in content:
        return SPACES["darts"]
    if "arch" in content:
        return SPACES["nasbench201"]
    lengths = {space.length: space for space in SPACES.values() if space.name not in {"chain-a", "chain-b"}}
    genes = content.get("genes")
    if isinstance(genes, list) and len(genes) in lengths:
        return lengths[len(genes)]
    raise UserError("does not say of which space it is", fix=f'add "space": one of {", ".join(SPACES)}')


def _genes_of(content: Mapping[str, Any], space: Space) -> Genes:
    if "genes" in content:
        genes = content["genes"]
        if not isinstance(genes, list) or not all(type(gene) is int for gene in genes):
            raise UserError("its genes are no list of integers", fix=f"{space.name} has {space.length} genes")
        return tuple(genes)
    if "normal" in content:
        lists = {cell: content.get(cell, content.get(f"{cell}ion")) for cell in ("normal", "reduce")}
        return space.parse(json.dumps(lists))
    if isinstance(content.get("arch"), str):
        return space.parse(content["arch"])
    raise UserError("has no genes", fix=f'add "genes": the {space.length} integers')


def _whole(content: Mapping[str, Any], name: str) -> int | None:
    value = content.get(name)
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise UserError(f"its {name} is {value!r}", fix="give a positive whole number")
    return value


def _form_of_cells(space: Space, cells: int | None) -> str | None:
    """The form with so many cells, where a file does not say which: `imagenet` of 14 cells of DARTS."""
    return next(
        (name for name, form in space.forms.items() if cells and form.cells == cells and name != "supernet"), None
    )
