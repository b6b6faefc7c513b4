"""Weight files that mean harm, by name. `PICKLES` are files of `torch.save`, `TENSORS` are safetensors files."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MARK = "it-ran"
"""The file that code in a pickle would write, in the folder that no command is given."""
Writer = Callable[[Path, Path], object]
"""Called with the file to write and the folder that code in it would reach."""


class _Calls:
    """What is pickled as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call


def _shell(file: Path, outside: Path) -> None:
    torch.save({"model": {"weight": _Calls(os.system, f"touch {outside / MARK}")}}, file)


def _open(file: Path, outside: Path) -> None:
    torch.save({"state_dict": {"weight": torch.ones(1)}, "args": _Calls(open, str(outside / MARK), "w")}, file)


def _old_shell(file: Path, outside: Path) -> None:
    content = {"weight": _Calls(os.system, f"touch {outside / MARK}")}
    torch.save(content, file, _use_new_zipfile_serialization=False)


def _bare_pickle(file: Path, outside: Path) -> None:
    file.write_bytes(pickle.dumps(_Calls(os.system, f"touch {outside / MARK}")))


def _torch(file: Path, outside: Path) -> None:
    """A function of torch itself that would read another file."""
    inner = outside / "inner.pt"
    inner.write_bytes(pickle.dumps(_Calls(os.system, f"touch {outside / MARK}")))
    torch.save({"weight": _Calls(torch.hub.load_state_dict_from_url, inner.as_uri())}, file)


def _built_attribute(file: Path, outside: Path) -> None:
    """The state of a harmless object is a call."""
    torch.save(_State(_Calls(exec, f"open({str(outside / MARK)!r}, 'w')")), file)


class _State:
    def __init__(self, state: Any) -> None:
        self._state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return collections.OrderedDict, (), self._state


def _script(file: Path, outside: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)


def _module(file: Path, outside: Path) -> None:
    torch.save(nn.Linear(2, 2), file)


def _bomb(file: Path, outside: Path) -> None:
    """A checkpoint with a storage of 10 GiB of zeros in 10 MB: blocks of deflate that repeat one another."""
    saved = io.BytesIO()
    torch.save({"weight": torch.zeros(4)}, saved)
    piece = 2**24
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    head = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    count = 10 * 2**30 // piece
    with zipfile.ZipFile(saved) as honest, zipfile.ZipFile(file, "w") as archive:
        for entry in honest.infolist():
            if not entry.filename.endswith("/data/0"):
                archive.writestr(entry, honest.read(entry))
                continue
            with archive.open(zipfile.ZipInfo(entry.filename), "w") as stream:
                stream.write(head * count + zlib.compressobj(1, zlib.DEFLATED, -15).flush())
        made = next(entry for entry in archive.infolist() if entry.filename.endswith("/data/0"))
        made.compress_type, made.file_size = zipfile.ZIP_DEFLATED, piece * count


def _bomb_of_code(file: Path, outside: Path) -> None:
    """The pickle itself unpacks to a gigabyte."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", bytes(2**28))
        archive.writestr("archive/version", "3")


def _spread(file: Path, outside: Path) -> None:
    torch.save({"head.weight": torch.zeros(1).expand(10**6, 10**6)}, file)


def _many_spread(file: Path, outside: Path) -> None:
    torch.save({f"layer{number}.weight": torch.zeros(1).expand(2**10, 2**10) for number in range(10**4)}, file)


def _sparse(file: Path, outside: Path) -> None:
    empty = torch.sparse_coo_tensor(torch.zeros(2, 0, dtype=torch.long), torch.zeros(0), (10**9, 10**9))
    torch.save({"head.weight": empty}, file)


def _nowhere(file: Path, outside: Path) -> None:
    torch.save({"head.weight": torch.empty(10**9, 10**9, device="meta")}, file)


def _negative(file: Path, outside: Path) -> None:
    """A tensor of a negative shape, and one behind the end of its numbers."""
    rebuild = torch._utils._rebuild_tensor_v2
    hooks: Any = collections.OrderedDict()
    storage = torch.zeros(4).storage()
    wrong = {
        "a": _Calls(rebuild, storage, 0, (-4,), (1,), False, hooks),
        "b": _Calls(rebuild, storage, 10**12, (4,), (1,), False, hooks),
    }
    torch.save(wrong, file)


def _itself(file: Path, outside: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, file)


def _deep(file: Path, outside: Path) -> None:
    """Lists in lists: the pickle is written by hand, for Python's own writer would give up."""
    file.write_bytes(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".")


def _names(file: Path, outside: Path) -> None:
    """Names of megabytes, with what a terminal would obey."""
    torch.save({f"\x1b[2J[red]{'x' * 10**6}{number}": "no tensor" for number in range(5)}, file)


PICKLES: Mapping[str, Writer] = {
    "a pickle that calls the shell": _shell,
    "a pickle that opens a file": _open,
    "a pickle of the old format that calls the shell": _old_shell,
    "a bare pickle that calls the shell": _bare_pickle,
    "a pickle that calls a function of torch": _torch,
    "a pickle with a call as a state": _built_attribute,
    "a TorchScript archive": _script,
    "a pickled module": _module,
    "10 GiB of zeros in 10 MB": _bomb,
    "a pickle that unpacks to 256 MiB": _bomb_of_code,
    "one number spread over 10^12": _spread,
    "many tensors of one number": _many_spread,
    "a sparse tensor of 10^18": _sparse,
    "a tensor of 10^18 on no device": _nowhere,
    "tensors of negative shape or beyond their numbers": _negative,
    "a dictionary that holds itself": _itself,
    "lists in lists": _deep,
    "names of megabytes": _names,
}


def safetensors(header: bytes | Mapping[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a safetensors file, whatever its header says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _tensor(start: int, end: int, shape: list[int], kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


_W = "head.weight"
TENSORS: Mapping[str, bytes] = {
    "an empty file": b"",
    "a header longer than the file": safetensors({_W: _tensor(0, 16, [4])}, bytes(16), 10**4),
    "a header of 10^9 bytes": safetensors({_W: _tensor(0, 16, [4])}, bytes(16), 10**9),
    "a header of 2^63 bytes": safetensors({_W: _tensor(0, 16, [4])}, bytes(16), 2**63),
    "a header that is no JSON": safetensors(b"{" * 40),
    "a header of brackets in brackets": safetensors(b'{"a":' * 10**5),
    "a header that is a list": safetensors(b"[1, 2]"),
    "a header that is no UTF-8": safetensors(b'{"\xff\xfe": 1}'),
    "offsets that overlap": safetensors({_W: _tensor(0, 16, [4]), "b": _tensor(8, 24, [4])}, bytes(24)),
    "offsets beyond the end": safetensors({_W: _tensor(0, 10**12, [250 * 10**9])}, bytes(16)),
    "offsets that go back": safetensors({_W: _tensor(16, 0, [4])}, bytes(16)),
    "offsets with a hole": safetensors({_W: _tensor(8, 24, [4])}, bytes(24)),
    "negative offsets": safetensors({_W: _tensor(-16, 0, [4])}, bytes(16)),
    "a negative shape": safetensors({_W: _tensor(0, 16, [-4])}, bytes(16)),
    "a shape of 10^18": safetensors({_W: _tensor(0, 16, [10**9, 10**9])}, bytes(16)),
    "a shape that overflows": safetensors({_W: _tensor(0, 0, [2**63, 2**63, 0])}),
    "an unknown kind of number": safetensors({_W: _tensor(0, 16, [4], "F33")}, bytes(16)),
    "one name twice": safetensors(
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, '
        b'"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 32]}}',
        bytes(32),
    ),
    "text that is no text": safetensors({"__metadata__": {"architecture": [1]}, _W: _tensor(0, 16, [4])}, bytes(16)),
    "data behind the end": safetensors({_W: _tensor(0, 16, [4])}, bytes(10**6)),
}


def described(metadata: Mapping[str, str], tensors: Mapping[str, Tensor] | None = None) -> bytes:
    """A whole safetensors file that says of itself what it likes."""
    from safetensors.torch import save

    return save(dict(tensors or {"head.weight": torch.zeros(4, 4)}), dict(metadata))
