"""Networks on disk: our files, which say what they hold, and the published ones, which are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from vtk_cli.data.points import Classes
from vtk_cli.errors import UserError
from vtk_cli.models.described_weights import (
    as_described,
    classes_from_text,
    classes_to_text,
    refuse_absurd,
    save_described,
    some_names,
)
from vtk_cli.models.feature_maps import require_nameable
from vtk_cli.models.names import file_metadata
from vtk_cli.models.weights import load_exactly, mismatch, read_state_dict
from vtk_cli.segment.solov2.configurations import (
    MICRO_BACKBONE,
    Role,
    SegmenterConfig,
    config_from_json,
    config_to_json,
)
from vtk_cli.segment.solov2.network import SOLOv2
from vtk_cli.segment.solov2.published_keys import from_published, is_published

_CONFIG, _CLASSES = "segmenter", "classes"
_HEAD = "ins_head.cate_pred."


@dataclass(frozen=True)
class SavedSegmenter:
    """A network as a file holds it.

    Args:
        config: what it is.
        classes: what its labels mean.
        state: the state dict for `SOLOv2(config)`, on the CPU.
        path: the file.
        metadata: what else the file says of itself; empty for published weights.
    """

    config: SegmenterConfig
    classes: Classes
    state: Mapping[str, Tensor]
    path: Path
    metadata: Mapping[str, str]

    def build(self) -> SOLOv2:
        """The network, in eval mode on the CPU.

        Raises:
            UserError: the weights do not fit the configuration.
        """
        with as_described(self.path):
            network = SOLOv2(self.config)
        load_exactly(network, self.state, str(self.path))
        return network.eval()


def save_segmenter(
    path: Path,
    state: Mapping[str, Tensor],
    config: SegmenterConfig,
    classes: Classes,
    note: Mapping[str, str] | None = None,
) -> None:
    """Write a network that `read_segmenter` reads.

    Args:
        path: `.safetensors`.
        state: of `SOLOv2(config)`.
        config: what it is.
        classes: what its labels mean.
        note: what else the file says of itself, e.g. the size of its images.

    Raises:
        JobError: the disk is full.
        UserError: the folder may not be written.
    """
    metadata = {
        **(note or {}),
        _CONFIG: json.dumps(config_to_json(config)),
        _CLASSES: classes_to_text(classes.names, classes.ids),
    }
    save_described(path, state, metadata)


def read_segmenter(path: Path, role: Role = "student") -> SavedSegmenter:
    """A network from a file of ours or a published one, told apart by what is in it.

    Args:
        path: the file.
        role: whose grids published weights get; our files say.

    Raises:
        UserError: it cannot be read, holds no SOLOv2, or its tensors fit none.
    """
    state, metadata = read_state_dict(path), file_metadata(path)
    if _CONFIG not in metadata and is_published(state):
        converted = from_published(state, role, str(path))
        return SavedSegmenter(converted.config, _published_classes(converted.config), converted.state, path, {})
    if _CONFIG not in metadata or _CLASSES not in metadata:
        fix = "name a file of vtk segment, or published SOLOv2 weights of mmdet or AdelaiDet"
        raise UserError("holds no SOLOv2", str(path), fix)
    try:
        said = json.loads(metadata[_CONFIG])
        refuse_absurd(said, path)
        config = config_from_json(said)
        classes = Classes(*classes_from_text(metadata[_CLASSES], config.classes))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"its description cannot be read ({error})", str(path), "write it anew") from error
    if config.backbone != MICRO_BACKBONE:
        require_nameable(config.backbone, "{}", path)
    rest = {name: value for name, value in metadata.items() if name not in {_CONFIG, _CLASSES}}
    return SavedSegmenter(config, classes, state, path, rest)


def start_from(network: SOLOv2, classes: Classes, saved: SavedSegmenter, *, reset_head: bool) -> None:
    """Load weights into a network that goes on from them; grids and size ranges may differ, for no weight knows them.

    Args:
        network: for `classes`.
        classes: what the labels of `network` mean.
        saved: what goes in.
        reset_head: the classifier stays as it is: everything else goes in.

    Raises:
        UserError: another backbone or size; or other classes without `reset_head`.
    """
    where = str(saved.path)
    state = dict(saved.state)
    if reset_head:
        state |= {name: tensor for name, tensor in network.state_dict().items() if name.startswith(_HEAD)}
    elif classes != saved.classes:
        what = f"knows other classes ({some_names(saved.classes.names)}) than the data ({some_names(classes.names)})"
        raise UserError(what, where, "learn a new classifier with --reset-head")
    if network.config.stride_in_1x1 != saved.config.stride_in_1x1:
        raise UserError("is on another kind of ResNet", where, "build the network as the file says")
    differs = mismatch(network, state)
    if differs:
        raise UserError(differs, where, "name weights of the same network")
    network.load_state_dict(state)


def coco_classes() -> Classes:
    """COCO's 80 classes with its own category ids, in the order of the published weights."""
    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    used = [(name, number) for number, name in enumerate(names) if not name.startswith("__") and name != "N/A"]
    return Classes(tuple(name for name, _ in used), tuple(number for _, number in used))


def _published_classes(config: SegmenterConfig) -> Classes:
    coco = coco_classes()
    if config.classes == len(coco.names):
        return coco
    numbers = tuple(range(1, config.classes + 1))
    return Classes(tuple(f"class {number}" for number in numbers), numbers)
