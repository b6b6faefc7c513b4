from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import Tensor

from vtk_cli.prune.sparse_forms import from_csr, from_ternary, to_csr, to_ternary


def weight(shape: tuple[int, ...], keep: float, seed: int = 0, sigma: float | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    values = values if sigma is None else sigma * values.sign()
    return values * (torch.rand(shape, generator=generator) < keep)


shapes = st.lists(st.integers(1, 7), min_size=2, max_size=4).map(tuple)


@given(shapes, st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_sparse_rows_come_back_as_the_weight(shape: tuple[int, ...], keep: float, seed: int) -> None:
    values = weight(shape, keep, seed)
    parts = to_csr(values)
    assert torch.equal(from_csr(parts, shape), values)
    assert len(parts["values"]) == values.count_nonzero()


@given(shapes, st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_two_bits_a_weight_come_back_as_the_weight(shape: tuple[int, ...], keep: float, seed: int) -> None:
    values = weight(shape, keep, seed, sigma=0.029463)
    codes, sigma = to_ternary(values)
    assert len(codes) == -(-values.numel() // 4)
    assert torch.equal(from_ternary(codes, sigma, shape), values)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_scipy_and_torch_read_the_sparse_rows() -> None:
    values = weight((6, 4, 3, 3), 0.2)
    parts = to_csr(values)
    scipy = csr_array((parts["values"].numpy(), parts["indices"].numpy(), parts["indptr"].numpy()), shape=(6, 36))
    assert (scipy.toarray() == values.flatten(1).numpy()).all()
    torchs = torch.sparse_csr_tensor(parts["indptr"], parts["indices"], parts["values"], (6, 36), check_invariants=True)
    assert torch.equal(torchs.to_dense(), values.flatten(1))


def test_codes_lie_four_a_byte_the_first_in_the_lowest_bits() -> None:
    codes, sigma = to_ternary(torch.tensor([[0.5, 0.0, -0.5], [0.5, -0.5, 0.0]]))
    assert codes.tolist() == [0b01_10_00_01, 0b00_10]
    assert sigma.item() == 0.5


def test_weights_of_more_than_one_absolute_value_have_no_ternary_form() -> None:
    with pytest.raises(ValueError, match="not of one absolute value"):
        to_ternary(torch.tensor([[0.5, 0.25]]))


def test_damaged_sparse_rows_are_refused() -> None:
    parts = to_csr(weight((5, 8), 0.4))
    assert len(parts["values"]) > 3
    indptr, indices, values = parts["indptr"], parts["indices"], parts["values"]
    fell = indptr.clone()
    fell[1], fell[2] = indptr[2] + 1, indptr[1]
    wrong: list[dict[str, Tensor]] = [
        {**parts, "indptr": indptr[:-1]},
        {**parts, "indptr": fell},
        {**parts, "indptr": indptr + 1},
        {**parts, "indices": indices + 8},
        {**parts, "indices": indices - 8},
        {**parts, "indices": indices[:-1]},
        {**parts, "indices": indices.long()},
        {**parts, "values": values[:-1]},
        {**parts, "values": values.double()},
        {**parts, "values": values[None]},
    ]
    for damaged in wrong:
        with pytest.raises(ValueError, match=r"\w"):
            from_csr(damaged, (5, 8))


def test_damaged_codes_are_refused() -> None:
    codes, sigma = to_ternary(weight((3, 3), 0.5, sigma=1.0))
    for damaged in (codes[:-1], codes | 3, codes.int(), torch.cat([codes[:-1], codes[-1:] | 64])):
        with pytest.raises(ValueError, match=r"\w"):
            from_ternary(damaged, sigma, (3, 3))
    with pytest.raises(ValueError, match="one absolute value"):
        from_ternary(codes, sigma[None], (3, 3))
