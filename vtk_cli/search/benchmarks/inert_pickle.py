"""Reading pickles that come from strangers: numbers, text and containers, and nothing that could run.

A pickle is a program: it names functions and calls them. Here the only names that stand for anything are those that
benchmark files need, and they stand for functions of this module that make plain numbers; every other name is an error
before anything is imported. numpy's numbers become Python's, so their bytes never reach numpy's own unpickling.
"""

from __future__ import annotations

import bz2
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from vtk_cli.errors import UserError

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle in a file that torch before 1.6 saved; the fourth is the content, the fifth lists its tensors."""
_NUMBER = re.compile(r"[iuf][1248]|b1")
_FETCH_ANEW = "fetch it anew"


class _HoldsCode(pickle.UnpicklingError):
    pass


class _HoldsWeights(pickle.UnpicklingError):
    pass


class _NumberType:
    """Stands for numpy's `dtype` of a number, as in `f8`."""

    __slots__ = ("_order", "_spec")

    def __init__(self, spec: object) -> None:
        if not isinstance(spec, str) or not _NUMBER.fullmatch(spec):
            raise pickle.UnpicklingError(f"{spec!r} is no type of a number")
        self._spec, self._order = spec, "="

    def __setstate__(self, state: object) -> None:
        """numpy's state of a `dtype`: a version, the byte order, and what only structures have."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in {"<", ">", "=", "|"}:
            raise pickle.UnpicklingError("not the state of a number's type")
        self._order = order

    def read(self, data: bytes) -> float | int | bool:
        """The number whose bytes are `data`."""
        dtype = np.dtype(self._order + self._spec)
        if len(data) != dtype.itemsize:
            raise pickle.UnpicklingError(f"{len(data)} bytes for a number of {dtype.itemsize}")
        number: float | int | bool = np.frombuffer(data, dtype)[0].item()
        return number


class _Unpickler(pickle.Unpickler):
    """Makes plain containers, text and numbers."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for.

        A pickle can set attributes of what it is given here. The language's own types refuse that; the others are made
        anew each time, so that nothing outlives the reading.
        """
        match module, name:
            case "collections", "OrderedDict":
                return dict
            case "builtins" | "__builtin__", "set":
                return set
            case "builtins" | "__builtin__", "frozenset":
                return frozenset
            case "numpy", "dtype":
                return partial(_number_type)
            case "numpy.core.multiarray" | "numpy._core.multiarray", "scalar":
                return partial(_number)
            case "_codecs", "encode":
                return partial(_old_bytes)
        raise _HoldsCode(f"{module}.{name}")

    def persistent_load(self, pid: object) -> Any:
        """torch's way of naming the numbers of a tensor."""
        raise _HoldsWeights(repr(pid))


def _number_type(spec: object, *_: object) -> _NumberType:
    return _NumberType(spec)


def _number(dtype: object, data: object) -> float | int | bool:
    if not isinstance(dtype, _NumberType) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("not a number of numpy")
    return dtype.read(data)


def _old_bytes(text: object, encoding: object) -> bytes:
    """How the oldest protocols spell bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("not the bytes of a number")
    return text.encode("latin1")


def read_pickle(path: Path) -> Any:
    """What a pickle holds: plain, compressed by bzip2, or inside of a file of `torch.save`, old or new.

    The content of a benchmark takes about five times the file's size in memory while it is read.

    Raises:
        UserError: the file is missing, damaged or cut short, or holds something other than numbers, text and containers
            of them; what that would be is named and was not run.
    """
    try:
        with _stream(path) as stream:
            return _load(stream)
    except _HoldsCode as error:
        fix = "nothing of it was run; bring the file that the benchmark's authors released"
        raise UserError(f"holds more than results ({error})", str(path), fix) from error
    except _HoldsWeights as error:
        raise UserError(
            "holds the weights of networks", str(path), "bring the benchmark's file without them"
        ) from error
    except FileNotFoundError as error:
        raise UserError("no such benchmark", str(path), "check the path") from error
    except PermissionError as error:
        raise UserError("cannot be read", str(path), "mend its rights") from error
    except MemoryError as error:
        raise UserError("does not fit into memory, or is damaged", str(path), "read it on a larger machine") from error
    # A damaged pickle fails anywhere: it may ask for a negative length, an absent item, or the attribute of a number.
    except Exception as error:
        raise UserError(f"is damaged or cut short ({_line(error)})", str(path), _FETCH_ANEW) from error


@contextmanager
def _stream(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of the pickle in `path`."""
    with path.open("rb") as file:
        start = file.peek(4)[:4]
        if start.startswith(b"BZh"):
            with bz2.open(file) as unpacked:
                yield unpacked
        elif start == b"PK\x03\x04":
            with zipfile.ZipFile(file) as archive:
                inner = next((each for each in archive.infolist() if each.filename.endswith("/data.pkl")), None)
                # torch compresses nothing: what is, may unpack to any size.
                if inner is None or inner.compress_type != zipfile.ZIP_STORED:
                    raise pickle.UnpicklingError("an archive, but not one of torch")
                with archive.open(inner) as content:
                    yield content
        else:
            yield file


def _load(stream: IO[bytes]) -> Any:
    content = _Unpickler(stream).load()
    if content == _TORCH_MAGIC and isinstance(content, int):
        for _ in ("protocol", "system"):
            _Unpickler(stream).load()
        content = _Unpickler(stream).load()
        if _Unpickler(stream).load() != []:
            raise _HoldsWeights
    if stream.read(1):  # also has the packers check what they unpacked
        raise pickle.UnpicklingError("it goes on after its end")
    return content


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
