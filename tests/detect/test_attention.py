"""The Reconfigured Attention Module against attention written out token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.detect.attention import ReconfiguredAttention, Windows
from vtk_cli.detect.positions import shift_mask

DIM, HEADS, WINDOW = 12, 3, 4


@pytest.fixture
def attention() -> ReconfiguredAttention:
    torch.manual_seed(0)
    module = ReconfiguredAttention(DIM, HEADS, WINDOW).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


def one_token(module: ReconfiguredAttention, query: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """A token (C,) that attends to keys (N, C) with a bias (heads, N): the result before `proj`."""
    size = DIM // HEADS
    q = F.linear(query, module.qkv.weight[:DIM], module.qkv.bias[:DIM]).reshape(HEADS, size)
    k = F.linear(keys, module.qkv.weight[DIM : 2 * DIM], module.qkv.bias[DIM : 2 * DIM]).reshape(-1, HEADS, size)
    v = F.linear(keys, module.qkv.weight[2 * DIM :], module.qkv.bias[2 * DIM :]).reshape(-1, HEADS, size)
    logits = torch.einsum("hd,nhd->hn", q * size**-0.5, k) + bias
    return torch.einsum("hn,nhd->hd", logits.softmax(-1), v).flatten()


def windows_for(height: int, width: int, shift: int, side: int = WINDOW) -> Windows:
    padded = (height + -height % side, width + -width % side)
    return Windows((side, side), padded, (shift, shift), shift_mask(padded, (side, side), (shift, shift)).double())


def slowly(module: ReconfiguredAttention, patches: Tensor, shift: int) -> Tensor:
    """PATCH x PATCH of one map (H, W, C), cell by cell, from the places of the padded map and nothing else."""
    H, W, _ = patches.shape
    height, width = H + -H % WINDOW, W + -W % WINDOW
    out = torch.zeros_like(patches)

    def place(y: int, x: int) -> tuple[int, int, int, int]:
        """The window of a cell, and where it stands in it, after the shift."""
        y, x = (y - shift) % height, (x - shift) % width
        return y // WINDOW, x // WINDOW, y % WINDOW, x % WINDOW

    for y in range(H):
        for x in range(W):
            mine = place(y, x)
            keys, bias = [], []
            for ky in range(height):
                for kx in range(width):
                    other = place(ky, kx)
                    if other[:2] != mine[:2]:
                        continue
                    inside = ky < H and kx < W
                    keys.append(patches[ky, kx] if inside else torch.zeros(DIM, dtype=patches.dtype))
                    dy, dx = mine[2] - other[2], mine[3] - other[3]
                    rolled = ((ky < shift) != (y < shift)) or ((kx < shift) != (x < shift))  # over the map's edge
                    row = module.relative_position_bias_table[(dy + WINDOW - 1) * (2 * WINDOW - 1) + dx + WINDOW - 1]
                    bias.append(row + (-100 if rolled else 0))
            out[y, x] = module.proj(one_token(module, patches[y, x], torch.stack(keys), torch.stack(bias, 1)))
    return out


@pytest.mark.parametrize(("height", "width"), [(4, 8), (6, 9), (3, 5)])
@pytest.mark.parametrize("shift", [0, 2])
def test_patches_attend_within_their_window(
    attention: ReconfiguredAttention, height: int, width: int, shift: int
) -> None:
    patches = torch.randn(2, height, width, DIM, dtype=torch.float64)
    with torch.no_grad():
        fast = attention.patches(patches, windows_for(height, width, shift), shifted=shift > 0)
        for index in range(2):
            torch.testing.assert_close(fast[index], slowly(attention, patches[index], shift))


def test_a_window_smaller_than_the_table_uses_its_middle(attention: ReconfiguredAttention) -> None:
    """A 2 x 2 map attends within itself, with the biases of its distances."""
    patches = torch.randn(1, 2, 2, DIM, dtype=torch.float64)
    with torch.no_grad():
        fast = attention.patches(patches, Windows((2, 2), (2, 2), (0, 0), None), shifted=False)
        for query in range(4):
            rows = [
                attention.relative_position_bias_table[
                    (query // 2 - key // 2 + WINDOW - 1) * (2 * WINDOW - 1) + query % 2 - key % 2 + WINDOW - 1
                ]
                for key in range(4)
            ]
            cells = patches.reshape(4, DIM)
            slow = attention.proj(one_token(attention, cells[query], cells, torch.stack(rows, 1)))
            torch.testing.assert_close(fast.reshape(4, DIM)[query], slow)


def test_det_tokens_attend_to_one_another(attention: ReconfiguredAttention) -> None:
    tokens = torch.randn(2, 5, DIM, dtype=torch.float64)
    with torch.no_grad():
        fast = attention.tokens(tokens)
        for index in range(2):
            for query in range(5):
                slow = one_token(attention, tokens[index, query], tokens[index], torch.zeros(HEADS, 5).double())
                torch.testing.assert_close(fast[index, query], attention.proj(slow))


def test_det_tokens_and_patches_share_one_softmax(attention: ReconfiguredAttention) -> None:
    tokens, patches = torch.randn(2, 3, DIM, dtype=torch.float64), torch.randn(2, 6, DIM, dtype=torch.float64)
    padding = torch.tensor([[False] * 6, [False, False, True, True, False, True]])
    with torch.no_grad():
        fast = attention.tokens_and_patches(tokens, patches, padding)
        for index in range(2):
            keys = torch.cat((patches[index], tokens[index]))
            bias = torch.cat((padding[index].double() * -100, torch.zeros(3).double())).expand(HEADS, -1)
            for query in range(3):
                slow = one_token(attention, tokens[index, query], keys, bias)
                torch.testing.assert_close(fast[index, query], attention.proj(slow))


def test_with_all_patches_hidden_only_the_det_tokens_are_left(attention: ReconfiguredAttention) -> None:
    tokens, patches = torch.randn(2, 3, DIM, dtype=torch.float64), torch.randn(2, 6, DIM, dtype=torch.float64)
    hidden = attention.tokens_and_patches(tokens, patches, torch.ones(2, 6, dtype=torch.bool))
    torch.testing.assert_close(hidden, attention.tokens(tokens), atol=1e-5, rtol=0)


def test_the_weights_of_patches_and_det_tokens_sum_to_one(attention: ReconfiguredAttention) -> None:
    """With every value the same, what comes out is that value."""
    with torch.no_grad():
        attention.qkv.weight[2 * DIM :] = 0
        tokens, patches = torch.randn(1, 3, DIM, dtype=torch.float64), torch.randn(1, 6, DIM, dtype=torch.float64)
        padding = torch.tensor([[False, True, False, False, False, True]])
        out = attention.tokens_and_patches(tokens, patches, padding)
        value = attention.proj(attention.qkv.bias[2 * DIM :])
    torch.testing.assert_close(out, value.expand(1, 3, -1))


@pytest.mark.parametrize("shift", [0, 2])
def test_gradients_reach_every_parameter(attention: ReconfiguredAttention, shift: int) -> None:
    patches = torch.randn(1, 5, 6, DIM, dtype=torch.float64)
    (attention.patches(patches, windows_for(5, 6, shift), shifted=shift > 0) ** 2).sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name
