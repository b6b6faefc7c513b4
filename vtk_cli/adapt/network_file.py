"""A network trained on a source, in a file that says what it is: adaptation can start from it without the source."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from vtk_cli.adapt.backbones import DIGITS
from vtk_cli.adapt.networks import DomainNetwork, build_network
from vtk_cli.console import Console
from vtk_cli.engine.seeds import preserved_rng
from vtk_cli.errors import UserError
from vtk_cli.models.described_weights import as_described, refuse_absurd, save_described
from vtk_cli.models.feature_maps import require_nameable
from vtk_cli.models.names import file_metadata
from vtk_cli.models.preprocessing import pixels_from_json
from vtk_cli.models.trained_weights import CLASSES
from vtk_cli.models.weights import load_exactly, read_state_dict
from vtk_cli.models.zoo import network_metadata

_KIND = "vtk adapt network"


def save_network(path: Path, network: DomainNetwork, class_names: tuple[str, ...]) -> None:
    """Write a network with both domains' batch normalisation.

    Args:
        path: `.safetensors`.
        network: in any stage.
        class_names: by label.

    Raises:
        JobError: the disk is full.
    """
    if len(class_names) != network.classes:
        raise ValueError(f"{len(class_names)} class names for {network.classes} classes")
    said = network_metadata(network.origin.architecture, network.pixels, network.origin.model_args)
    further = {"kind": _KIND, "width": str(network.width), "domain_norm": json.dumps(network.domain_norm)}
    save_described(path, network.state_dict(), {**said, CLASSES: json.dumps(class_names), **further})


def open_network(path: Path, console: Console) -> tuple[DomainNetwork, tuple[str, ...]]:
    """The network of a file and the names of its classes.

    Args:
        path: that `save_network` wrote.
        console: as `networks.build_network` takes it.

    Raises:
        UserError: the file is missing or damaged, or holds something else.
    """
    if not path.is_file():
        raise UserError("no such file", str(path), "check the path")
    state, said = read_state_dict(path), file_metadata(path)
    if said.get("kind") != _KIND:
        raise UserError("holds no network of vtk adapt", str(path), "name its source.safetensors, or a folder of FE.pt")
    try:
        names = tuple(str(name) for name in json.loads(said[CLASSES]))
        width, domain_norm = int(said["width"]), bool(json.loads(said["domain_norm"]))
        architecture, arguments = said["architecture"], said["model_args"]
        refuse_absurd((width, json.loads(arguments)), path)
        pixels = pixels_from_json(said["pixels"], path)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"does not say what it holds ({error})", str(path), "write the file anew") from error
    if architecture != DIGITS:
        require_nameable(architecture, arguments, path)
    with preserved_rng(), as_described(path):
        network = build_network(
            architecture,
            classes=len(names),
            console=console,
            model_args=json.loads(arguments),
            size=pixels.input_size if architecture == DIGITS else None,
            width=width,
            domain_norm=domain_norm,
        )
    network.origin = replace(network.origin, pixels=pixels, weights_source=f"file: {path}")
    load_exactly(network, state, str(path))
    return network, names
