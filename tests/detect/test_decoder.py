from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.detect.decoder import DecoderLayer, DeformableAttention, Memory, memory_of

B, Q, DIM, HEADS, POINTS = 2, 3, 8, 2, 3
SIZES = ((6, 8), (3, 4))


def mask_of(*valid: tuple[int, int], extent: tuple[int, int] = (48, 64)) -> Tensor:
    mask = torch.ones(len(valid), *extent, dtype=torch.bool)
    for each, (height, width) in zip(mask, valid, strict=True):
        each[:height, :width] = False
    return mask


def random_memory(*valid: tuple[int, int], seed: int = 0) -> Memory:
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(len(valid), DIM, *size, generator=generator, dtype=torch.float64) for size in SIZES]
    return memory_of(maps, mask_of(*valid))


def random_attention() -> DeformableAttention:
    torch.manual_seed(3)
    attention = DeformableAttention(DIM, HEADS, len(SIZES), POINTS).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.5)
    return attention


def test_memory_lays_out_levels_row_by_row() -> None:
    maps = [torch.randn(1, DIM, *size) for size in SIZES]
    memory = memory_of(maps, mask_of((48, 64)))
    assert memory.cells.shape == (1, 60, DIM)
    assert torch.equal(memory.cells[0, 2 * 8 + 5], maps[0][0, :, 2, 5])
    assert torch.equal(memory.cells[0, 48 + 4 + 3], maps[1][0, :, 1, 3])
    assert [part.shape[1] for part in memory.levels(memory.cells)] == [48, 12]
    assert memory.valid_ratios.tolist() == [[[1, 1], [1, 1]]]


def test_valid_ratios_are_the_parts_of_columns_and_rows_that_are_image() -> None:
    memory = random_memory((48, 64), (30, 33))
    # 30 of 48 rows: cells that start above row 30, 4 of 6 and 2 of 3; 33 of 64 columns: 5 of 8 and 3 of 4.
    torch.testing.assert_close(memory.valid_ratios[1], torch.tensor([[5 / 8, 4 / 6], [3 / 4, 2 / 3]]))
    assert int((~memory.padding[1]).sum()) == 5 * 4 + 3 * 2


@pytest.mark.parametrize("shape", [2, 4])
def test_attention_samples_around_the_reference_on_every_level(shape: int) -> None:
    """Against `grid_sample` point by point, on an image that is partly padding."""
    attention, memory = random_attention(), random_memory((48, 64), (30, 33))
    queries = torch.randn(B, Q, DIM, dtype=torch.float64)
    references = torch.rand(B, Q, shape, dtype=torch.float64)
    out = attention(queries, references, memory)
    values = attention.value_proj(memory.cells) * ~memory.padding[..., None]
    offsets = attention.sampling_offsets(queries).reshape(B, Q, HEADS, 2, POINTS, 2)
    weights = attention.attention_weights(queries).reshape(B, Q, HEADS, -1).softmax(-1).reshape(B, Q, HEADS, 2, POINTS)
    expected = torch.zeros(B, Q, HEADS, DIM // HEADS, dtype=torch.float64)
    for b in range(B):
        for q in range(Q):
            for head in range(HEADS):
                for level, (H, W) in enumerate(SIZES):
                    cells = memory.levels(values)[level][b].reshape(H, W, HEADS, -1)[:, :, head].permute(2, 0, 1)
                    ratio = memory.valid_ratios[b, level].double()
                    for point in range(POINTS):
                        offset = offsets[b, q, head, level, point]
                        place = references[b, q, :2] * ratio
                        if shape == 2:
                            place = place + offset / torch.tensor([W, H])
                        else:
                            place = place + offset / POINTS * references[b, q, 2:] * ratio * 0.5
                        grid = (2 * place - 1).reshape(1, 1, 1, 2)
                        sample = F.grid_sample(cells[None], grid, mode="bilinear", align_corners=False).flatten()
                        expected[b, q, head] += weights[b, q, head, level, point] * sample
    torch.testing.assert_close(out, attention.output_proj(expected.flatten(2)))


def test_what_stands_in_padded_cells_is_never_seen() -> None:
    attention, memory = random_attention(), random_memory((48, 64), (30, 33))
    noisy = Memory(
        memory.cells + torch.randn_like(memory.cells) * memory.padding[..., None],
        memory.padding,
        memory.shapes,
        memory.valid_ratios,
    )
    queries, references = torch.randn(B, Q, DIM).double(), torch.rand(B, Q, 4).double()
    assert torch.equal(attention(queries, references, memory), attention(queries, references, noisy))


def test_references_are_relative_to_the_image_not_to_its_padding() -> None:
    """The same image with and without padding by whole cells: the same samples, but for the image's far edge."""
    attention = random_attention()
    with torch.no_grad():
        attention.sampling_offsets.weight.zero_()
        attention.sampling_offsets.bias.zero_()
    small = [torch.randn(1, DIM, *size, dtype=torch.float64) for size in SIZES]
    large = [F.pad(each, (0, each.shape[3], 0, each.shape[2])) for each in small]
    queries, references = torch.randn(1, Q, DIM).double(), torch.rand(1, Q, 2).double()
    alone = attention(queries, references, memory_of(small, mask_of((48, 64))))
    within = attention(queries, references, memory_of(large, mask_of((48, 64), extent=(96, 128))))
    torch.testing.assert_close(alone, within)


def test_at_first_each_head_looks_its_own_way_with_equal_weights() -> None:
    attention = DeformableAttention(32, 8, 2, 4)
    offsets = attention.sampling_offsets(torch.randn(5, 32)).reshape(5, 8, 2, 4, 2)
    assert torch.equal(offsets[0], offsets[4])
    assert torch.equal(offsets[0, :, 0], offsets[0, :, 1])
    expected = torch.tensor([[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]]).float()
    for point in range(4):
        torch.testing.assert_close(offsets[0, :, 0, point], expected * (point + 1), atol=1e-5, rtol=0)
    assert not attention.attention_weights(torch.randn(5, 32)).any()


def test_a_layer_attends_to_queries_then_memory_then_thinks() -> None:
    """With its parts silenced one by one, a layer is what is left, normed three times in the order 2, 1, 3."""
    torch.manual_seed(0)
    layer = DecoderLayer(DIM, HEADS, levels=2, points=POINTS, ffn=16, dropout=0.1).double().eval()
    with torch.no_grad():
        for index, norm in enumerate((layer.norm1, layer.norm2, layer.norm3)):
            norm.bias.normal_()
            norm.weight.fill_(index + 1.5)
    memory = random_memory((48, 64), (30, 33))
    tokens, positions = torch.randn(B, Q, DIM).double(), torch.randn(B, Q, DIM).double()
    references = torch.rand(B, Q, 4).double()
    placed = tokens + positions
    attended = layer.self_attn(placed, placed, tokens)[0]
    second = layer.norm2(tokens + attended)
    first = layer.norm1(second + layer.cross_attn(second + positions, references, memory))
    hidden = layer.linear2(layer.linear1(first).relu())
    torch.testing.assert_close(layer(tokens, positions, references, memory), layer.norm3(first + hidden))


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    layer = DecoderLayer(DIM, HEADS, levels=2, points=POINTS, ffn=16, dropout=0.5).double()
    memory = random_memory((48, 64))
    given = (torch.randn(1, Q, DIM).double(), torch.randn(1, Q, DIM).double(), torch.rand(1, Q, 2).double(), memory)
    assert not torch.equal(layer.train()(*given), layer(*given))
    assert torch.equal(layer.eval()(*given), layer(*given))
