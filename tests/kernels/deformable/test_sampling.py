"""What is sampled, and its gradients: closed forms, loops, grid_sample, and what must not change anything."""

import os

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vtk_kernels import deformable_attention, sample_levels
from vtk_kernels.deformable import reference as definition

PYRAMID = [(6, 4), (3, 2)]
CLOSE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # each of its examples takes a second
quick = settings(
    max_examples=8 if INTERPRETED else 80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
sizes = {
    "shapes": st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=8),
    "B": st.integers(0, 2),
    "Q": st.integers(0, 4),
    "M": st.integers(1, 3),
    "D": st.sampled_from([1, 2, 3, 5, 8, 16, 31, 32, 33, 64, 128]),
    "P": st.integers(1, 5),
    "coordinates": st.sampled_from([2, 4]),
    "dtype": st.sampled_from(list(CLOSE)),
    "seed": st.integers(0, 1000),
}


def close(ours, expected, dtype, scale=1):
    tolerance = CLOSE[dtype] * scale
    torch.testing.assert_close(ours.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


def gradients(function, inputs, shapes, grad):
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    function(leaves[0], shapes, *leaves[1:]).backward(grad)
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize(
    ("x", "y", "expected", "dx", "dy"),
    [
        (0.5, 0.5, 2.5, 2, 4),
        (0.25, 0.25, 1, 2, 4),
        (0.75, 0.25, 2, -4, 4),
        (0, 0, 0.25, 1, 1),
        (1, 1, 1, -4, -4),
        (0.6, 0.3, 1.9, 2, 4),
        (-0.25, 0.5, 0, 0, 0),
        (-1, 0.5, 0, 0, 0),
        (float("nan"), 0.5, 0, 0, 0),
        (0.5, float("inf"), 0, 0, 0),
        (-float("inf"), 0.5, 0, 0, 0),
        (1e300, 0.5, 0, 0, 0),
    ],
)
def test_a_map_of_four_cells_in_closed_form(backend, x, y, expected, dx, dy):
    value = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64).view(1, 4, 1, 1).requires_grad_()
    location = torch.tensor([x, y], dtype=torch.float64).view(1, 1, 1, 1, 1, 2).requires_grad_()
    weight = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    out = sample_levels(value, [(2, 2)], location, weight)
    out.sum().backward()
    assert out.item() == pytest.approx(expected, abs=1e-12)
    assert location.grad.flatten().tolist() == pytest.approx([dx, dy], abs=1e-12)
    assert weight.grad.item() == pytest.approx(expected, abs=1e-12)
    assert (value.grad * value).sum().item() == pytest.approx(expected, abs=1e-12)  # the result is linear in the map


@quick
@given(**sizes)
def test_both_forms_equal_loops_over_python_numbers(
    backend, case, by_loops, shapes, B, Q, M, D, P, coordinates, dtype, seed
):
    value, reference, offsets, logits = case(
        shapes, B=B, Q=Q, M=M, D=D, P=P, coordinates=coordinates, dtype=dtype, seed=seed
    )
    where = definition.locations(reference.double(), shapes, offsets.double())
    weights = logits.double().softmax(-1).view(where.shape[:-1])
    expected = by_loops(value, shapes, where, weights)
    fused = deformable_attention(value, shapes, reference, offsets, logits)
    classic = sample_levels(value, shapes, where.to(reference.dtype), weights.to(reference.dtype))
    assert fused.dtype == classic.dtype == dtype
    close(fused, expected, dtype, 4)
    close(classic, expected, dtype, 4)


ANYWHERE = st.one_of(
    st.floats(),  # NaN, infinities, the largest and the smallest too
    st.floats(-0.5, 1.5),
    st.integers(-4, 20).map(lambda eighths: eighths / 8),  # centres and borders of cells
)


@quick
@given(places=st.lists(ANYWHERE, min_size=2, max_size=40), side=st.sampled_from([1, 3, 4, 8]))
def test_samples_at_any_place_are_those_of_the_loops_and_have_finite_gradients(backend, by_loops, places, side):
    where = torch.tensor(places[: len(places) // 2 * 2], dtype=torch.float64).view(1, -1, 1, 1, 1, 2)
    value = torch.arange(1.0, 9 * side * side + 1, dtype=torch.float64).sin().view(1, side * side, 1, 9)
    weights = torch.ones(where.shape[:-1], dtype=torch.float64)
    grad = torch.ones(1, where.shape[1], 9, dtype=torch.float64)
    close(
        sample_levels(value, [(side, side)], where, weights),
        by_loops(value, [(side, side)], where, weights),
        grad.dtype,
    )
    grads = gradients(sample_levels, (value, where, weights), [(side, side)], grad)
    assert all(each.isfinite().all() for each in grads)


@quick
@given(**sizes)
def test_gradients_equal_those_that_autograd_finds_in_grid_sample(
    backend, case, away_from_borders, shapes, B, Q, M, D, P, coordinates, dtype, seed
):
    dtype = dtype if dtype == torch.float64 else torch.float32  # the others are below
    value, reference, offsets, logits = case(
        shapes, B=max(B, 1), Q=max(Q, 1), M=M, D=D, P=P, coordinates=coordinates, dtype=dtype, seed=seed
    )
    if coordinates == 2:  # offsets can be chosen so that every location is away from the cells' borders
        where = away_from_borders(shapes, definition.locations(reference, shapes, offsets))
        wide = reference.new_tensor([(W, H) for H, W in shapes])[:, None]
        offsets = (where - reference[:, :, None, :, None]) * wide
    elif dtype == torch.float32:
        return
    inputs = (value, reference, offsets, logits)
    grad = torch.randn(len(value), offsets.shape[1], M * D, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    ours = gradients(deformable_attention, inputs, shapes, grad)
    expected = gradients(definition.deformable_attention, inputs, shapes, grad)
    for one, other in zip(ours, expected, strict=True):
        close(one, other, dtype, 10 * max(1.0, other.abs().max().item()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("coordinates", [2, 4])
def test_gradients_of_half_precision_values_are_those_of_float32_rounded_once(backend, case, dtype, coordinates):
    inputs = case(D=16, M=2, Q=5, coordinates=coordinates, dtype=dtype)
    grad = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1)).to(dtype)
    ours = gradients(deformable_attention, inputs, PYRAMID, grad)
    wide = gradients(deformable_attention, [t.float() for t in inputs], PYRAMID, grad.float())
    assert [t.dtype for t in ours] == [dtype, torch.float32, torch.float32, torch.float32]
    for one, other in zip(ours, wide, strict=True):
        eps = torch.finfo(one.dtype).eps
        smallest = 10 * eps if one.dtype == torch.float32 else 1e-7  # float16 has no smaller steps near 0
        torch.testing.assert_close(one.float(), other, rtol=2 * eps, atol=smallest)


def test_the_definition_is_grid_sample_of_every_level_summed(case):
    value, reference, offsets, logits = case(B=1, M=1, D=3)
    where = definition.locations(reference, PYRAMID, offsets)
    weights = logits.softmax(-1).view(where.shape[:-1])
    expected = 0
    for level, (H, W) in enumerate(PYRAMID):
        start = sum(h * w for h, w in PYRAMID[:level])
        image = value[:, start : start + H * W, 0].transpose(1, 2).view(1, 3, H, W)
        sampled = F.grid_sample(image, where[:, :, 0, level] * 2 - 1, padding_mode="zeros", align_corners=False)
        expected = expected + (sampled * weights[:, :, 0, level][:, None]).sum(-1)
    torch.testing.assert_close(definition.sample_levels(value, PYRAMID, where, weights), expected.transpose(1, 2))


def test_a_sample_on_the_centre_of_a_cell_is_the_cell(backend, case):
    value, *_ = case(B=1, M=2, D=4)
    start = 0
    for level, (H, W) in enumerate(PYRAMID):
        cells = torch.tensor([[(j + 0.5) / W, (i + 0.5) / H] for i in range(H) for j in range(W)], dtype=torch.float64)
        where = torch.full((1, H * W, 2, 2, 1, 2), -9.0, dtype=torch.float64)
        where[0, :, :, level, 0] = cells[:, None]
        out = sample_levels(value, PYRAMID, where, torch.ones(1, H * W, 2, 2, 1, dtype=torch.float64))
        torch.testing.assert_close(out[0].view(H * W, 2, 4), value[0, start : start + H * W], rtol=1e-12, atol=1e-12)
        start += H * W


def test_a_constant_map_returns_the_constant_times_the_weight_of_what_is_inside(backend):
    value = torch.full((1, 30, 2, 8), 3.0, dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    where = torch.rand(1, 7, 2, 2, 3, 2, generator=random, dtype=torch.float64) * 0.5 + 0.25  # all corners inside
    weights = torch.rand(1, 7, 2, 2, 3, generator=random, dtype=torch.float64)
    where[:, :, :, 1] = 5.0  # outside
    out = sample_levels(value, PYRAMID, where, weights)
    torch.testing.assert_close(out.view(1, 7, 2, 8), (3 * weights[:, :, :, 0].sum(-1))[..., None].expand(1, 7, 2, 8))


def test_queries_and_images_commute_with_their_permutation(backend, case):
    value, reference, offsets, logits = case(B=3, Q=6, coordinates=4)
    out = deformable_attention(value, PYRAMID, reference, offsets, logits)
    queries, images = torch.randperm(6), torch.randperm(3)
    moved = deformable_attention(
        value[images], PYRAMID, *(tensor[images][:, queries] for tensor in (reference, offsets, logits))
    )
    assert torch.equal(moved, out[images][:, queries])


def test_a_nan_in_one_cell_reaches_only_the_queries_that_sample_it(backend, case):
    value, reference, offsets, logits = case(B=1, Q=40, M=2, D=8, P=1, spread=1.0)
    clean = deformable_attention(value, PYRAMID, reference, offsets, logits)
    poisoned = value.clone()
    poisoned[0, 9, 1] = float("nan")  # row 2, column 1 of level 0, head 1
    out = deformable_attention(poisoned, PYRAMID, reference, offsets, logits).view(40, 2, 8)
    pixel = definition.locations(reference, PYRAMID, offsets)[0, :, 1, 0, 0] * torch.tensor([4.0, 6.0]) - 0.5
    touched = (pixel - torch.tensor([1.0, 2.0])).abs().amax(-1) < 1
    assert 0 < touched.sum() < 40
    assert out[touched, 1].isnan().all()
    assert torch.equal(out[~touched, 1], clean.view(40, 2, 8)[~touched, 1])
    assert torch.equal(out[:, 0], clean.view(40, 2, 8)[:, 0])


@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_a_sample_at_no_place_adds_nothing_and_gets_zero_gradients(backend, case, coordinates, bad):
    value, reference, offsets, logits = case(coordinates=coordinates, dtype=torch.float32)
    offsets[0, 1, 1, 0, 1, 0] = bad
    offsets[1, 0, 0, 1, 0, 1] = bad
    far = offsets.clone()
    far[0, 1, 1, 0, 1] = far[1, 0, 0, 1, 0] = 1e4
    grad = torch.ones(2, 3, 10)
    out = deformable_attention(value, PYRAMID, reference, offsets, logits)
    assert torch.equal(out, deformable_attention(value, PYRAMID, reference, far, logits))
    ours = gradients(deformable_attention, (value, reference, offsets, logits), PYRAMID, grad)
    expected = gradients(deformable_attention, (value, reference, far, logits), PYRAMID, grad)
    for one, other in zip(ours, expected, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other)
    assert ours[2][0, 1, 1, 0, 1].tolist() == [0, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reference_that_is_no_number_silences_its_level_alone(backend, case, bad):
    value, reference, offsets, logits = case(coordinates=4)
    reference[0, 1, 0, 2] = bad
    out = deformable_attention(value, PYRAMID, reference, offsets, logits)
    assert out.isfinite().all()
    grads = gradients(deformable_attention, (value, reference, offsets, logits), PYRAMID, torch.ones_like(out))
    assert all(grad.isfinite().all() for grad in grads)
    assert grads[1][0, 1, 0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("form", ["points", "boxes", "classic"])
def test_gradients_equal_finite_differences(backend, case, away_from_borders, form):
    shapes = [(6, 4), (3, 2)]
    value, reference, offsets, logits = case(shapes, B=1, Q=2, M=2, D=2, P=2, coordinates=4 if form == "boxes" else 2)
    where = away_from_borders(shapes, definition.locations(reference, shapes, offsets))
    if form == "classic":
        leaves = [value, where, logits.view(1, 2, 2, 2, 2)]
        function = sample_levels
    else:
        sides = reference.new_tensor([(W, H) for H, W in shapes])[:, None]
        moved = where - reference[:, :, None, :, None, :2]
        offsets = moved * sides if form == "points" else moved * 4 / reference[:, :, None, :, None, 2:]
        leaves = [value, reference, offsets, logits]
        function = deformable_attention
    for leaf in leaves:
        leaf.requires_grad_()
    torch.autograd.gradcheck(lambda value, *rest: function(value, shapes, *rest), leaves, fast_mode=INTERPRETED)
