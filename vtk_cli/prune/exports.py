"""A generator with its kept weights, written for others; every file is read back and compared before it is kept."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vtk_cli.errors import JobError, UserError
from vtk_cli.models.export import (
    difference,
    draft,
    quiet_exporters,
    read_back,
    read_onnx,
    reason,
    require_onnx,
    save_onnx,
)
from vtk_cli.models.weights import read_state_dict
from vtk_cli.prune.forms import FORMS, Form
from vtk_cli.prune.generator_file import generator_state, save_generator
from vtk_cli.prune.generators import Generator
from vtk_cli.prune.masking import prunable
from vtk_cli.prune.samples import latents

ORIGINAL, MASK = "weight_orig", "weight_mask"
"""What `torch.nn.utils.prune` calls a weight and its mask."""
INPUT, OUTPUT = "noise", "images"
_BATCHES = (1, 3, 8)
"""Numbers of images at a time in the comparison: an export that is fixed to one of them fails."""
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Export:
    """A file that was written and found to hold the generator.

    Args:
        form: what it is.
        path: the file.
        bytes: its size, with that of what lies beside it.
        difference: the largest difference of a pixel in [-1, 1], 0 where the weights came back bit for bit.
    """

    form: Form
    path: Path
    bytes: int
    difference: float

    def summary(self) -> dict[str, object]:
        """The fields as JSON can hold them."""
        return {**asdict(self), "path": str(self.path)}


def export_generator(
    generator: Generator, form: Form, path: Path, *, theta: Mapping[str, Tensor] | None = None
) -> Export:
    """Write a generator in a form, read the file back and compare.

    Args:
        generator: plain, its pruned weights 0, as `rebuild` or `masking.folded` give it; it is not changed.
        form: of `FORMS`.
        path: where; its suffix becomes the form's.
        theta: for `torch-prune`: the weights before masking, by layer name; without them pruned weights are 0 there.

    Raises:
        UserError: the weights have no such form, or a package is missing.
        JobError: what was read back is not what was written, or the disk is full; no file is left then.
    """
    target = path.parent / (_stem(path.name) + FORMS[form].suffix)
    if form == "onnx":
        require_onnx()
    apart = 0.0
    with draft(target) as written, torch.no_grad():
        if form == "onnx":
            apart = _write_onnx(generator, written, target)
        elif form == "torch-prune":
            _write_torch_prune(generator, written, theta)
            _compare(generator, read_back(_read_torch_prune, written, target), target)
        else:
            save_generator(written, generator, form)
            _compare(generator, read_back(generator_state, written, target), target)
        size = sum(part.stat().st_size for part in written.parent.iterdir())
    return Export(form, target, size, apart)


def frozen_weights(generator: nn.Module) -> dict[str, Tensor]:
    """The weights of the prunable layers as they are, by layer name."""
    return {name: cast("Tensor", layer.weight).detach().cpu().clone() for name, layer in prunable(generator).items()}


def _stem(name: str) -> str:
    """The name without the suffix of any form."""
    suffixes = sorted((facts.suffix for facts in FORMS.values()), key=len, reverse=True)
    return next((name.removesuffix(suffix) for suffix in suffixes if name.endswith(suffix)), name)


def _write_torch_prune(generator: Generator, path: Path, theta: Mapping[str, Tensor] | None) -> None:
    state = {name: tensor.detach().cpu().clone() for name, tensor in generator.state_dict().items()}
    for name in prunable(generator):
        weight = state.pop(f"{name}.weight")
        mask = weight != 0
        original = weight if theta is None else theta[name]
        if not torch.equal(original.cpu().masked_fill(~mask, 0.0), weight):
            raise ValueError(f"{name}: the weights before masking are not those of the generator")
        state[f"{name}.{ORIGINAL}"], state[f"{name}.{MASK}"] = original.cpu().clone(), mask.float()
    torch.save(state, path)


def _read_torch_prune(path: Path) -> dict[str, Tensor]:
    state = read_state_dict(path)
    for name in [key.removesuffix(f".{MASK}") for key in state if key.endswith(f".{MASK}")]:
        mask = state.pop(f"{name}.{MASK}")
        state[f"{name}.weight"] = state.pop(f"{name}.{ORIGINAL}") * mask
    return state


def _compare(generator: Generator, found: Mapping[str, Tensor], path: Path) -> None:
    """Raise `JobError` unless every tensor came back; zeros may have lost their sign."""
    needed = {name: tensor for name, tensor in generator.state_dict().items() if tensor.is_floating_point()}
    wrong = [name for name, tensor in needed.items() if name not in found or not torch.equal(found[name], tensor.cpu())]
    if wrong:
        raise JobError(f"{path}: {wrong[0]} did not come back as it was written; the file was not kept")


def _write_onnx(generator: Generator, path: Path, target: Path) -> float:
    """Write the file and return the largest difference of a pixel from onnxruntime's."""
    noise = latents(sum(_BATCHES), generator.nz, seed=0)
    module = copy.deepcopy(generator).to("cpu").eval()
    with quiet_exporters():
        program = _program(module, noise[:2])
    said = {"generator": json.dumps(generator.arguments), "image_range": "[-1, 1]", "noise": "N(0, 1)"}
    save_onnx(program, path, inputs=(INPUT,), outputs=(OUTPUT,), metadata=said)
    answer = read_back(lambda written: read_onnx(written, (INPUT,), (OUTPUT,)), path, target)
    parts = noise.split(list(_BATCHES))
    apart = difference([module(part) for part in parts], [answer(part)[0] for part in parts])
    if not apart.largest <= _TOLERANCE:  # also where it is NaN
        raise JobError(f"{target}: onnxruntime's pixels differ by {apart.largest:.3g} of [-1, 1]; it was not kept")
    return apart.largest


def _program(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    try:
        # Strict, for the other way takes len(noise) for a number that never changes.
        shapes = ({0: torch.export.Dim("batch")},)
        return torch.export.export(module, (example,), dynamic_shapes=shapes, strict=True)
    except Exception as error:  # the exporter raises whatever the network's code makes of its symbols
        raise UserError(f"cannot be traced for ONNX ({reason(error)})", "--export", "choose another form") from error
