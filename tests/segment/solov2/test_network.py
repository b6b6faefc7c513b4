from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vtk_cli.errors import UserError
from vtk_cli.segment.solov2.configurations import SegmenterConfig, segmenter_config
from vtk_cli.segment.solov2.network import SOLOv2, five_levels, parameter_count, with_coordinates


@pytest.fixture(scope="module")
def full_size() -> SOLOv2:
    """The teacher on ResNet-50, without memory for its weights."""
    with torch.device("meta"):
        return SOLOv2(segmenter_config("solov2-r50", 80, "teacher"))


def test_the_published_numbers_of_parameters(full_size: SOLOv2) -> None:
    head = full_size.ins_head
    category = parameter_count(head.cate_tower) + parameter_count(head.cate_pred)
    kernel = parameter_count(head.kernel_tower) + parameter_count(head.kernel_pred)
    assert (category, kernel) == (8_630_352, 9_450_752)
    assert parameter_count(head) == 18_081_104
    assert parameter_count(full_size.mask_head) == 1_659_392
    assert parameter_count(full_size.fpn) == 3_344_384


def test_shapes_of_a_teacher_at_640_pixels(full_size: SOLOv2) -> None:
    outputs = full_size(torch.empty(2, 3, 640, 640, device="meta"))
    grids = (80, 64, 32, 24, 12)
    assert [level.category.shape for level in outputs.levels] == [(2, 80, S, S) for S in grids]
    assert [level.kernels.shape for level in outputs.levels] == [(2, 256, S, S) for S in grids]
    assert outputs.mask_features.shape == (2, 256, 160, 160)


def test_grids_are_square_whatever_the_image(full_size: SOLOv2) -> None:
    outputs = full_size(torch.empty(1, 3, 96, 224, device="meta"))
    assert outputs.levels[0].category.shape == (1, 80, 80, 80)
    assert outputs.mask_features.shape == (1, 256, 24, 56)


def test_cells_of_teacher_and_student() -> None:
    teacher, student = (segmenter_config("solov2-r101", 80, role) for role in ("teacher", "student"))
    assert sum(S * S for S in teacher.grids) == 12_240
    assert sum(S * S for S in student.grids) == 3_872


def test_a_teachers_ranges_are_disjoint_and_a_students_overlap() -> None:
    for name in ("solov2-r50", "solov2-light-r50"):
        teacher, student = (segmenter_config(name, 2, role).levels for role in ("teacher", "student"))
        assert all(a.high == b.low for a, b in itertools.pairwise(teacher))
        assert all(a.high > b.low for a, b in itertools.pairwise(student))


def test_coordinates_come_last_x_first_and_reach_both_ends() -> None:
    seen = with_coordinates(torch.zeros(2, 5, 3, 4))
    assert seen.shape == (2, 7, 3, 4)
    torch.testing.assert_close(seen[1, 5, 2], torch.tensor([-1, -1 / 3, 1 / 3, 1]))
    torch.testing.assert_close(seen[1, 6, :, 0], torch.tensor([-1.0, 0, 1]))


def test_the_first_of_five_levels_is_p2_at_half_its_size_and_the_last_a_subsample_of_p5() -> None:
    p2, p3, p4, p5 = (torch.randn(1, 2, side, side) for side in (32, 16, 8, 4))
    first, second, third, fourth, fifth = five_levels((p2, p3, p4, p5))
    torch.testing.assert_close(first, F.avg_pool2d(p2, 2))
    assert all(torch.equal(a, b) for a, b in ((second, p3), (third, p4), (fourth, p5)))
    assert fifth.shape == p5.shape
    torch.testing.assert_close(fifth[..., 0, 0], p5[..., 0, 0])  # corners of a bilinear image are its source's
    torch.testing.assert_close(fifth[..., 3, 3], p5[..., 2, 2])


def test_the_kernel_branch_sees_where_it_is_and_the_category_branch_does_not(micro: SegmenterConfig) -> None:
    head = SOLOv2(replace(micro, init_std=0.2)).ins_head.requires_grad_(False)
    flat = torch.ones(1, micro.fpn_width, 16, 16)
    level = head((flat, flat, flat))[0]
    inner = slice(3, -3)  # the padding of convolutions tells of the rim
    category, kernels = (each[..., inner, inner].flatten(2).std(2) for each in (level.category, level.kernels))
    assert float(category.max()) < 1e-5
    assert float(kernels.min()) > 1e-3


def test_every_class_starts_at_one_percent(micro: SegmenterConfig) -> None:
    network = SOLOv2(replace(micro, init_std=1e-6)).eval().requires_grad_(False)
    assert float(network.ins_head.cate_pred.bias[0]) == pytest.approx(-math.log(99))
    chances = network(torch.randn(1, 3, 64, 64)).levels[0].category.sigmoid()
    torch.testing.assert_close(chances, torch.full_like(chances, 0.01), atol=1e-5, rtol=0)


def test_heads_are_drawn_from_a_narrow_normal_distribution() -> None:
    head = SOLOv2(segmenter_config("solov2-light-r18", 4)).ins_head.requires_grad_(False)
    weights = torch.cat([each.weight.flatten() for each in head.modules() if isinstance(each, nn.Conv2d)])
    assert float(weights.std()) == pytest.approx(0.01, rel=0.01)
    assert float(weights.mean()) == pytest.approx(0, abs=1e-4)


def test_the_pyramid_starts_kaiming_uniform_with_a_1() -> None:
    """Of fan-in n the weights are uniform in +-sqrt(3 / n)."""
    fpn = SOLOv2(segmenter_config("solov2-light-r18", 4)).fpn.requires_grad_(False)
    for module in fpn.modules():
        if isinstance(module, nn.Conv2d):
            bound = math.sqrt(3 / module.weight[0].numel())
            assert float(module.weight.abs().max()) == pytest.approx(bound, rel=1e-3)
            assert float(module.weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
            assert module.bias is not None
            assert not module.bias.any()


def test_mask_features_are_never_negative_and_of_the_stride_of_the_masks(micro_network: SOLOv2) -> None:
    features = micro_network(torch.randn(2, 3, 96, 128)).mask_features
    assert features.shape == (2, 24, 48, 64)
    assert bool((features >= 0).all())
    assert bool((features > 0).any())


def test_an_image_is_seen_alike_alone_and_in_a_batch(micro_network: SOLOv2) -> None:
    images = torch.randn(3, 3, 64, 96)
    together = micro_network(images)
    for index in range(3):
        alone, part = micro_network(images[index : index + 1]), together.of_image(index)
        torch.testing.assert_close(part.mask_features, alone.mask_features)
        for a, b in zip(part.levels, alone.levels, strict=True):
            torch.testing.assert_close(a.category, b.category)
            torch.testing.assert_close(a.kernels, b.kernels)


def test_every_parameter_of_the_micro_network_learns(micro_network: SOLOv2) -> None:
    outputs = micro_network.train()(torch.randn(2, 3, 64, 64))
    parts = [outputs.mask_features, *(each for level in outputs.levels for each in (level.category, level.kernels))]
    torch.stack([part.square().sum() for part in parts]).sum().backward()
    still = [name for name, each in micro_network.named_parameters() if each.grad is None or not each.grad.any()]
    assert still == []


def test_of_a_frozen_resnet_stem_and_first_stage_do_not_learn_and_no_norm_does(full_size: SOLOv2) -> None:
    learning = {name for name, each in full_size.backbone.named_parameters() if each.requires_grad}
    assert {name.split(".")[1] for name in learning} == {"layer2", "layer3", "layer4"}
    assert not [name for name in learning if ".bn" in name or "downsample.1" in name]
    assert not [each for each in full_size.backbone.modules() if isinstance(each, nn.BatchNorm2d)]


def test_frozen_norms_are_the_same_in_training() -> None:
    backbone = SOLOv2(segmenter_config("solov2-light-r18", 2)).backbone
    images = torch.randn(2, 3, 64, 64)
    before = [each.clone() for each in backbone.eval()(images)]
    for a, b in zip(before, backbone.train()(images), strict=True):
        assert torch.equal(a, b)


def test_a_resnet_that_is_not_frozen_learns_everywhere() -> None:
    with torch.device("meta"):
        backbone = SOLOv2(segmenter_config("solov2-light-r18", 2, frozen=False)).backbone
    assert all(each.requires_grad for each in backbone.parameters())
    assert any(isinstance(each, nn.BatchNorm2d) for each in backbone.modules())


def test_the_first_resnets_have_their_stride_in_the_first_convolution() -> None:
    with torch.device("meta"):
        ours, first = (
            SOLOv2(segmenter_config("solov2-r50", 2, stride_in_1x1=early)).backbone.body for early in (False, True)
        )
    for stage in ("layer2", "layer3", "layer4"):
        strides = [
            [block.get_submodule(name).stride for name in ("conv1", "conv2")]
            for block in (ours.get_submodule(f"{stage}.0"), first.get_submodule(f"{stage}.0"))
        ]
        assert strides == [[(1, 1), (2, 2)], [(2, 2), (1, 1)]]


def test_a_swin_transformer_carries_the_heads() -> None:
    network = SOLOv2(segmenter_config("solov2-swin-t", 3, tower_width=32, mask_width=32)).eval()
    with torch.no_grad():
        outputs = network(torch.randn(1, 3, 64, 96))
    assert outputs.mask_features.shape == (1, 256, 16, 24)
    assert all(each.requires_grad for each in network.backbone.parameters())
    assert sum(isinstance(each, nn.LayerNorm) for each in network.backbone.norms) == 4


def test_a_transformer_without_a_pyramid_is_refused() -> None:
    with pytest.raises(UserError, match="no feature maps of strides 4, 8, 16 and 32"):
        SOLOv2(segmenter_config("solov2-r50", 3, backbone="vit_tiny_patch16_224"))


def test_an_unknown_size_gets_the_nearest_names() -> None:
    with pytest.raises(UserError, match="did you mean solov2-r50"):
        segmenter_config("solo-r50", 3)
