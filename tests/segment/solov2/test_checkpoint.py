from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vtk_cli.data.points import Classes
from vtk_cli.errors import UserError
from vtk_cli.segment.solov2.backbone import TimmBackbone, load_backbone
from vtk_cli.segment.solov2.checkpoint import coco_classes, read_segmenter, save_segmenter, start_from
from vtk_cli.segment.solov2.configurations import (
    SEGMENTERS,
    SegmenterConfig,
    config_from_json,
    config_to_json,
    segmenter_config,
)
from vtk_cli.segment.solov2.network import SOLOv2

CLASSES = Classes(("cat", "dog", "newt"), (3, 5, 9))


@pytest.fixture
def file(tmp_path: Path, micro: SegmenterConfig, micro_network: SOLOv2) -> Path:
    path = tmp_path / "model.safetensors"
    save_segmenter(path, micro_network.state_dict(), micro, CLASSES, {"short": "128"})
    return path


def test_a_saved_network_says_what_it_is_and_sees_the_same(file: Path, micro_network: SOLOv2) -> None:
    saved = read_segmenter(file)
    assert (saved.config, saved.classes) == (micro_network.config, CLASSES)
    assert saved.metadata["short"] == "128"
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(saved.build()(images).mask_features, micro_network(images).mask_features)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_every_configuration_survives_json(name: str) -> None:
    for role in ("teacher", "student"):
        config = segmenter_config(name, 7, role, sigma=0.5)  # type: ignore[arg-type]
        assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


@pytest.mark.parametrize(
    "change", [{"classes": "3"}, {"pyramid": "six"}, {"frozen": 1}, {"levels": 3}, {"tower": 4}, {"classes": True}]
)
def test_a_configuration_of_other_types_is_refused(change: dict[str, object], micro: SegmenterConfig) -> None:
    with pytest.raises(ValueError, match="no configuration of a segmenter"):
        config_from_json({**config_to_json(micro), **change})


def test_a_file_whose_classes_do_not_fit_is_refused(tmp_path: Path, micro_network: SOLOv2) -> None:
    path = tmp_path / "model.safetensors"
    save_segmenter(path, micro_network.state_dict(), micro_network.config, Classes(("cat",), (1,)))
    with pytest.raises(UserError, match="1 class names and 1 category ids for 3 classes"):
        read_segmenter(path)


def test_a_network_goes_on_from_saved_weights_on_other_grids(file: Path, micro: SegmenterConfig) -> None:
    levels = tuple(replace(level, grid=level.grid + 2) for level in micro.levels)
    network = SOLOv2(replace(micro, levels=levels))
    saved = read_segmenter(file)
    start_from(network, CLASSES, saved, reset_head=False)
    assert all(torch.equal(tensor, saved.state[name]) for name, tensor in network.state_dict().items())


def test_other_classes_need_a_new_head(file: Path, micro: SegmenterConfig) -> None:
    network, other = SOLOv2(replace(micro, classes=2)), Classes(("cat", "emu"), (1, 2))
    saved = read_segmenter(file)
    with pytest.raises(UserError, match=r"knows other classes \(3: cat, dog, newt\) than the data \(2: cat, emu\)"):
        start_from(network, other, saved, reset_head=False)
    head = network.ins_head.cate_pred.weight.clone()
    start_from(network, other, saved, reset_head=True)
    assert torch.equal(network.ins_head.cate_pred.weight, head)
    assert torch.equal(network.ins_head.kernel_pred.weight, saved.state["ins_head.kernel_pred.weight"])


def test_weights_of_another_size_are_refused(file: Path, micro: SegmenterConfig) -> None:
    with pytest.raises(UserError, match="the weights do not fit SOLOv2"):
        start_from(SOLOv2(replace(micro, tower_width=32)), CLASSES, read_segmenter(file), reset_head=False)


def test_coco_has_80_classes_and_11_free_ids() -> None:
    classes = coco_classes()
    assert len(classes.names) == len(set(classes.names)) == 80
    assert classes.names[-1] == "toothbrush"
    assert sorted(set(range(91)) - set(classes.ids)) == [0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_imagenet_weights_go_into_the_backbone(name: str, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    classifier = timm.create_model(name, num_classes=5).eval()
    with torch.no_grad():
        for buffer in classifier.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    save_file(classifier.state_dict(), tmp_path / "weights.safetensors")
    backbone = TimmBackbone(name, frozen=True, stride_in_1x1=False).eval()
    load_backbone(backbone, name, tmp_path / "weights.safetensors")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        _, maps = classifier.forward_intermediates(images)
        for found, expected in zip(backbone(images), maps[-4:], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_swin_is_filled_by_the_names_of_its_stages(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    name = "swin_tiny_patch4_window7_224"
    classifier = timm.create_model(name, num_classes=5)
    save_file(classifier.state_dict(), tmp_path / "weights.safetensors")
    backbone = TimmBackbone(name, frozen=True, stride_in_1x1=False)
    load_backbone(backbone, name, tmp_path / "weights.safetensors")
    expected, found = classifier.state_dict(), backbone.body.state_dict()
    assert torch.equal(found["patch_embed.proj.weight"], expected["patch_embed.proj.weight"])
    for stage in range(4):
        end = "blocks.1.mlp.fc1.weight"
        assert torch.equal(found[f"layers_{stage}.{end}"], expected[f"layers.{stage}.{end}"])


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "weights.safetensors")
    backbone = TimmBackbone("convnext_atto", frozen=True, stride_in_1x1=False)
    with pytest.raises(UserError, match="are no weights of convnext_atto"):
        load_backbone(backbone, "convnext_atto", tmp_path / "weights.safetensors")
