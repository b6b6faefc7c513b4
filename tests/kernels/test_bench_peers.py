"""The usual ways that the operators are timed against compute what the operators compute."""

import pytest
import torch

from vtk_kernels.bench import CASES, peers
from vtk_kernels.deformable import deformable_attention
from vtk_kernels.frequency import frequency_filter, high
from vtk_kernels.masking import keep_tokens


def test_attention_by_grid_sample_is_the_operator():
    shapes = ((6, 5), (3, 2))
    value = torch.randn(2, 36, 3, 8, dtype=torch.float64)
    reference, offsets = torch.rand(2, 7, 2, 2).double(), torch.randn(2, 7, 3, 2, 4, 2).double()
    logits = torch.randn(2, 7, 3, 8, dtype=torch.float64)
    ours = deformable_attention(value, shapes, reference, offsets, logits)
    torch.testing.assert_close(peers.deformable_attention(value, shapes, reference, offsets, logits), ours)


@pytest.mark.parametrize("axis", ["time", "space"])
def test_the_filters_by_fft_are_the_operator(axis):
    clip = torch.randn(2, 3, 16, 28, 30, dtype=torch.float64)
    usual = peers.high_pass_in_time if axis == "time" else peers.high_pass_in_space
    torch.testing.assert_close(usual(clip, 0.12), frequency_filter(clip, **{axis: high(0.12)}))


def test_masking_by_argsort_keeps_rows_of_the_input_with_their_positions():
    x, pos, token = torch.arange(20.0).repeat(3, 4, 1).transpose(1, 2), torch.rand(20, 4), torch.rand(1, 4)
    masked = peers.embed_and_mask_tokens(x, pos, token, 7)
    rows = (masked[:, 1:, 0] // 1).long()
    assert torch.equal(masked, keep_tokens(x, rows, pos, token))


def test_masked_images_keep_whole_patches():
    image = torch.rand(2, 3, 8, 12) + 1
    masked = peers.mask_patches(image, 4, 2)
    assert torch.equal((masked == image) | (masked == 0), torch.ones_like(image, dtype=torch.bool))
    assert int((masked != 0).sum()) == 2 * 2 * 3 * 16
    assert peers.keep_patches(image, 4, 2).shape == (2, 2, 48)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_ours_and_theirs_of_a_case_return_as_much(case):
    inputs = case.inputs(torch.device("cpu"), torch.float32, True)
    ours, theirs = case.ours(*inputs), case.theirs(*inputs)
    flat = [each if isinstance(each, tuple) else (each,) for each in (ours, theirs)]
    assert [tensor.shape for tensor in flat[0]] == [tensor.shape for tensor in flat[1]]
    assert case.bytes(*inputs) > 0
