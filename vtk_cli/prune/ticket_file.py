"""The file of a ticket (`.vtkt`).

It is a zip of `header.json` and little-endian arrays:

- `mask.bin`: one bit a prunable weight, in layer order, each layer flattened in C order (see `mask_bits`);
- `bn.bin`: what else the generator holds, float32, one tensor after the other: the batch-norm statistics, which belong
  to the masks;
- `weights.bin`: only where the weights come from no seed and no other file: the kept ones, float32, in layer order.

The header names the generator, where its weights come from, every layer with its kept count, and SHA-256 sums: of each
array, of itself, and of all effective weights (weight times mask, float32, in layer order), so that whoever rebuilds
the network can tell that it is the one that was written.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.files import atomic_path
from vtk_cli.prune.keeping import Scope, Structure, WeightInit
from vtk_cli.prune.mask_bits import CODECS, Codec, decode, encode
from vtk_cli.prune.ticket import MOST_WEIGHTS, Layer, Origin, Source, Ticket

SUFFIX = ".vtkt"
FORMAT, VERSION = "vtk-ticket", 1
IMAGE_RANGE = (-1.0, 1.0)

HEADER, MASK, REST, WEIGHTS = "header.json", "mask.bin", "bn.bin", "weights.bin"
_LARGEST_HEADER = 2**24
_FRACTION = re.compile(r"\d{1,30}(/\d{1,30})?")
"""No exponents: those of a few characters would fill the memory."""
_DATE = (1980, 1, 1, 0, 0, 0)
"""The date of each member, so that the same ticket gives the same bytes."""
_SHA256 = re.compile("[0-9a-f]{64}")
_ANEW = "fetch or write it anew"


def write_ticket(path: Path, ticket: Ticket, codec: Codec = "rice") -> int:
    """Write a ticket file; the same ticket gives the same bytes.

    Args:
        path: `.vtkt`.
        ticket: what goes in.
        codec: how the masks are packed.

    Returns:
        The size of the file in bytes.

    Raises:
        UserError: the folder may not be written.
        JobError: the disk is full.
    """
    masks = [ticket.masks[layer.name].cpu().numpy().ravel() for layer in ticket.layers]
    arrays = {MASK: encode(masks, codec), REST: b"".join(map(_bytes, ticket.rest.values()))}
    if ticket.kept_weights is not None:
        arrays[WEIGHTS] = _bytes(ticket.kept_weights)
    header = _header(ticket, codec, arrays)
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        _add(archive, HEADER, json.dumps(header, indent=1, allow_nan=False).encode(), zipfile.ZIP_DEFLATED)
        for name, data in arrays.items():
            _add(archive, name, data, zipfile.ZIP_STORED)
    return path.stat().st_size


def read_ticket(path: Path) -> Ticket:
    """The ticket in a file, its sums and kept counts checked; `rebuild` checks the weights.

    Raises:
        UserError: the file is missing, no ticket, cut short, changed, or of a newer version of the format.
    """
    if not path.is_file():
        raise UserError("no such ticket", str(path), "check the path")
    members = _members(path)
    try:
        header = json.loads(members[HEADER], parse_constant=_refuse_constant)
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise UserError("is no ticket of vtk prune", str(path), "name a .vtkt file")
        _check_version(header.get("version"), path)
        _check_sums(header, members, path)
        return _ticket(header, members)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        what = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"is a damaged ticket: {what}", str(path), _ANEW) from error


def _header(ticket: Ticket, codec: Codec, arrays: Mapping[str, bytes]) -> dict[str, Any]:
    """The header, with its own sum in the end."""
    layers = [
        {"name": layer.name, "shape": list(layer.shape), "n": layer.n, "kept": layer.kept, "frozen": layer.frozen}
        for layer in ticket.layers
    ]
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "generator": dict(ticket.generator),
        "image_range": list(IMAGE_RANGE),
        "keep": str(ticket.keep),
        "scope": ticket.scope,
        "structure": ticket.structure,
        "algorithm": ticket.algorithm,
        "theta": {**vars(ticket.origin), "scale": str(ticket.origin.scale), "fan": "true"},
        "layers": layers,
        "rest": [{"name": name, "shape": list(tensor.shape)} for name, tensor in ticket.rest.items()],
        "codec": codec,
        "metrics": dict(ticket.metrics),
        "made_with": dict(ticket.made_with),
        "sha256": {"weights": ticket.weights_sha256, **{name: _sha256(data) for name, data in arrays.items()}},
    }
    header["sha256"][HEADER] = _header_sha256(header)
    return header


def _header_sha256(header: Mapping[str, Any]) -> str:
    """Of all it says but this sum itself, in one way of writing it."""
    sums = {name: value for name, value in header["sha256"].items() if name != HEADER}
    return _sha256(json.dumps({**header, "sha256": sums}, sort_keys=True, separators=(",", ":")).encode())


def _ticket(header: Mapping[str, Any], members: Mapping[str, bytes]) -> Ticket:
    """What the header and the arrays say.

    Raises:
        ValueError, KeyError, TypeError: they contradict themselves or one another.
    """
    if header["image_range"] != list(IMAGE_RANGE):
        raise ValueError(f"its images lie in {header['image_range']!r}, not in {list(IMAGE_RANGE)}")
    layers = tuple(map(_layer, header["layers"]))
    if not layers or len({layer.name for layer in layers}) != len(layers):
        raise ValueError("it has no layers, or two of one name")
    if sum(layer.n for layer in layers) > MOST_WEIGHTS:
        raise ValueError(f"it has more than {MOST_WEIGHTS} weights")
    codec = cast("Codec", _one_of(header["codec"], CODECS, "codec"))
    try:
        masks = decode(members[MASK], codec, [(layer.n, layer.kept) for layer in layers])
    except ValueError as error:
        raise ValueError(f"the masks are not what the header announces: {error}") from error
    origin = _origin(header["theta"])
    kept = None
    if origin.source == "stored":
        kept = _floats(members[WEIGHTS], [(sum(layer.kept for layer in layers),)])[0]
    shapes = [tuple(map(int, entry["shape"])) for entry in header["rest"]]
    names = [str(entry["name"]) for entry in header["rest"]]
    return Ticket(
        generator=_generator(header["generator"]),
        keep=_fraction(header["keep"], "keep"),
        scope=_one_of(header["scope"], get_args(Scope), "scope"),
        structure=_one_of(header["structure"], get_args(Structure), "structure"),
        algorithm=str(header["algorithm"]),
        origin=origin,
        layers=layers,
        masks={
            layer.name: torch.from_numpy(mask).reshape(layer.shape) for layer, mask in zip(layers, masks, strict=True)
        },
        rest=dict(zip(names, _floats(members[REST], shapes), strict=True)),
        weights_sha256=header["sha256"]["weights"],
        kept_weights=kept,
        metrics=_mapping(header["metrics"]),
        made_with=_mapping(header["made_with"]),
    )


def _layer(entry: Mapping[str, Any]) -> Layer:
    shape, kept = tuple(entry["shape"]), entry["kept"]
    if not shape or not all(isinstance(side, int) and side > 0 for side in shape):
        raise ValueError(f"layer {entry['name']} has the shape {list(shape)}")
    layer = Layer(str(entry["name"]), shape, kept, bool(entry["frozen"]))
    if entry["n"] != layer.n or not isinstance(kept, int) or not 0 <= kept <= layer.n:
        raise ValueError(f"layer {layer.name} keeps {kept} of {entry['n']} weights in the shape {list(shape)}")
    if layer.frozen and kept != layer.n:
        raise ValueError(f"layer {layer.name} is outside the pool and keeps {kept} of its {layer.n} weights")
    return layer


def _origin(entry: Mapping[str, Any]) -> Origin:
    source: Source = _one_of(entry["source"], get_args(Source), "theta.source")
    _one_of(entry["fan"], ("true",), "theta.fan")
    seed, sha256 = entry["seed"], str(entry["sha256"])
    if source == "seed" and not (type(seed) is int and 0 <= seed < 2**64):
        raise ValueError(f"the seed of its weights is {seed}")
    if source == "seed":
        _one_of(entry["init"], get_args(WeightInit), "theta.init")
    if source == "checkpoint" and not _SHA256.fullmatch(sha256):
        raise ValueError("it does not say of which checkpoint its weights are")
    scale = _fraction(entry["scale"], "theta.scale")
    return Origin(source, str(entry["init"]), seed, scale, sha256, str(entry["torch"]))


def _fraction(value: Any, what: str) -> Fraction:
    if not isinstance(value, str) or not _FRACTION.fullmatch(value) or not 0 < (fraction := Fraction(value)) <= 1:
        raise ValueError(f"{what} is {str(value)[:40]!r}, not a fraction in (0, 1] as in '1/10'")
    return fraction


def _one_of(value: Any, known: Sequence[str], what: str) -> Any:
    if value not in known:
        raise ValueError(f"{what} is {value!r}, not one of {', '.join(known)}")
    return value


def _generator(value: Any) -> dict[str, Any]:
    """A name and its arguments; whether there is such a generator is seen when it is rebuilt."""
    found = _mapping(value)
    if not isinstance(found["name"], str) or any(isinstance(item, (list, dict)) for item in found.values()):
        raise ValueError("it describes no generator")
    return found


def _refuse_constant(text: str) -> float:
    """NaN and infinities are no JSON, and would be none in what `info` prints."""
    raise ValueError(f"{text} is in its header")


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is where names and values are expected")
    return value


def _members(path: Path) -> dict[str, bytes]:
    """The files in the zip.

    Raises:
        UserError: it is no zip, is cut short, a member does not have its checksum, or unpacks to too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if HEADER not in entries:
                raise UserError("is no ticket of vtk prune", str(path), "name a .vtkt file")
            for name, entry in entries.items():
                most = _LARGEST_HEADER if name == HEADER else entry.compress_size
                if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                    raise UserError(f"{name} is packed in a way that no ticket is", str(path), _ANEW)
                if entry.file_size > most:
                    raise UserError(f"{name} unpacks to {entry.file_size} bytes", str(path), _ANEW)
            return {name: archive.read(entry) for name, entry in entries.items()}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(f"is no ticket, or one that is damaged or cut short ({error})", str(path), _ANEW) from error


def _check_version(version: Any, path: Path) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"its version is {version!r}")
    if version > VERSION:
        what = f"is a ticket of version {version}; this vtk reads up to {VERSION}"
        raise UserError(what, str(path), "install a newer vtk-cli")


def _check_sums(header: Mapping[str, Any], members: Mapping[str, bytes], path: Path) -> None:
    sums = _mapping(header["sha256"])
    found = {name: _sha256(data) for name, data in members.items() if name != HEADER}
    found[HEADER] = _header_sha256(header)
    stated = {name: value for name, value in sums.items() if name != "weights"}
    changed = sorted(name for name in {*found, *stated} if found.get(name) != stated.get(name))
    if changed:
        what = f"is a changed ticket: {', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not what was written"
        raise UserError(what, str(path), _ANEW)
    if not isinstance(sums["weights"], str) or not _SHA256.fullmatch(sums["weights"]):
        raise ValueError("the sum of its weights is none")


def _floats(data: bytes, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Tensors from the float32 numbers that lie one after the other."""
    if any(side < 0 for shape in shapes for side in shape) or len(data) != 4 * sum(map(prod, shapes)):
        raise ValueError(f"{len(data)} bytes for {sum(map(prod, shapes))} numbers")
    numbers = torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32))
    parts = torch.split(numbers, [prod(shape) for shape in shapes])
    return [part.reshape(shape).clone() for part, shape in zip(parts, shapes, strict=True)]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False).tobytes()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _add(archive: zipfile.ZipFile, name: str, data: bytes, compression: int) -> None:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = compression
    archive.writestr(entry, data)
