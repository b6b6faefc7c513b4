"""A trained classifier on disk: its weights with everything that is needed to use them, found again by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from timm.data import ImageNetInfo, infer_imagenet_subset

from vtk_cli.engine.run_config import RunConfig
from vtk_cli.engine.run_weights import Which, newest_run, weights_of_run
from vtk_cli.errors import UserError
from vtk_cli.models.names import file_metadata
from vtk_cli.models.trained_weights import CLASSES, MULTI_LABEL
from vtk_cli.models.zoo import Network, create_network

RUNS = Path("runs/train")


@dataclass(frozen=True)
class Trained:
    """A classifier that is ready to use.

    Args:
        network: with its weights and preprocessing.
        class_names: by label, as the class folders are called.
        descriptions: by label, for people.
        multi_label: whether an image may have many labels.
        run: the configuration of the run that trained it; None for other weights.
    """

    network: Network
    class_names: tuple[str, ...]
    descriptions: tuple[str, ...]
    multi_label: bool
    run: RunConfig | None


def open_trained(spec: str, which: Which = "last") -> Trained:
    """The classifier that `spec` names.

    Args:
        spec: a run folder, a weight file, or the name of a network with published weights; empty: the newest run in
            `runs/train`.
        which: of a run, the weights at its end, their average, or those that did best on its validation images.

    Raises:
        UserError: there is none, or the weights do not fit.
    """
    folder = Path(spec) if spec else newest_run(RUNS, "MODEL")
    if folder.is_dir():
        return _described(create_network(str(weights_of_run(folder, which))), RunConfig.read(folder))
    if len(folder.parts) > 1 and folder.parent.is_dir() and not folder.exists():
        raise UserError("no such run folder or weight file", spec, "check the path")
    return _described(create_network(spec), None)


def _described(network: Network, run: RunConfig | None) -> Trained:
    metadata = file_metadata(network.name.path) if network.name.path is not None else {}
    if CLASSES in metadata:
        names = _read_names(metadata[CLASSES], network)
        return Trained(network, names, names, metadata.get(MULTI_LABEL) == "true", run)
    subset = infer_imagenet_subset(network.module)
    if subset is None:
        names = tuple(str(index) for index in range(network.num_classes))
        return Trained(network, names, names, multi_label=False, run=run)
    known = ImageNetInfo(subset)
    labels = range(known.num_classes())
    return Trained(
        network,
        tuple(known.index_to_label_name(label) for label in labels),
        tuple(known.index_to_description(label) for label in labels),
        multi_label=False,
        run=run,
    )


def _read_names(text: str, network: Network) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or len(names) != network.num_classes:
        raise UserError("its class names do not fit its classes", str(network.name.path), "write the file anew")
    return tuple(str(name) for name in names)
