"""Deformable attention on a GPU: Triton and CUDA C++ against the definition in float64, and in a fixed order."""

import pytest
import torch

from vtk_kernels import deformable_attention, dispatch, sample_levels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
SHAPES = [(32, 40), (16, 20), (8, 10), (4, 5)]
CLOSE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.fixture(params=["triton", "cuda", "reference"])
def backend(request, monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, request.param)
    try:
        dispatch.which("sample_levels", "cuda")
    except ValueError as obstacle:
        pytest.skip(str(obstacle))
    return request.param


def case(dtype, coordinates, D=32):
    random = torch.Generator().manual_seed(0)
    B, Q, M, L, P, S = 2, 100, 4, 4, 4, sum(H * W for H, W in SHAPES)
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    value = torch.randn(B, S, M, D, generator=random).to(dtype)
    reference = torch.rand(B, Q, L, coordinates, generator=random).to(kind)
    offsets, logits = torch.randn(B, Q, M, L, P, 2, generator=random) * 2, torch.randn(B, Q, M, L * P, generator=random)
    offsets[0, 0, 0, 0, 0, 0], offsets[1, 5, 3, 2, 1, 1] = torch.nan, torch.inf
    return [tensor.cuda() for tensor in (value, reference, offsets.to(kind), logits.to(kind))]


def step(inputs, **options):
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    out = deformable_attention(leaves[0], SHAPES, *leaves[1:], **options)
    out.float().sin().sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("D", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("dtype", list(CLOSE))
def test_result_and_gradients_are_close_to_the_definition_in_float64(backend, monkeypatch, dtype, coordinates, D):
    inputs = case(dtype, coordinates, D)
    ours = step(inputs)
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    expected = step([tensor.double() for tensor in inputs])
    for one, other in zip(ours, expected, strict=True):
        tolerance = CLOSE[dtype] * 20 * max(1.0, other.abs().max().item())
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)


def test_the_fixed_order_gives_the_same_bits_every_time(backend):
    inputs = case(torch.float32, 4)
    first = step(inputs, deterministic=True)
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(step(inputs, deterministic=True), first, strict=True))
    for one, other in zip(step(inputs), first, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_classic_form_and_empty_batches(backend):
    value, _, offsets, logits = case(torch.float32, 2)
    weights = logits.view(offsets.shape[:-1])
    expected = sample_levels(value.cpu(), SHAPES, offsets.cpu(), weights.cpu())
    torch.testing.assert_close(sample_levels(value, SHAPES, offsets, weights).cpu(), expected, rtol=1e-4, atol=1e-4)
    assert sample_levels(value[:0], SHAPES, offsets[:0], weights[:0]).shape == (0, 100, 128)


def test_a_captured_graph_replays_it(backend):
    if backend == "reference":
        pytest.skip("the reference makes its sizes on the host")
    inputs = case(torch.float32, 2)
    expected = deformable_attention(inputs[0], SHAPES, *inputs[1:])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = deformable_attention(inputs[0], SHAPES, *inputs[1:])
    graph.replay()
    torch.testing.assert_close(out, expected)
