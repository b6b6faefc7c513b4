"""Detectors on disk: our files, which say what they hold, and the published ones, both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtk_cli.detect.classes import coco_classes, is_of_classes, labels_of, select_labels
from vtk_cli.detect.configurations import (
    BackboneConfig,
    Classes,
    DetectorConfig,
    FeatureBackboneConfig,
    config_from_json,
    config_to_json,
)
from vtk_cli.detect.network import NeckFreeViDT, ViDT, build_detector
from vtk_cli.detect.official_keys import from_official, is_official, to_official
from vtk_cli.errors import UserError
from vtk_cli.files import atomic_path
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

Detector = ViDT | NeckFreeViDT
_CONFIG, _CLASSES = "detector", "classes"
_EXTRAS = ("heads.iou_embed.", "heads.vector_embed.", "token_head.")
"""Heads that a detector may have or not."""
_FREE = {"iou_aware", "token_labels", "token_offset", "mask_coefficients", "classes", "aux", "dropout"}
"""What may differ between the detector that was trained and the one that goes on from it."""


@dataclass(frozen=True)
class SavedDetector:
    """A detector as a file holds it.

    Args:
        config: what it is.
        classes: what its labels mean.
        state: the state dict for `build_detector(config)`, on the CPU.
        path: the file.
        metadata: what else the file says of itself; empty for published weights.
    """

    config: DetectorConfig
    classes: Classes
    state: Mapping[str, Tensor]
    path: Path
    metadata: Mapping[str, str]

    def build(self) -> Detector:
        """The detector, in eval mode on the CPU.

        Raises:
            UserError: the weights do not fit the configuration.
        """
        with as_described(self.path):
            network = build_detector(self.config)
        load_exactly(network, self.state, str(self.path))
        return network.eval()


def save_detector(
    path: Path,
    state: Mapping[str, Tensor],
    config: DetectorConfig,
    classes: Classes,
    note: Mapping[str, str] | None = None,
) -> None:
    """Write a detector that `read_detector` reads.

    Args:
        path: `.safetensors`.
        state: of `build_detector(config)`.
        config: what it is.
        classes: what its labels mean.
        note: what else the file says of itself, e.g. its preprocessing.

    Raises:
        JobError: the disk is full.
        UserError: the folder may not be written.
    """
    metadata = {
        **(note or {}),
        _CONFIG: json.dumps(config_to_json(config)),
        _CLASSES: classes_to_text(classes.names, classes.category_ids),
    }
    save_described(path, state, metadata)


def save_official(path: Path, state: Mapping[str, Tensor], config: DetectorConfig) -> None:
    """Write a detector as the published ones are: `torch.save` of {"model": tensors by the published names}.

    Raises:
        JobError: the disk is full.
        UserError: the folder may not be written, or the form, which holds tensors alone, cannot tell what they are of.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in to_official(state, config).items()}
    differs = _differences(from_official(tensors, str(path)).config, config)
    if differs:
        raise UserError(f"the published form cannot tell: {'; '.join(differs)}", str(path), "keep that of vtk detect")
    with atomic_path(path) as temporary:
        torch.save({"model": tensors}, temporary)


def read_detector(path: Path) -> SavedDetector:
    """A detector from a file of ours or a published one (`vidt_*.pth`), told apart by what is in it.

    Raises:
        UserError: it cannot be read, holds no detector, or its tensors fit none.
    """
    state, metadata = read_state_dict(path), file_metadata(path)
    if _CONFIG not in metadata and is_official(state):
        converted = from_official(state, str(path))
        classes = (
            coco_classes() if converted.config.classes == len(coco_classes().names) else _numbered(converted.config)
        )
        return SavedDetector(converted.config, classes, converted.state, path, {})
    if _CONFIG not in metadata or _CLASSES not in metadata:
        raise UserError("holds no detector", str(path), "name a file of vtk detect or a published vidt_*.pth")
    try:
        said = json.loads(metadata[_CONFIG])
        refuse_absurd(said, path)
        config = config_from_json(said)
        classes = Classes(*classes_from_text(metadata[_CLASSES]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"describes no detector ({error})", str(path), "write the file anew") from error
    if isinstance(config.backbone, FeatureBackboneConfig):
        require_nameable(config.backbone.name, config.backbone.model_args, path)
    if len(classes.names) != config.classes:
        what = f"names {len(classes.names)} classes for a detector of {config.classes}"
        raise UserError(what, str(path), "write the file anew")
    rest = {key: value for key, value in metadata.items() if key not in (_CONFIG, _CLASSES)}
    return SavedDetector(config, classes, state, path, rest)


def load_detector(network: Detector, saved: SavedDetector, classes: Classes, *, reset_head: bool = False) -> list[str]:
    """Load what was saved into a detector of the same size, for the same or other classes.

    Classes that the file knows by name keep their rows, whatever else it knows. IoU, token and mask heads that the file
    has no weights for stay as they are; those that `network` has not are left out.

    Args:
        network: for `classes`.
        saved: what goes in.
        classes: what the labels of `network` mean.
        reset_head: the classifiers stay as they are: everything else goes in.

    Returns:
        For the user, in plain words: what was left out and what stays as it was.

    Raises:
        UserError: another backbone, number of DET tokens, neck or decoder; or other classes without `reset_head`.
    """
    where = str(saved.path)
    differs = _differences(network.config, saved.config)
    if differs:
        raise UserError(f"is of another size: {'; '.join(differs)}", where, "choose the detector it was trained as")
    state, notes = dict(saved.state), []
    if reset_head:
        state = {name: tensor for name, tensor in state.items() if not is_of_classes(name)}
        notes.append(f"the classifier is new, for {some_names(classes.names)}")
    elif classes.names != saved.classes.names or saved.config.token_offset != network.config.token_offset:
        labels = None if saved.config.neck == "none" else labels_of(classes, saved.classes)
        if labels is None:
            what = (
                f"knows other classes ({some_names(saved.classes.names)}) than asked for ({some_names(classes.names)})"
            )
            raise UserError(what, where, "learn a new classifier with --reset-head")
        state, _ = select_labels(state, saved.config, labels)
        if len(labels) < len(saved.classes.names):
            notes.append(f"{len(labels)} of its {len(saved.classes.names)} classes are used")
    own = network.state_dict()
    for extra in _EXTRAS:
        here = any(name.startswith(extra) for name in own)
        there = any(name.startswith(extra) for name in saved.state)
        if there and not here:
            state = {name: tensor for name, tensor in state.items() if not name.startswith(extra)}
            notes.append(f"{extra[:-1]} of the file is left out")
        if here and not there:
            state |= {name: tensor for name, tensor in own.items() if name.startswith(extra)}
            notes.append(f"{extra[:-1]} is not in the file and is new")
    if reset_head:
        state |= {name: tensor for name, tensor in own.items() if is_of_classes(name)}
    misfit = mismatch(network, state)
    if misfit:
        raise UserError(misfit, where, "name weights of the same detector")
    network.load_state_dict(state)
    return notes


def _differences(wanted: DetectorConfig, have: DetectorConfig) -> list[str]:
    """Everything in which two detectors differ that has to be the same."""
    differs = []
    for field in fields(DetectorConfig):
        here, there = getattr(wanted, field.name), getattr(have, field.name)
        if field.name == "backbone":
            if _size(here) != _size(there):
                differs.append(f"backbone {there.name}, not {here.name}")
        elif field.name not in _FREE and here != there:
            differs.append(f"{field.name.replace('_', ' ')} {_plain(there)}, not {_plain(here)}")
    return differs


def _size(backbone: BackboneConfig | FeatureBackboneConfig) -> tuple[Any, ...]:
    """What of a backbone has to be the same."""
    if isinstance(backbone, BackboneConfig):
        return backbone.width, backbone.depths, backbone.heads, backbone.window
    arguments = json.loads(backbone.model_args)
    arguments.pop("drop_path_rate", None)
    return backbone.name, arguments, backbone.mean, backbone.std


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _numbered(config: DetectorConfig) -> Classes:
    labels = range(config.classes)
    return Classes(tuple(f"class {label}" for label in labels), tuple(labels))
