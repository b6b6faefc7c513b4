"""The operators' place in torch: registration, compilation, autocast, layout, empty batches, determinism, refusals."""

import pytest
import torch

from vtk_kernels import deformable_attention, sample_levels

PYRAMID = [(6, 4), (3, 2)]
FLAT = [side for shape in PYRAMID for side in shape]


@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_opcheck_of_attention(backend, case, coordinates, dtype):
    leaves = [tensor.requires_grad_() for tensor in case(coordinates=coordinates, dtype=dtype)]
    torch.library.opcheck(torch.ops.vtk_kernels.deformable_attention, (leaves[0], FLAT, *leaves[1:], False))


def test_opcheck_of_sampling(backend, case):
    value, _, offsets, logits = case()
    leaves = [value.requires_grad_(), offsets.requires_grad_(), logits.view(2, 3, 2, 2, 2).requires_grad_()]
    torch.library.opcheck(torch.ops.vtk_kernels.sample_levels, (leaves[0], FLAT, *leaves[1:], True))


@pytest.mark.slow
def test_compiled_in_one_graph_it_gives_the_same_result_and_gradients(backend, case):
    def layer(value, reference, offsets, logits):
        return deformable_attention(value * 2, PYRAMID, reference, offsets, logits).relu()

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for Q in (3, 5):
        leaves = [tensor.requires_grad_() for tensor in case(Q=Q, coordinates=4)]
        twins = [tensor.detach().clone().requires_grad_() for tensor in leaves]
        layer(*leaves).sum().backward()
        compiled(*twins).sum().backward()
        for leaf, twin in zip(leaves, twins, strict=True):
            torch.testing.assert_close(leaf.grad, twin.grad)


def test_under_autocast_it_takes_what_layers_give_and_keeps_locations_wide(backend, case):
    value, reference, offsets, logits = case(D=8, dtype=torch.float32)
    layer = torch.nn.Linear(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = layer(value)
        out = deformable_attention(narrow, PYRAMID, reference, offsets, logits.bfloat16())
    assert narrow.dtype == out.dtype == torch.bfloat16
    out.sum().backward()
    assert layer.weight.grad.isfinite().all()
    expected = deformable_attention(narrow.detach().float(), PYRAMID, reference, offsets, logits.bfloat16().float())
    torch.testing.assert_close(out.float(), expected, rtol=2**-7, atol=1e-6)


def test_inputs_with_gaps_give_what_their_copies_give(backend, case):
    inputs = case(D=8, coordinates=4)
    gaps = [torch.stack((tensor, tensor), -1)[..., 1] for tensor in inputs]
    assert not any(tensor.is_contiguous() for tensor in gaps)
    out = deformable_attention(inputs[0], PYRAMID, *inputs[1:])
    leaves = [tensor.requires_grad_() for tensor in gaps]
    again = deformable_attention(leaves[0], PYRAMID, *leaves[1:])
    assert torch.equal(again, out)
    again.sum().backward(inputs=leaves)
    assert all(leaf.grad.shape == leaf.shape for leaf in leaves)


@pytest.mark.parametrize(("B", "Q"), [(0, 3), (2, 0), (0, 0)])
def test_no_images_or_no_queries_give_an_empty_result_and_zero_gradients(backend, case, B, Q):
    leaves = [tensor.requires_grad_() for tensor in case(B=B, Q=Q)]
    out = deformable_attention(leaves[0], PYRAMID, *leaves[1:])
    assert out.shape == (B, Q, 10)
    out.sum().backward()
    assert not leaves[0].grad.any()


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_gradients_are_those_of_the_other_order(backend, case, deterministic):
    inputs = case(B=2, Q=50, M=2, D=8, dtype=torch.float32, spread=0.5)
    grads = []
    for _ in range(2):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        deformable_attention(leaves[0], PYRAMID, *leaves[1:], deterministic=deterministic).sin().sum().backward()
        grads.append(leaves[0].grad)
    assert torch.equal(*grads)
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    deformable_attention(exact[0], PYRAMID, *exact[1:]).sin().sum().backward()
    torch.testing.assert_close(grads[0].double(), exact[0].grad, rtol=1e-5, atol=1e-5)


def test_torchs_own_flag_asks_for_the_deterministic_order(backend, case):
    leaves = [tensor.requires_grad_() for tensor in case(dtype=torch.float32)]
    torch.use_deterministic_algorithms(True)
    try:
        deformable_attention(leaves[0], PYRAMID, *leaves[1:]).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert leaves[0].grad.isfinite().all()


def test_the_gradient_of_a_gradient_is_refused(backend, case):
    leaves = [tensor.requires_grad_() for tensor in case()]
    out = deformable_attention(leaves[0], PYRAMID, *leaves[1:]).sum()
    with pytest.raises(RuntimeError):
        torch.autograd.grad(torch.autograd.grad(out, leaves[1], create_graph=True)[0].sum(), leaves[1])


WRONG = {
    "value": [torch.zeros(2, 30, 2), torch.zeros(2, 30, 2, 5, dtype=torch.int64), torch.zeros(2, 30, 0, 5)],
    "shapes": [
        [(6, 4)],
        [(6, 4), (3, 2)] * 5,
        [],
        [(6, 4, 1), (3, 2)],
        [(30, 1), (0, 7)],
        [(-6, -4), (3, 2)],
        [(1, 2**24 + 1)],
    ],
    "reference": [torch.zeros(2, 3, 2, 3), torch.zeros(2, 4, 2, 2), torch.zeros(2, 3, 2, 2, dtype=torch.int32)],
    "offsets": [torch.zeros(2, 3, 2, 2, 2, 3), torch.zeros(1, 3, 2, 2, 2, 2), torch.zeros(2, 3, 2, 2, 0, 2)],
    "logits": [torch.zeros(2, 3, 2, 5), torch.zeros(2, 3, 2, 2, 2), torch.zeros(2, 3, 2, 4, device="meta")],
}


@pytest.mark.parametrize(("name", "wrong"), [(name, wrong) for name, values in WRONG.items() for wrong in values])
def test_what_does_not_fit_is_refused_by_its_name(backend, case, name, wrong):
    value, reference, offsets, logits = case(dtype=torch.float32)
    inputs = {"value": value, "shapes": PYRAMID, "reference": reference, "offsets": offsets, "logits": logits}
    with pytest.raises(ValueError, match=rf"^{name}: expected|^{name}: .* cells"):
        deformable_attention(**{**inputs, name: wrong})


@pytest.mark.parametrize("name", ["locations", "weights"])
def test_the_classic_form_names_what_does_not_fit(backend, case, name):
    value, _, offsets, logits = case()
    inputs = {"locations": offsets, "weights": logits.view(2, 3, 2, 2, 2)}
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        sample_levels(value, PYRAMID, **{**inputs, name: inputs[name][:, :, :1]})
