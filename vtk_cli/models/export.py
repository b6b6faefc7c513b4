"""A network as an ONNX file: written to a draft, read back in onnxruntime and compared, then put in place."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vtk_cli.errors import JobError, UserError
from vtk_cli.files import TEMPORARY_PREFIX, disk_errors, make_folder, publish

T = TypeVar("T")
_EXTRA = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Difference:
    """How far the answers of two networks are apart.

    Args:
        largest: of a number, by absolute value.
        scale: the largest number itself.
    """

    largest: float
    scale: float

    @property
    def share(self) -> float:
        """The largest difference as a share of the largest number."""
        return self.largest / self.scale if self.scale else self.largest


def require_onnx() -> None:
    """Raise `UserError` unless the packages of the extra `export` are installed."""
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {', '.join(missing)}", "export", "pip install 'vtk-cli[export]'")


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """Yield a path of that name in a folder of its own beside `path`; what was written there comes in place at the end.

    Weights beyond 2 GB, which lie beside an ONNX file, come first: then the file is whole. After an error nothing is
    left.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    make_folder(path.parent)
    with disk_errors(path), tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=path.parent) as folder:
        written = Path(folder, path.name)
        yield written
        for part in sorted(Path(folder).iterdir(), key=lambda part: part == written):
            publish(part, path.with_name(part.name))


def save_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: Mapping[str, str],
) -> None:
    """Write a program as ONNX.

    Args:
        program: of `torch.export.export`, with operators that ONNX has.
        path: the file.
        inputs, outputs: their names.
        metadata: what the file says of itself.

    Raises:
        UserError: torch cannot write it.
    """
    with quiet_exporters():
        try:
            made = torch.onnx.export(
                program, dynamo=True, input_names=list(inputs), output_names=list(outputs), verbose=False
            )
        except Exception as error:  # the exporter raises whatever the network's code makes of its symbols
            raise UserError(f"cannot be written as ONNX ({reason(error)})", str(path)) from error
    if made is None:
        raise UserError("torch gave no ONNX program", str(path))
    save_program(made, path, metadata)


def save_program(program: torch.onnx.ONNXProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write what `torch.onnx.export` made, without the stacks of this machine's files that each node comes from.

    Args:
        program: changed.
        path: the file.
        metadata: what the file says of itself.
    """
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    program.model.metadata_props.update(metadata)
    program.save(str(path))


def read_onnx(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> Callable[..., tuple[Tensor, ...]]:
    """What the file answers in onnxruntime, on the CPU; see `read_back` for a file that is damaged."""
    runtime = importlib.import_module("onnxruntime")
    importlib.import_module("onnx").checker.check_model(str(path))
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def answer(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = {name: tensor.numpy() for name, tensor in zip(inputs, tensors, strict=True)}
        return tuple(map(torch.from_numpy, session.run(list(outputs), given)))

    return answer


def read_back(read: Callable[[Path], T], written: Path, path: Path) -> T:
    """What `read` makes of a draft.

    Args:
        read: of the draft.
        written: the draft.
        path: what it is a draft of.

    Raises:
        JobError: it cannot be read.
    """
    try:
        return read(written)
    except Exception as error:  # the checkers and runtimes have errors of their own
        raise JobError(f"{path}: what was written cannot be read back ({reason(error)})") from error


def difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> Difference:
    """The largest difference of any number in two answers; NaN counts as infinitely far."""
    apart = [float((one - other).abs().nan_to_num(torch.inf).max()) for one, other in zip(expected, found, strict=True)]
    return Difference(max(apart), max(float(one.abs().max()) for one in expected))


def reason(error: Exception) -> str:
    """The first line of an error's message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Without the exporters' remarks on their own insides."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
