"""Weights with many zeros in fewer bytes: compressed sparse rows, and signs with one absolute value."""

from __future__ import annotations

from math import ceil, prod

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

_SIGNS_A_BYTE = 4
_LARGEST_INDEX = 2**31


def to_csr(weight: Tensor) -> dict[str, Tensor]:
    """A weight as compressed sparse rows.

    Args:
        weight: (R, ...) float32; what is behind the first dimension counts as one, in C order.

    Returns:
        `indptr` (R + 1,) int32, where each row begins; `indices` (kept,) int32, the columns in rising order; `values`
        (kept,) float32.

    Raises:
        ValueError: the columns or the kept weights are more than int32 can count.
    """
    rows = weight.detach().cpu().flatten(1)
    if rows.shape[1] >= _LARGEST_INDEX or int(rows.count_nonzero()) >= _LARGEST_INDEX:
        raise ValueError("too many weights for indices of 32 bits")
    sparse = csr_array(rows.numpy())
    parts = {"indptr": sparse.indptr, "indices": sparse.indices}
    return {
        **{name: torch.from_numpy(part.astype(np.int32)) for name, part in parts.items()},
        "values": torch.from_numpy(sparse.data.astype(np.float32)),
    }


def from_csr(parts: dict[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """The weight that `to_csr` made these parts of.

    Args:
        parts: `indptr`, `indices` and `values`.
        shape: of the weight.

    Raises:
        ValueError: they are no sparse rows of that shape.
    """
    columns = prod(shape[1:])
    indptr, indices, values = (parts[name].numpy() for name in ("indptr", "indices", "values"))
    _check_csr(indptr, indices, values, rows=shape[0], columns=columns)
    dense = np.zeros((shape[0], columns), np.float32)
    dense[np.repeat(np.arange(shape[0]), np.diff(indptr)), indices] = values
    return torch.from_numpy(dense).reshape(shape)


def to_ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight of the values 0, +sigma and -sigma as two bits each.

    Args:
        weight: any shape.

    Returns:
        codes (ceil(n / 4),) uint8: four a byte in C order, the first in the lowest bits, 0 for 0, 1 for +, 2 for -;
        and sigma, float32 of no dimension (0 where all are 0).

    Raises:
        ValueError: there are other values.
    """
    flat = weight.detach().cpu().float().reshape(-1)
    sigma = flat.abs().max() if flat.numel() else flat.new_zeros(())
    if bool(((flat != 0) & (flat.abs() != sigma)).any()):
        raise ValueError("its weights are not of one absolute value")
    codes = ((flat > 0).to(torch.uint8) + 2 * (flat < 0).to(torch.uint8)).numpy()
    filled = np.zeros(_SIGNS_A_BYTE * ceil(len(codes) / _SIGNS_A_BYTE), np.uint8)
    filled[: len(codes)] = codes
    packed = (filled.reshape(-1, _SIGNS_A_BYTE) << _SHIFTS).sum(axis=1, dtype=np.uint8)
    return torch.from_numpy(packed), sigma.clone()


def from_ternary(codes: Tensor, sigma: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The weight, float32, that `to_ternary` made these codes of.

    Raises:
        ValueError: they are no codes of that many weights.
    """
    n = prod(shape)
    if codes.dtype != torch.uint8 or codes.shape != (ceil(n / _SIGNS_A_BYTE),) or sigma.shape:
        raise ValueError(f"codes {codes.dtype} {tuple(codes.shape)} for {n} weights of one absolute value")
    signs = (codes.numpy()[:, None] >> _SHIFTS & 3).reshape(-1)
    if (signs == 3).any() or signs[n:].any():
        raise ValueError("a code is none of 0, 1 and 2, or lies behind the last weight")
    values = torch.stack([torch.zeros(()), sigma.float(), -sigma.float()])
    return values[torch.from_numpy(signs[:n].astype(np.int64))].reshape(shape)


_SHIFTS: NDArray[np.uint8] = np.arange(0, 2 * _SIGNS_A_BYTE, 2, dtype=np.uint8)


def _check_csr(
    indptr: NDArray[np.int32], indices: NDArray[np.int32], values: NDArray[np.float32], *, rows: int, columns: int
) -> None:
    if any(part.ndim != 1 for part in (indptr, indices, values)) or values.dtype != np.float32:
        raise ValueError("sparse rows are three lists, the values float32")
    if any(part.dtype != np.int32 for part in (indptr, indices)):
        raise ValueError("the places of sparse rows are int32")
    if len(indptr) != rows + 1 or indptr[0] != 0 or indptr[-1] != len(values) or len(indices) != len(values):
        raise ValueError(f"{len(values)} values at {len(indices)} places in {len(indptr) - 1} rows, where {rows} are")
    if (np.diff(indptr) < 0).any() or ((indices < 0) | (indices >= columns)).any():
        raise ValueError(f"a place lies outside of {rows} x {columns} weights")
