"""The weights of a trained classifier on disk, with everything that is needed to use them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vtk_cli.models.described_weights import save_described
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.models.zoo import network_metadata

CLASSES, MULTI_LABEL = "class_names", "multi_label"
"""What the file calls the names of its classes, and whether an image may have many labels; both are JSON."""


def save_trained(
    path: Path,
    state: Mapping[str, Tensor],
    *,
    architecture: str,
    config: PixelConfig,
    model_args: Mapping[str, Any],
    class_names: tuple[str, ...],
    multi_label: bool,
    note: Mapping[str, str],
) -> None:
    """Write weights that `create_network` and, of its networks, plain timm can read.

    Args:
        path: `.safetensors`.
        state: the state dict of the network.
        architecture: its name, e.g. its timm name.
        config: its preprocessing.
        model_args: what its constructor was given besides the number of classes; JSON values.
        class_names: by label.
        multi_label: whether an image may have many labels.
        note: what else the file says of itself.

    Raises:
        JobError: the disk is full.
    """
    metadata = {
        **network_metadata(architecture, config, model_args),
        CLASSES: json.dumps(class_names),
        MULTI_LABEL: json.dumps(multi_label),
        **note,
    }
    save_described(path, state, metadata)
