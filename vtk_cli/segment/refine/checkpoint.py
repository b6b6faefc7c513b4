"""MaskRefineNets on disk: our files, which say what they hold, and the published ones, which are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vtk_cli.data.points.records import Classes
from vtk_cli.errors import UserError
from vtk_cli.models.described_weights import classes_from_text, classes_to_text, save_described
from vtk_cli.models.names import file_metadata
from vtk_cli.models.weights import load_exactly, read_state_dict
from vtk_cli.segment.refine.configurations import RESNET101, RefineConfig, refine_config
from vtk_cli.segment.refine.network import (
    MaskRefineNet,
    MicroRefineNet,
    build_refine_network,
    input_channels,
    official_state,
)
from vtk_cli.segment.solov2.checkpoint import coco_classes

_CONFIG, _CLASSES = "refiner", "classes"
_PUBLISHED_STEM = "layer0.0.weight"


@dataclass(frozen=True)
class SavedRefiner:
    """A network as a file holds it.

    Args:
        config: what it is.
        classes: what its labels mean.
        state: the state dict for `build_refine_network(config, ...)`, on the CPU.
        path: the file.
    """

    config: RefineConfig
    classes: Classes
    state: Mapping[str, Tensor]
    path: Path

    def build(self) -> MaskRefineNet | MicroRefineNet:
        """The network, in eval mode on the CPU.

        Raises:
            UserError: the weights do not fit the configuration.
        """
        network = build_refine_network(self.config, len(self.classes.names))
        load_exactly(network, self.state, str(self.path))
        return network.eval()


def save_refiner(path: Path, state: Mapping[str, Tensor], config: RefineConfig, classes: Classes) -> None:
    """Write a network that `read_refiner` reads.

    Args:
        path: `.safetensors`.
        state: of the network.
        config: what it is.
        classes: what its labels mean.

    Raises:
        JobError: the disk is full.
        UserError: the folder may not be written.
    """
    save_described(path, state, {_CONFIG: config.name, _CLASSES: classes_to_text(classes.names, classes.ids)})


def read_refiner(path: Path) -> SavedRefiner:
    """A network from a file of ours or a published one, told apart by what is in it.

    Published weights know COCO's 80 classes, or as many without a name as their first convolution has channels for.

    Raises:
        UserError: it cannot be read, or holds no MaskRefineNet.
    """
    state, metadata = read_state_dict(path), file_metadata(path)
    if _CONFIG not in metadata and _PUBLISHED_STEM in state:
        classes = _published_classes(state[_PUBLISHED_STEM].shape[1] - input_channels(0), path)
        return SavedRefiner(RESNET101, classes, official_state(state), path)
    if _CONFIG not in metadata or _CLASSES not in metadata:
        raise UserError("holds no MaskRefineNet", str(path), "name a file of vtk segment refine, or published weights")
    try:
        classes = Classes(*classes_from_text(metadata[_CLASSES]))
    except ValueError as error:
        raise UserError(f"its classes cannot be read ({error})", str(path), "write it anew") from error
    return SavedRefiner(refine_config(metadata[_CONFIG]), classes, state, path)


def _published_classes(count: int, path: Path) -> Classes:
    coco = coco_classes()
    if count == len(coco.names):
        return coco
    if count < 1:
        raise UserError("has too few input channels for a MaskRefineNet", str(path))
    return Classes(tuple(f"class {number}" for number in range(1, count + 1)), tuple(range(1, count + 1)))
