"""Weights in files: read without running anything that is in them, checked against the network, fingerprinted.

safetensors files go through safetensors, files of `torch.save` through `torch.load(weights_only=True)` and nothing
else: a pickle that holds more than tensors and plain values is refused before any of it runs.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from timm.models import clean_state_dict
from torch import Tensor, nn

from vtk_cli.errors import UserError

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state")
"""Where checkpoints hold the network, in the order they are looked for: averaged weights first, as in timm."""
_HEAD = re.compile(r"(heads?|fc|classifier|last_linear)\.(\w+\.)*weight")
_FETCH_ANEW = "fetch or write it anew"
_UNPACKED_LIMIT = 4
"""How many times its own size a file may unpack to; `torch.save` does not compress, so an honest file is about 1."""
_SMALL = 2**24
"""Bytes that tensors may always take: a few small ones may share their numbers, as buffers that were expanded do."""
_DEEPEST = 8
"""Wrappers within wrappers; a dictionary can also hold itself."""
_SHOWN, _LONGEST = 3, 80


NAME_ITS_ARCHITECTURE = "name the architecture it was written for: NAME=FILE"


class NoWeights(UserError):
    """There are no published weights for a network, or none on this machine and no way to fetch them."""


@dataclass(frozen=True)
class WeightFile:
    """A weight file on this machine.

    Args:
        path: the file.
        source: where it came from: `file: PATH`, `cache: WHERE` or `download: WHERE`.
        published: whether it holds the published weights of a name; the user's own file otherwise.
    """

    path: Path
    source: str
    published: bool


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file, on the CPU, by parameter name.

    A checkpoint's network is found under one of `WRAPPERS`; the prefixes that `DistributedDataParallel` and
    `torch.compile` put before the names are taken off.

    Args:
        path: `.safetensors`, or any other suffix for a file written by `torch.save`.

    Raises:
        UserError: the file is missing, damaged or truncated, holds code, or holds no state dict.
    """
    if path.suffix != ".safetensors":
        return state_in(read_plain(path), path)
    _require_file(path)
    return state_in(_read_safetensors(path), path)


def read_plain(path: Path) -> Any:
    """What `torch.save` wrote: tensors and plain values, on the CPU.

    Raises:
        UserError: the file is missing, damaged or truncated, or holds code, of which nothing is run.
    """
    _require_file(path)
    _refuse_bomb(path)
    try:
        # timm and DeiT keep their command line beside the weights; a namespace is only a bag of attributes.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails anywhere inside the unpickler
        code = _code_in(path, error)
        if code:
            fix = "it was not run; ask for a safetensors file, or a state dict saved alone"
            raise UserError(f"holds code ({_first(code)}), not only weights", str(path), fix) from error
        raise UserError("is damaged or cut short, or no weight file", str(path), _FETCH_ANEW) from error


def state_in(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's network by parameter name, as `read_state_dict` gives them.

    Args:
        content: of the file.
        path: the file, for errors.

    Raises:
        UserError: it holds no state dict.
    """
    for _ in range(_DEEPEST):
        inner = isinstance(content, Mapping) and next(
            (content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None
        )
        if not inner:
            break
        content = inner
    if not isinstance(content, Mapping) or not content:
        raise UserError("holds no state dict", str(path), f"save the state dict, alone or under {', '.join(WRAPPERS)}")
    foreign = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if foreign:
        what = f"holds {len(foreign)} entries that are no named tensors ({_first(foreign)})"
        raise UserError(what, str(path), f"save the state dict, alone or under {', '.join(WRAPPERS)}")
    refuse_unstored(content, path)
    cleaned: dict[str, Tensor] = clean_state_dict(dict(content))
    return cleaned


def refuse_unstored(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors whose numbers are not in the file: some of a few bytes say that they have 10^12.

    Raises:
        UserError: there are some: sparse, quantised, on no device, or with one number for many places.
    """
    odd = [
        name
        for name, tensor in state.items()
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized
    ]
    if odd:
        what = f"holds {len(odd)} tensors that are sparse, quantised or without numbers ({_first(odd)})"
        raise UserError(what, str(path), "save the plain tensors")
    told = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if told > max(_SMALL, _UNPACKED_LIMIT * path.stat().st_size):
        raise UserError(f"its tensors would take {told / 2**20:.0f} MiB, many times its size", str(path), _FETCH_ANEW)


def head_classes(state: Mapping[str, Tensor], heads: Iterable[str] = ()) -> int | None:
    """The number of classes of the classifier in a state dict: the rows of its last weight; None where there is none.

    Args:
        state: a state dict.
        heads: what the network calls its classifier; the usual names are tried after these.
    """
    named = [f"{head}.weight" for head in heads]
    usual = sorted((name for name in state if _HEAD.fullmatch(name)), key=_natural, reverse=True)
    rows = (state[name].shape[0] for name in (*named, *usual) if name in state and state[name].ndim >= 2)
    return next(rows, None)


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load `state` into `module`, all of it and nothing else.

    Raises:
        UserError: tensors are missing, unexpected or of another shape; the first few are named.
    """
    differs = mismatch(module, state)
    if differs:
        raise UserError(differs, where, NAME_ITS_ARCHITECTURE)
    module.load_state_dict(state)


def mismatch(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """How `state` differs from what `module` needs, with counts and the first few names; empty if it fits."""
    needed = module.state_dict()
    missing = [name for name in needed if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in needed]
    reshaped = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in needed.items()
        if name in state and isinstance(tensor, Tensor) and state[name].shape != tensor.shape
    ]
    parts = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    found = [f"{len(names)} {kind} ({_first(names)})" for kind, names in parts.items() if names]
    return f"the weights do not fit {type(module).__name__}: {', '.join(found)}" if found else ""


def state_sha256(module: nn.Module) -> str:
    """SHA-256 over a network's parameters and persistent buffers: names, types, shapes and bytes, in name order.

    The same on every device and in every process; independent of strides and of the order of registration.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, Tensor):
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        data = value.detach().cpu().contiguous().reshape(-1)
        digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError("no such weight file", str(path), "check the path")


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"is not a whole safetensors file ({error})", str(path), _FETCH_ANEW) from error


def _refuse_bomb(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # the old format, or damaged: the reader tells which
    if unpacked > _UNPACKED_LIMIT * path.stat().st_size:
        raise UserError(f"unpacks to {unpacked / 2**20:.0f} MiB, many times its size", str(path), _FETCH_ANEW)


def _code_in(path: Path, refusal: Exception) -> list[str]:
    """What a pickle would import besides tensors; found by reading its opcodes, not by running them."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001 - the old format, or damaged: then only the refusal itself can name something
        found = re.findall(r"GLOBAL ([\w.]+)", str(refusal))
    return sorted(set(found) - {"argparse.Namespace"})


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A sorting key with which `classifier.10` follows `classifier.9`."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in name.split(".")]


def _first(names: list[str]) -> str:
    shown = (name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names[:_SHOWN])
    return ", ".join(shown) + (", ..." if len(names) > _SHOWN else "")
