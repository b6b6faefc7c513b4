"""keep_patches and mask_patches against unfold, convolution and where; their gradients; their place in torch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vtk_kernels import keep_patches, mask_patches, random_keep
from vtk_kernels.masking import library

TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.uint8)
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
shapes = {
    "batch": st.integers(0, 3),
    "channels": st.integers(1, 4),
    "rows": st.integers(1, 4),
    "columns": st.integers(1, 4),
    "height": st.integers(1, 9),
    "width": st.sampled_from([1, 2, 3, 4, 7, 8, 14, 16, 32, 33]),
    "dtype": st.sampled_from(TYPES),
}


def case(batch, channels, rows, columns, height, width, dtype=torch.float32, keep=None):
    generator = torch.Generator().manual_seed(0)
    image = (torch.rand(batch, channels, rows * height, columns * width, generator=generator) * 255).to(dtype)
    return image, random_keep(batch, rows * columns, keep or (rows * columns + 1) // 2, seed=3)


def cut(image, height, width):
    """(B, N, C * height * width) by torch's unfold."""
    return F.unfold(image.double(), (height, width), stride=(height, width)).transpose(1, 2).to(image.dtype)


def complement(keep, count):
    rest = torch.ones(len(keep), count, dtype=torch.bool).scatter(1, keep, value=False)
    return rest.nonzero()[:, 1].view(len(keep), -1)


def where(image, keep, height, width, fill):
    """The image in kept patches, `fill` (C, height, width) elsewhere, by an enlarged mask."""
    rows, columns = image.shape[2] // height, image.shape[3] // width
    mask = torch.zeros(len(image), rows * columns).scatter(1, keep, 1.0).view(len(image), 1, rows, columns)
    enlarged = mask.repeat_interleave(height, 2).repeat_interleave(width, 3)
    return torch.where(enlarged > 0, image, fill.to(image.dtype).tile(1, rows, columns))


@quick
@given(data=st.data(), **shapes)
def test_kept_patches_are_those_of_unfold(backend, data, batch, channels, rows, columns, height, width, dtype):
    kept = data.draw(st.integers(1, rows * columns))
    image, keep = case(batch, channels, rows, columns, height, width, dtype, kept)
    keep = keep.flip(1)  # any order
    patches = keep_patches(image, keep, (height, width))
    assert patches.dtype == dtype
    assert patches.shape == (batch, kept, channels * height * width)
    if batch:
        every = cut(image, height, width)
        assert torch.equal(patches, every.gather(1, keep[:, :, None].expand(-1, -1, every.shape[2])))


@quick
@given(data=st.data(), **shapes)
def test_masked_images_are_those_of_where(backend, data, batch, channels, rows, columns, height, width, dtype):
    kept = data.draw(st.integers(1, rows * columns))
    image, keep = case(batch, channels, rows, columns, height, width, dtype, kept)
    keep = keep[:, : data.draw(st.integers(0, kept))]
    fill = (torch.rand(channels, height, width) * 200).to(dtype)
    assert torch.equal(mask_patches(image, keep, (height, width), fill), where(image, keep, height, width, fill))


@quick
@given(data=st.data(), **{**shapes, "dtype": st.sampled_from(TYPES[:3])})
def test_placing_patches_is_the_adjoint_of_keeping_them(
    backend, data, batch, channels, rows, columns, height, width, dtype
):
    kept = data.draw(st.integers(1, rows * columns))
    image, keep = case(batch, channels, rows, columns, height, width, dtype, kept)
    patches = keep_patches(image, keep, (height, width))
    placed = library.place_patches(patches, keep, channels, rows, columns, height, width)
    assert torch.equal(placed, where(image, keep, height, width, torch.zeros(channels, 1, 1).expand(-1, height, width)))


def test_a_convolution_on_the_kept_patches_is_a_matrix_product(backend):
    image, keep = case(2, 3, 4, 5, 8, 8, torch.float64)
    convolution = torch.nn.Conv2d(3, 6, 8, stride=8, dtype=torch.float64)
    ours = keep_patches(image, keep, 8) @ convolution.weight.flatten(1).T + convolution.bias
    every = convolution(image).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, every.gather(1, keep[:, :, None].expand(-1, -1, 6)))


def test_an_image_is_the_sum_of_what_a_mask_and_its_complement_keep(backend):
    image, keep = case(3, 2, 3, 5, 4, 4)
    other = complement(keep, 15)
    assert keep.shape[1] + other.shape[1] == 15
    assert torch.equal(mask_patches(image, keep, 4) + mask_patches(image, other, 4), image)
    together = torch.cat((keep, other), dim=1)
    assert torch.equal(mask_patches(image, together, 4), image)
    assert torch.equal(keep_patches(image, together.sort(dim=1).values, 4), cut(image, 4, 4))


@pytest.mark.parametrize(
    "fill", [7.5, [1.0, 2.0, 3.0], (1, 2, 3), torch.tensor(2.5), torch.arange(3.0), torch.rand(3, 4, 4)]
)
def test_the_fill_may_be_a_number_a_colour_or_a_patch(backend, fill):
    image, keep = case(2, 3, 3, 3, 4, 4)
    whole = torch.as_tensor(fill, dtype=torch.float32)
    whole = (whole[:, None, None] if whole.ndim == 1 else whole).expand(3, 4, 4)
    assert torch.equal(mask_patches(image, keep, 4, fill), where(image, keep, 4, 4, whole))


def test_masking_twice_changes_nothing_more(backend):
    image, keep = case(2, 3, 3, 3, 4, 4)
    once = mask_patches(image, keep, 4, 0.25)
    assert torch.equal(mask_patches(once, keep, 4, 0.25), once)


def test_images_that_are_not_contiguous(backend):
    image, keep = case(2, 3, 3, 2, 4, 4)
    last = image.contiguous(memory_format=torch.channels_last)
    strided = keep.mT.contiguous().mT
    assert torch.equal(keep_patches(last, strided, 4), keep_patches(image, keep, 4))
    assert torch.equal(mask_patches(last, strided, 4), mask_patches(image, keep, 4))
    part = torch.cat((image, image), dim=3)[:, :, :, 8:]
    assert torch.equal(mask_patches(part, keep, 4), mask_patches(part.contiguous(), keep, 4))


def test_nan_outside_the_kept_patches_is_gone_and_has_no_gradient(backend):
    image, keep = case(1, 1, 2, 2, 4, 4, keep=1)
    kept = mask_patches(torch.ones_like(image), keep, 4).bool()
    image = torch.where(kept, image, torch.nan).requires_grad_()
    masked = mask_patches(image, keep, 4)
    assert masked.isfinite().all()
    masked.sum().backward()
    assert torch.equal(image.grad, kept.float())


@pytest.mark.parametrize("fill_shape", [(), (2,), (2, 2, 3)])
def test_first_and_second_derivatives(backend, fill_shape):
    image, keep = case(2, 2, 2, 2, 2, 3, torch.float64)
    image, fill = (image / 255).requires_grad_(), torch.rand(fill_shape, dtype=torch.float64, requires_grad=True)
    for function in (
        lambda image, fill: mask_patches(image, keep, (2, 3), fill) ** 2,
        lambda image, fill: keep_patches(image, keep, (2, 3)) ** 2 * fill.sum(),
    ):
        assert torch.autograd.gradcheck(function, (image, fill), fast_mode=backend == "triton")
        assert torch.autograd.gradgradcheck(function, (image, fill), fast_mode=backend == "triton")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_learned_fill_gets_the_sum_over_what_it_covers(backend, dtype):
    """Summed in float32 also where the image is bfloat16: the fill keeps its own type."""
    image, keep = case(5, 3, 6, 5, 4, 4, dtype)
    fill = torch.zeros(3, requires_grad=True)
    grad = torch.randn(image.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    masked = mask_patches(image, keep, 4, fill)
    assert masked.dtype == dtype
    masked.backward(grad)
    outside = mask_patches(torch.ones_like(image), keep, 4) == 0
    expected = (grad.double() * outside).sum(dim=(0, 2, 3)).float()
    torch.testing.assert_close(fill.grad, expected, rtol=1e-5, atol=1e-4)


def test_a_fill_is_rounded_to_the_type_of_the_image(backend):
    image, keep = case(2, 3, 3, 3, 4, 4, torch.bfloat16)
    fill = torch.rand(3)
    assert torch.equal(mask_patches(image, keep, 4, fill), mask_patches(image, keep, 4, fill.bfloat16()))


def test_results_are_the_same_bits_for_any_number_of_threads(backend):
    if backend == "triton":
        pytest.skip("the interpreter has one thread")
    image, keep = case(24, 3, 8, 8, 16, 16)  # large enough that threads are used
    fill, found, before = torch.rand(3), [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            patches = keep_patches(image, keep, 16)
            placed = library.place_patches(patches, keep, 3, 8, 8, 16, 16)
            sums = library.fill_gradient(image, keep, 16, 16)
            found.append((patches, placed, mask_patches(image, keep, 16, fill), sums))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_they_are_operators_of_torch(backend):
    image, keep = case(2, 3, 2, 3, 4, 4)
    image.requires_grad_()
    fill = torch.rand(3, 4, 4, requires_grad=True)
    patches = torch.rand(2, 3, 48, requires_grad=True)
    torch.library.opcheck(library.keep_patches, (image, keep, 4, 4))
    torch.library.opcheck(library.place_patches, (patches, keep, 3, 2, 3, 4, 4))
    torch.library.opcheck(library.mask_patches, (image, keep, fill))
    torch.library.opcheck(library.fill_gradient, (image, keep, 4, 4))


def test_they_compile_as_one_graph_with_their_gradients(backend):
    image, keep = case(2, 3, 2, 3, 4, 4)

    def loss(image, fill):
        return keep_patches(image, keep, 4).square().sum() + mask_patches(image, keep, 4, fill).pow(3).sum()

    grads = []
    for run in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        inputs = (image.clone().requires_grad_(), torch.ones(3, requires_grad=True))
        run(*inputs).backward()
        grads.append([each.grad for each in inputs])
    assert all(torch.equal(one, two) for one, two in zip(*grads, strict=True))


def test_autocast_changes_nothing_because_nothing_is_computed(backend):
    image, keep = case(2, 3, 2, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(keep_patches(image, keep, 4), keep_patches(image.clone(), keep, 4))
        assert mask_patches(image, keep, 4).dtype == torch.float32


WRONG = [
    ("patch", {"patch": 0}),
    ("patch", {"patch": (4, -1)}),
    ("image", {"image": torch.zeros(3, 8, 8)}),
    ("image", {"image": torch.zeros(1, 3, 8, 8, dtype=torch.int64)}),
    ("image", {"image": torch.zeros(1, 3, 8, 9)}),
    ("image", {"image": torch.zeros(1, 3, 6, 8)}),
    ("keep", {"keep": torch.zeros(1, 5, dtype=torch.int64)}),
    ("keep", {"keep": torch.zeros(1, 1)}),
    ("keep", {"keep": torch.zeros(1, 1, dtype=torch.int64, device="meta")}),
]


@pytest.mark.parametrize(("argument", "change"), WRONG)
@pytest.mark.parametrize("operator", [keep_patches, mask_patches])
def test_a_wrong_argument_is_named(backend, operator, argument, change):
    right = {"image": torch.zeros(1, 3, 8, 8), "keep": torch.tensor([[0]]), "patch": 4}
    with pytest.raises(ValueError, match=f"^{argument}: expected .*, got"):
        operator(**{**right, **change})


@pytest.mark.parametrize("keep", [[[4]], [[-1]], [[2**62]], [[1, 1]]])
def test_patches_out_of_range_or_named_twice_are_refused_on_the_cpu(backend, keep):
    image, keep = torch.ones(1, 3, 8, 8), torch.tensor(keep)
    if backend == "triton":
        wrong = (keep < 0) | (keep > 3)
        assert torch.equal(keep_patches(image, keep, 4).isnan().all(dim=2), wrong)
        assert keep_patches(image.byte(), keep, 4).max() <= 1
        assert float(mask_patches(image, keep, 4).sum()) == (0 if wrong.any() else 48)
        return
    for operator in (keep_patches, mask_patches):
        with pytest.raises(ValueError, match=r"^keep: "):
            operator(image, keep, 4)


@pytest.mark.parametrize("fill", [torch.zeros(2), [1.0, 2.0], torch.zeros(3, 4), torch.zeros(3, device="meta")])
def test_a_wrong_fill_is_named(backend, fill):
    with pytest.raises(ValueError, match=r"^fill: expected .*, got"):
        mask_patches(torch.zeros(1, 3, 8, 8), torch.tensor([[0]]), 4, fill)
