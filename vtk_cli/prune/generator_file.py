"""Plain generators in safetensors files that say what they are: all weights, sparse rows, or two bits a weight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.models.described_weights import save_described
from vtk_cli.models.names import file_metadata
from vtk_cli.models.weights import load_exactly, read_state_dict
from vtk_cli.prune.generators import Generator, create_generator
from vtk_cli.prune.masking import prunable
from vtk_cli.prune.sparse_forms import from_csr, from_ternary, to_csr, to_ternary

Packing = Literal["safetensors", "csr", "ternary"]
_ABOUT, _PACKING, _SHAPES = "generator", "packing", "shapes"
_CSR = ("indptr", "indices", "values")
_TERNARY = ("codes", "sigma")


def save_generator(path: Path, generator: Generator, packing: Packing = "safetensors") -> None:
    """Write a plain generator.

    Args:
        path: `.safetensors`.
        generator: on any device, its pruned weights 0.
        packing: `safetensors`: every tensor as it is; `csr`: the weights of the prunable layers as `NAME.indptr`,
            `NAME.indices`, `NAME.values`; `ternary`: as `NAME.codes` and `NAME.sigma`.

    Raises:
        UserError: the weights of a layer are not of one absolute value, as `ternary` needs; or the folder may not be
            written.
        JobError: the disk is full.
    """
    state = {name: tensor for name, tensor in generator.state_dict().items() if tensor.is_floating_point()}
    shapes: dict[str, list[int]] = {}
    for name in prunable(generator) if packing != "safetensors" else ():
        weight = state.pop(f"{name}.weight")
        shapes[name] = list(weight.shape)
        for part, tensor in _packed(weight, packing, name).items():
            state[f"{name}.{part}"] = tensor
    said = {_ABOUT: json.dumps(generator.arguments), _PACKING: packing, _SHAPES: json.dumps(shapes)}
    save_described(path, state, {**said, "image_range": "[-1, 1]"})


def generator_state(path: Path) -> dict[str, Tensor]:
    """The plain state dict in a file of `save_generator`, whatever its packing.

    Raises:
        UserError: the file is missing or damaged, or holds no such generator.
    """
    return _unpacked(read_state_dict(path), file_metadata(path), path)


def read_generator(path: Path) -> Generator:
    """The generator in a file of `save_generator`, plain, in eval mode on the CPU.

    Raises:
        UserError: the file is missing or damaged, or holds no such generator.
    """
    state, metadata = read_state_dict(path), file_metadata(path)
    state = _unpacked(state, metadata, path)
    try:
        arguments = json.loads(metadata[_ABOUT])
        with torch.device("meta"):
            generator = create_generator(**arguments)
    except (ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError("describes no generator", str(path), "name a file that vtk prune wrote") from error
    counters = {name: tensor for name, tensor in generator.state_dict().items() if not tensor.is_floating_point()}
    counted = {**state, **{name: torch.zeros_like(tensor, device="cpu") for name, tensor in counters.items()}}
    if fault := _fault(generator, counted):
        raise UserError(fault, str(path), "write the file anew")
    load_exactly(generator.to_empty(device="cpu"), counted, str(path))
    return generator.requires_grad_(requires_grad=False).eval()


def _fault(generator: nn.Module, state: Mapping[str, Tensor]) -> str:
    """What does not fit, before there is memory for it."""
    needed = {name: tuple(tensor.shape) for name, tensor in generator.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    differs = [name for name in {**needed, **given} if needed.get(name) != given.get(name)]
    return f"{len(differs)} tensors do not fit its generator, e.g. {differs[0]}" if differs else ""


def _packed(weight: Tensor, packing: Packing, name: str) -> dict[str, Tensor]:
    try:
        return to_csr(weight) if packing == "csr" else dict(zip(_TERNARY, to_ternary(weight), strict=True))
    except ValueError as error:
        fix = "choose safetensors or csr" if packing == "ternary" else "choose safetensors"
        raise UserError(f"layer {name} cannot be written as {packing}: {error}", "--export", fix) from error


def _unpacked(state: dict[str, Tensor], metadata: Mapping[str, str], path: Path) -> dict[str, Tensor]:
    packing = metadata.get(_PACKING)
    if packing not in {"safetensors", "csr", "ternary"}:
        raise UserError("holds no generator of vtk prune", str(path), "name a file that vtk prune wrote")
    try:
        shapes: dict[str, Any] = json.loads(metadata[_SHAPES])
        for name, sides in shapes.items():
            shape = tuple(map(int, sides))
            if packing == "csr":
                weight = from_csr({part: state.pop(f"{name}.{part}") for part in _CSR}, shape)
            else:
                codes, sigma = (state.pop(f"{name}.{part}") for part in _TERNARY)
                weight = from_ternary(codes, sigma, shape)
            state[f"{name}.weight"] = weight
    except (ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise UserError(f"is a damaged generator ({error})", str(path), "fetch or write it anew") from error
    return state
