"""The detector that a training starts from: which one, and with which weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.records import require_outlines
from vtk_cli.detect.backbone import RamSwin
from vtk_cli.detect.backbone_weights import backbone_file, is_new, load_backbone
from vtk_cli.detect.checkpoint import Detector, SavedDetector, load_detector, read_detector
from vtk_cli.detect.configurations import (
    BACKBONES,
    TIMM_BACKBONES,
    BackboneConfig,
    Classes,
    DetectorConfig,
    FeatureBackboneConfig,
    detector_config,
)
from vtk_cli.detect.feature_backbone import FeatureBackbone
from vtk_cli.detect.network import build_detector
from vtk_cli.detect.official_keys import is_official
from vtk_cli.detect.options import DEFAULT_MODEL, IMAGENET, NONE, SCENES_MODEL, TrainOptions
from vtk_cli.detect.trained import weights_file
from vtk_cli.errors import UserError
from vtk_cli.models.feature_maps import FeatureNetwork, feature_network, has_published_weights
from vtk_cli.models.names import NetworkName, file_metadata, parse_network
from vtk_cli.models.weights import NoWeights, read_state_dict
from vtk_cli.models.zoo import PRETRAINED, SCRATCH

_MASK_COEFFICIENTS = 256
_BACKBONE_LR = 0.1
"""DETR's learning rate of a trained ConvNet, as a share of the others' (arXiv 2005.12872)."""
_FETCH = "fetch them elsewhere and give --weights FILE, or give --weights none"


@dataclass(frozen=True, eq=False)
class Start:
    """What a training starts from.

    Args:
        name: of the detector.
        network: the detector.
        source: its first weights, in words.
        trained: the parameters of the backbone that ImageNet weights have, by name.
        backbone_lr: their learning rate, as a share of the others'.
    """

    name: str
    network: Detector
    source: str
    trained: frozenset[str]
    backbone_lr: float


def starting_detector(options: TrainOptions, train: DetectionSet, classes: Classes, console: Console) -> Start:
    """The detector that the options name, with its first weights.

    Args:
        options: of the training.
        train: the training images.
        classes: what their labels mean.
        console: hears what was left out and what is new.

    Raises:
        UserError: options, data and weights do not go together.
    """
    file = None if options.weights in {None, NONE, IMAGENET} else weights_file(str(options.weights))
    saved = read_detector(file) if file is not None and _holds_detector(file) else None
    if options.backbone is None or saved is not None:
        name, config = _configuration(options, train, saved, None, console)
        network = build_detector(config, recompute=options.grad_checkpointing)
        source = _load_swin(options, network, file, console) if saved is None else str(saved.path)
        trained = False
    else:
        _refuse_neck_free(options)
        features = _features(options, parse_network(options.backbone), file, console)
        name, config = _configuration(options, train, None, features, console)
        network = build_detector(config, recompute=options.grad_checkpointing)
        trained = features.weights_source != SCRATCH
        source = f"weights of its backbone ({features.weights_source})" if trained else "random weights"
        if trained and isinstance(network.backbone, FeatureBackbone):
            network.backbone.network.load_state_dict(features.module.state_dict())
    if saved is not None:
        for note in load_detector(network, saved, classes, reset_head=options.reset_head):
            console.note(f"{saved.path}: {note}")
        trained = isinstance(network.backbone, FeatureBackbone)
    _freeze_norms(options, network, trained=trained)
    share = options.backbone_lr if options.backbone_lr is not None else _BACKBONE_LR if trained else 1.0
    return Start(name, network, source, _trained_names(network), share)


def _load_swin(options: TrainOptions, network: Detector, file: Path | None, console: Console) -> str:
    """ImageNet weights into the Swin; what they are, in words."""
    swin = network.config.backbone
    if not (isinstance(network.backbone, RamSwin) and isinstance(swin, BackboneConfig)):
        raise TypeError(f"{swin.name} is no Swin")
    has_published = swin.name in TIMM_BACKBONES
    is_micro = swin.name == BACKBONES["micro"].name
    if file is None and options.weights is None and not (has_published or is_micro):
        console.note(f"timm publishes no weights for {swin.name}: it starts from nothing; see --weights FILE")
    if file is None and (options.weights == NONE or (options.weights is None and not has_published)):
        return "random weights"
    if file is None:
        found = backbone_file(swin, offline=False)
        load_backbone(network.backbone, found.path)
        return f"ImageNet weights of its backbone ({found.source})"
    load_backbone(network.backbone, file)
    _note_new_rest(options, file, console)
    return f"ImageNet weights of its backbone ({file})"


def _features(options: TrainOptions, name: NetworkName, file: Path | None, console: Console) -> FeatureNetwork:
    """The network of `--backbone`, with its weights."""
    if name.factory:
        what = "a detector's weight file could not be read again without running that function"
        raise UserError(what, f"--backbone {name.spec}", "name a timm network")
    if name.path is not None and options.weights is not None:
        what = f"--weights {options.weights} is given too, and the name already brings its weights"
        raise UserError(what, f"--backbone {name.spec}", "leave one of them out")
    weights: str | Path = SCRATCH
    if file is not None:
        weights = file
        _note_new_rest(options, file, console)
    elif options.weights == IMAGENET or (options.weights is None and has_published_weights(name)):
        weights = PRETRAINED
    elif options.weights is None and name.path is None:
        console.note(f"nobody publishes weights for {name.spec}: it starts from nothing; see --weights FILE")
    arguments = {} if options.drop_path is None else {"drop_path_rate": options.drop_path}
    try:
        return feature_network(name, weights=weights, model_args=arguments)
    except NoWeights as error:
        raise NoWeights(error.what, error.where, _FETCH) from error


def _note_new_rest(options: TrainOptions, file: Path, console: Console) -> None:
    if options.reset_head:  # as the recipe for weights of a detector says
        console.note(f"{file}: holds a backbone alone, so all else is new; --recipe paper is the training from there")


def _freeze_norms(options: TrainOptions, network: Detector, *, trained: bool) -> None:
    """Batch norms as `--freeze-bn` says; those of trained weights are frozen unless it says otherwise."""
    backbone = network.backbone
    norms = 0
    wanted = trained if options.freeze_bn == "auto" else options.freeze_bn == "on"
    if wanted and isinstance(backbone, FeatureBackbone):
        norms = backbone.freeze_norms()
    if options.freeze_bn == "on" and not norms:
        raise UserError(f"{network.config.backbone.name} has no batch norms", "--freeze-bn on", "leave it out")


def _trained_names(network: Detector) -> frozenset[str]:
    backbone = network.backbone
    if isinstance(backbone, RamSwin):
        names = [name for name, _ in backbone.named_parameters() if not is_new(name, len(backbone.layers))]
    else:
        names = [f"network.{name}" for name, _ in backbone.network.named_parameters()]
    return frozenset(f"backbone.{name}" for name in names)


def _holds_detector(file: Path) -> bool:
    return "detector" in file_metadata(file) or is_official(read_state_dict(file))


def _refuse_neck_free(options: TrainOptions) -> None:
    if options.model is not None and detector_config(options.model, 1).neck == "none":
        what = f"{options.model} has no neck and needs its DET tokens inside the backbone, where only its Swin has them"
        raise UserError(what, "--backbone", "use vidt-SIZE or vidt-plus-SIZE")


def _configuration(
    options: TrainOptions,
    train: DetectionSet,
    saved: SavedDetector | None,
    features: FeatureNetwork | None,
    console: Console,
) -> tuple[str, DetectorConfig]:
    changes: dict[str, Any] = {}
    for field in ("queries", "dropout"):
        if getattr(options, field) is not None:
            changes[field] = getattr(options, field)
    classes = len(train.class_names)
    if options.model is None and saved is not None:
        name = f"the detector of {saved.path.name}"
        config = replace(saved.config, classes=classes, token_offset=1, **changes)
    else:
        name = options.model or (SCENES_MODEL if options.on_scenes else DEFAULT_MODEL)
        config = detector_config(name, classes, **changes)
    if features is not None:
        config = replace(config, backbone=_backbone_config(features), cross_stages=())
        name = f"{name if name.endswith('micro') else name.rpartition('-')[0]}-{features.architecture}"
    elif options.backbone is not None and saved is not None:
        config = _of_saved(options, config, saved)
    if options.drop_path is not None:
        config = replace(config, backbone=_with_drop_path(config.backbone, options.drop_path))
    config = _with_masks(options, config, train, console)
    if train.most_objects > config.queries:
        what = f"an image has {train.most_objects} objects, and the detector {config.queries} DET tokens"
        console.warn(f"{train.name}: {what}: it learns no more objects an image than that; give --queries")
    return name, config


def _of_saved(options: TrainOptions, config: DetectorConfig, saved: SavedDetector) -> DetectorConfig:
    """The configuration with the backbone of the weight file, which must be the one that was asked for."""
    _refuse_neck_free(options)
    name = parse_network(str(options.backbone))
    if saved.config.backbone.name != name.name or name.path is not None:
        what = f"is a detector on {saved.config.backbone.name}, and --backbone {options.backbone} asks for another"
        raise UserError(what, str(saved.path), "leave --backbone out to go on from it")
    return replace(config, backbone=saved.config.backbone, cross_stages=())


def _backbone_config(features: FeatureNetwork) -> FeatureBackboneConfig:
    arguments = json.dumps(dict(features.model_args))
    return FeatureBackboneConfig(features.architecture, arguments, features.config.mean, features.config.std)


def _with_drop_path(
    backbone: BackboneConfig | FeatureBackboneConfig, rate: float
) -> BackboneConfig | FeatureBackboneConfig:
    if isinstance(backbone, BackboneConfig):
        return replace(backbone, drop_path=rate)
    return replace(backbone, model_args=json.dumps({**json.loads(backbone.model_args), "drop_path_rate": rate}))


def _with_masks(options: TrainOptions, config: DetectorConfig, train: DetectionSet, console: Console) -> DetectorConfig:
    """The configuration with a head for masks or without, as the options and the outlines of the data say."""
    outlined = train.outlined == train.objects
    if options.masks == "on":
        if config.neck == "none":
            raise UserError("a detector without a decoder learns no masks", "--masks on", "use vidt- or vidt-plus-SIZE")
        require_outlines(train)
        config = replace(config, mask_coefficients=config.mask_coefficients or _MASK_COEFFICIENTS)
    elif options.masks == "off" or not outlined:
        if config.mask_coefficients and options.masks == "auto":
            what = f"{train.outlined} of {train.objects} objects have an outline"
            console.note(f"{train.name}: {what}: boxes are learned, no masks")
        config = replace(config, mask_coefficients=0)
    if config.token_labels and not outlined:
        console.warn(f"{train.name}: where an object has no outline, the patches of its whole box learn its class")
    return config
