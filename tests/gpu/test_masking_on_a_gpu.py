"""The masking operators in Triton on a GPU: the subsets of the CPU, and the bits of the reference there."""

import pytest
import torch

from vtk_kernels import dispatch, keep_patches, keep_tokens, mask_patches, random_keep

DEVICE = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def on_both(monkeypatch):
    """What Triton gives, and what the reference gives of the same."""

    def run(function, *arguments):
        results = []
        for backend in ("triton", "reference"):
            monkeypatch.setenv(dispatch.VARIABLE, backend)
            results.append(function(*arguments))
        return results

    return run


@pytest.mark.parametrize(("tokens", "keep"), [(1, 1), (196, 49), (197, 98), (1000, 999), (16384, 4096), (20000, 7)])
def test_the_subsets_are_those_of_the_cpu(tokens, keep):
    for seed, step in [(0, 0), (2**64 - 1, 2**63), (7, 2**32 + 1)]:
        ours = random_keep(9, tokens, keep, seed=seed, step=step, device=DEVICE)
        assert torch.equal(ours.cpu(), random_keep(9, tokens, keep, seed=seed, step=step))


def tokens_and_gradients(x, pos, prefix, keep):
    leaves = [each.clone().requires_grad_() for each in (x, pos, prefix)]
    kept = keep_tokens(leaves[0], keep, *leaves[1:])
    kept.backward(kept.detach().sin())
    return [kept.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("batch", "tokens", "channels"), [(64, 196, 768), (3, 50, 7), (2, 11, 1500), (0, 9, 16)])
def test_kept_tokens_have_the_bits_of_the_reference_and_their_gradients_its_values(
    on_both, dtype, batch, tokens, channels
):
    x = torch.randn(batch, tokens, channels, device=DEVICE).to(dtype)
    pos, prefix = (torch.randn(rows, channels, device=DEVICE).to(dtype) for rows in (tokens, 2))
    keep = random_keep(batch, tokens, tokens // 2, seed=1, device=DEVICE)
    ours, expected = on_both(tokens_and_gradients, x, pos, prefix, keep)
    assert torch.equal(ours[0], expected[0])
    assert torch.equal(ours[1], expected[1])
    for one, other in zip(ours[2:], expected[2:], strict=True):  # sums over the batch, in another order
        error = torch.finfo(dtype).eps * 8
        torch.testing.assert_close(one, other, rtol=error, atol=error * max(1, batch) ** 0.5)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint8])
@pytest.mark.parametrize(("batch", "side", "patch"), [(64, 224, 16), (2, 56, 14), (3, 40, 8), (1, 96, 32), (2, 15, 5)])
def test_kept_and_masked_patches_have_the_bits_of_the_reference(on_both, dtype, batch, side, patch):
    image = (torch.rand(batch, 3, side, side, device=DEVICE) * 255).to(dtype)
    tokens = (side // patch) ** 2
    keep = random_keep(batch, tokens, (tokens + 1) // 2, seed=2, device=DEVICE)
    assert torch.equal(*on_both(keep_patches, image, keep, patch))
    assert torch.equal(*on_both(mask_patches, image, keep, patch, [1, 2, 3]))
    assert torch.equal(*on_both(mask_patches, image.contiguous(memory_format=torch.channels_last), keep, patch))


def patch_gradients(image, fill, keep, patch):
    leaves = [each.clone().requires_grad_() for each in (image, fill)]
    loss = (
        keep_patches(leaves[0], keep, patch).square().sum()
        + mask_patches(leaves[0], keep, patch, leaves[1]).sin().sum()
    )
    return torch.autograd.grad(loss, leaves)


def test_gradients_through_patches_are_those_of_the_reference_and_repeat_bit_for_bit(on_both, monkeypatch):
    image, fill = torch.rand(8, 3, 64, 64, device=DEVICE), torch.rand(3, device=DEVICE)
    keep = random_keep(8, 16, 5, seed=3, device=DEVICE)
    ours, expected = on_both(patch_gradients, image, fill, keep, 16)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(patch_gradients(image, fill, keep, 16), ours, strict=True))


def test_a_token_out_of_range_reads_as_nan_and_touches_nothing_else(monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    x = torch.ones(2, 6, 64, device=DEVICE)
    keep = torch.tensor([[0, 6], [-1, 2**62]], device=DEVICE)
    assert keep_tokens(x, keep).isnan().all(dim=2).tolist() == [[False, True], [True, True]]
    image = torch.ones(2, 3, 16, 24, device=DEVICE)
    assert keep_patches(image, keep, 8).isnan().all(dim=2).tolist() == [[False, True], [True, True]]


def test_masking_compiles_as_one_graph(monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    x = torch.randn(8, 196, 64, device=DEVICE)

    def masked(x, step):
        return keep_tokens(x, random_keep(8, 196, 98, seed=1, step=step, device=x.device)).square()

    compiled = torch.compile(masked, fullgraph=True)
    for step in range(4):
        torch.testing.assert_close(compiled(x, step), masked(x, step))


def test_sets_on_another_device_are_refused():
    with pytest.raises(ValueError, match=r"^keep: expected"):
        keep_tokens(torch.zeros(2, 6, 3, device=DEVICE), torch.zeros(2, 1, dtype=torch.int64))
