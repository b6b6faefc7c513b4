"""Networks on disk: our files, which say what they hold, and checkpoints of PySlowFast and TIME, which are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vtk_cli.engine.run_weights import LAST, Which, newest_run, weights_of_run
from vtk_cli.errors import UserError
from vtk_cli.models.described_weights import as_described, refuse_absurd, save_described
from vtk_cli.models.names import file_metadata
from vtk_cli.models.weights import load_exactly, read_state_dict
from vtk_cli.video_pretrain.networks.backbone import VideoBackbone
from vtk_cli.video_pretrain.networks.building import create_backbone
from vtk_cli.video_pretrain.networks.catalog import backbone_entry
from vtk_cli.video_pretrain.networks.foreign_checkpoints import ForeignWeights, load_foreign, read_foreign

RUNS = Path("runs/video-pretrain-run")
_NETWORK, _BACKBONE, _HEAD = "video network", "backbone.", "head."
_FOREIGN = (".pyth",)


@dataclass(frozen=True)
class NetworkConfig:
    """What a network is, and which clips it was trained with.

    Args:
        name: for `create_backbone`.
        frames, side: of its clips.
        sampling: which frames make a clip, as `--sampling`.
        mean, std: of the normalisation.
        scale: short side of a frame in a test.
        model_args: for its constructor.
    """

    name: str
    frames: int
    side: int
    sampling: str
    mean: float
    std: float
    scale: int
    model_args: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> VideoBackbone:
        """The network with random weights, from torch's global generator."""
        return create_backbone(self.name, frames=self.frames, side=self.side, **self.model_args)


@dataclass(frozen=True, eq=False)
class SavedNetwork:
    """A network as a file holds it.

    Args:
        path: the file.
        config: what it is.
        backbone: with its weights, in eval mode on the CPU.
        head: the class layer's `weight` (K, D) and `bias` (K,); empty for a network without classes.
        classes: their names; empty without.
        notes: what to tell the user.
    """

    path: Path
    config: NetworkConfig
    backbone: VideoBackbone
    head: Mapping[str, Tensor]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def class_layer(self) -> nn.Linear | None:
        """From features to class scores; None without classes."""
        if not self.head:
            return None
        classes, width = self.head["weight"].shape
        layer = nn.Linear(width, classes)
        layer.load_state_dict(dict(self.head))
        return layer.eval()


def save_network(
    path: Path,
    config: NetworkConfig,
    backbone: nn.Module,
    head: nn.Module | None,
    classes: tuple[str, ...],
    *,
    note: Mapping[str, str] | None = None,
) -> None:
    """Write a network that `read_network` reads.

    Args:
        path: `.safetensors`.
        config: what it is.
        backbone: its weights.
        head: the class layer; None without classes.
        classes: their names.
        note: what else the file says of itself.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    state = {f"{_BACKBONE}{name}": tensor for name, tensor in backbone.state_dict().items()}
    if head is not None:
        state |= {f"{_HEAD}{name}": tensor for name, tensor in head.state_dict().items()}
    said = {**vars(config), "model_args": dict(config.model_args), "classes": list(classes if head is not None else ())}
    save_described(path, state, {**(note or {}), _NETWORK: json.dumps(said)})


def holds_network(path: Path) -> bool:
    """Whether a file is one that `read_network` reads.

    Raises:
        UserError: a safetensors file that is damaged.
    """
    return path.suffix in _FOREIGN or _NETWORK in file_metadata(path)


def read_network(path: Path, config: NetworkConfig | None = None) -> SavedNetwork:
    """A network from a file of ours, or of PySlowFast or TIME.

    Args:
        path: the file.
        config: for a foreign file: how clips are made; None takes what its positions say, and `dense:8x8`.

    Raises:
        UserError: it cannot be read, or holds no video network known here.
    """
    if path.suffix in _FOREIGN:
        return _read_foreign(path, config)
    state, metadata = read_state_dict(path), file_metadata(path)
    if not holds_network(path):
        fix = "name a file of vtk video-pretrain, or a .pyth of PySlowFast or TIME"
        raise UserError("holds no video network", str(path), fix)
    try:
        said = json.loads(metadata[_NETWORK])
        classes = tuple(map(str, said.pop("classes")))
        refuse_absurd(said, path)
        found = NetworkConfig(**said)
        with as_described(path):
            backbone = found.build()
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"its description cannot be read ({error})", str(path), "write it anew") from error
    load_exactly(backbone, _part(state, _BACKBONE), str(path))
    return SavedNetwork(path, found, backbone.eval(), _part(state, _HEAD), classes)


def open_network(spec: str, which: Which = "last", config: NetworkConfig | None = None) -> SavedNetwork:
    """The network that a user names: a run folder, a weight file; empty: the newest run.

    Raises:
        UserError: there is none.
    """
    path = Path(spec) if spec else newest_run(RUNS, "MODEL")
    if path.is_dir():
        return read_network(weights_of_run(path, which), config)
    if not path.is_file():
        raise UserError("no such run folder or weight file", str(path), f"name a run, or a file such as RUN/{LAST}")
    return read_network(path, config)


def start_from(backbone: VideoBackbone, name: str, file: str) -> SavedNetwork:
    """Fill a network with the weights that a run or a file holds.

    Args:
        backbone: of `create_backbone(name, ...)`.
        name: its name, for errors.
        file: a run folder or a weight file.

    Returns:
        What the file holds.

    Raises:
        UserError: it holds another network.
    """
    path = Path(file)
    if path.suffix in _FOREIGN:
        weights = read_foreign(path)
        told = load_foreign(backbone, weights, file)
        config = _foreign_config(weights)
        return SavedNetwork(path, config, backbone, weights.class_head, (), (told,) if told else ())
    saved = open_network(file)
    if saved.config.name != name:
        fix = f"give --model {saved.config.name}"
        raise UserError(f"holds a {saved.config.name}, not a {name}", str(saved.path), fix)
    load_exactly(backbone, saved.backbone.state_dict(), str(saved.path))
    return saved


def _read_foreign(path: Path, config: NetworkConfig | None) -> SavedNetwork:
    weights = read_foreign(path)
    found = config or _foreign_config(weights)
    with torch.random.fork_rng(devices=[]):
        backbone = found.build()
    told = load_foreign(backbone, weights, str(path))
    names = tuple(map(str, range(len(weights.class_head["bias"])))) if weights.class_head else ()
    return SavedNetwork(path, found, backbone.eval(), weights.class_head, names, (told,) if told else ())


def _foreign_config(weights: ForeignWeights) -> NetworkConfig:
    """The clips that published checkpoints were trained with: PySlowFast's (arXiv 2104.14558), TIME's (2207.09067)."""
    frames, side = weights.frames or 8, weights.side or 224
    is_time = backbone_entry(weights.network).has_tokens
    sampling, mean, std = (f"segment:{frames}", 0.5, 0.5) if is_time else ("dense:8x8", 0.45, 0.225)
    return NetworkConfig(weights.network, frames, side, sampling, mean, std, 256, weights.model_args)


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
