from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.detect.epff import Bottleneck, LevelProjection, PyramidFusion

WIDTHS, DIM = (8, 12, 16, 8), 8
SIZES = ((16, 12), (8, 6), (4, 3), (2, 2))


def maps() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, width, *size) for width, size in zip(WIDTHS, SIZES, strict=True)]


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


def test_fusion_gives_the_coarsest_level_first_and_projection_the_finest() -> None:
    assert [tuple(each.shape[-2:]) for each in PyramidFusion(WIDTHS, DIM, 4)(maps())] == list(SIZES[::-1])
    assert [tuple(each.shape[-2:]) for each in LevelProjection(WIDTHS, DIM, 4)(maps())] == list(SIZES)


def test_a_level_is_made_of_its_map_and_all_coarser_ones() -> None:
    fusion, inputs = randomised(PyramidFusion(WIDTHS, DIM, 4)), maps()
    before = fusion(inputs)
    for changed in range(4):
        other = [each + (index == changed) * torch.randn_like(each) for index, each in enumerate(inputs)]
        same = [torch.equal(a, b) for a, b in zip(before[::-1], fusion(other)[::-1], strict=True)]  # fine to coarse
        assert same == [level > changed for level in range(4)]


def test_fusion_is_the_published_recursion() -> None:
    """The two coarsest levels written out."""
    fusion, inputs = randomised(PyramidFusion(WIDTHS, DIM, 4)), maps()

    def residual(block: nn.Module, x: Tensor) -> Tensor:
        return x + block.conv3(block.conv2(block.conv1(x.relu()).relu()).relu())

    def project(index: int) -> Tensor:
        convolution, norm = fusion.reduce[index]
        return F.group_norm(convolution(inputs[index]), 4, norm.weight, norm.bias)

    top = residual(fusion.refine[3], project(3))
    upsampled = F.interpolate(top, size=SIZES[2], mode="bilinear", align_corners=True)
    assert torch.equal(upsampled[..., 0, 0], top[..., 0, 0])  # corners on corners
    assert torch.equal(upsampled[..., -1, -1], top[..., -1, -1])
    second = residual(fusion.refine[2], fusion.smooth[2](upsampled) + residual(fusion.lateral[2], project(2)))
    levels = fusion(inputs)
    torch.testing.assert_close(levels[0], top)
    torch.testing.assert_close(levels[1], second)


def test_a_bottleneck_of_zeros_is_the_identity() -> None:
    block = Bottleneck(DIM)
    nn.init.zeros_(block.conv3.weight)
    nn.init.zeros_(block.conv3.bias)
    x = torch.randn(1, DIM, 3, 3)
    assert torch.equal(block(x), x)


def test_every_parameter_of_the_fusion_is_used() -> None:
    fusion = randomised(PyramidFusion(WIDTHS, DIM, 4))
    sum(level.square().sum() for level in fusion(maps())).backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in fusion.parameters())
