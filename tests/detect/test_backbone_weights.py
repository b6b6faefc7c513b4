from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from vtk_cli.detect.backbone import RamSwin
from vtk_cli.detect.backbone_weights import backbone_file, is_new, load_backbone, swin_state
from vtk_cli.detect.configurations import BACKBONES, TIMM_BACKBONES, BackboneConfig
from vtk_cli.errors import UserError
from vtk_cli.models.weights import NoWeights

SMALL = BackboneConfig("swin", 12, (1, 2, 1, 2), (1, 2, 2, 4), window=7)


def ours(config: BackboneConfig = SMALL) -> RamSwin:
    return RamSwin(config, queries=5, dim=16, cross_stages=(3,), merge_last=True)


def theirs() -> dict[str, Tensor]:
    torch.manual_seed(1)
    network = SwinTransformer(embed_dim=12, depths=(1, 2, 1, 2), num_heads=(1, 2, 2, 4), num_classes=5)
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def in_the_authors_form(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Merging at the end of the stage before, `head.weight`, and tables of indices and masks."""
    named = {}
    for name, tensor in state.items():
        parts = name.replace("head.fc.", "head.").split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        named[".".join(parts)] = tensor
    named["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    named["layers.1.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
    return named


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_timms_swin_fits_the_backbone_that_starts_from_it(size: str) -> None:
    config = BACKBONES[size]
    with torch.device("meta"):
        network = timm.create_model(TIMM_BACKBONES[config.name].split(".")[0])
        backbone = RamSwin(config, queries=100, dim=256, cross_stages=(3,), merge_last=True)
    state, own = swin_state(network.state_dict()), backbone.state_dict()
    old = {name: tensor.shape for name, tensor in own.items() if not is_new(name, 4)}
    assert {name: tensor.shape for name, tensor in state.items()} == old


def test_files_of_timm_and_of_the_authors_give_the_same_backbone(tmp_path: Path) -> None:
    state = theirs()
    save_file(state, tmp_path / "timm.safetensors")
    torch.save({"model": in_the_authors_form(state)}, tmp_path / "swin_nano_patch4_window7_224.pth")
    loaded = []
    for name in ("timm.safetensors", "swin_nano_patch4_window7_224.pth"):
        backbone = ours()
        before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
        new = load_backbone(backbone, tmp_path / name)
        after = backbone.state_dict()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        assert not changed & set(new)
        assert "layers.3.downsample.reduction.weight" in new
        loaded.append({name: tensor for name, tensor in after.items() if name not in new})
    assert loaded[0].keys() == loaded[1].keys()
    assert all(torch.equal(loaded[0][name], loaded[1][name]) for name in loaded[0])
    merging = state["layers.2.downsample.reduction.weight"]
    assert torch.equal(loaded[0]["layers.1.downsample.reduction.weight"], merging)


def test_another_networks_weights_are_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    wider = BackboneConfig("swin", 24, (1, 2, 1, 2), (1, 2, 2, 4), window=7)
    save_file(theirs(), tmp_path / "timm.safetensors")
    backbone = ours(wider)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(UserError, match=r"of another shape.*patch_embed.*windows as wide"):
        load_backbone(backbone, tmp_path / "timm.safetensors")
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())


def test_a_detectors_file_is_no_backbone(tmp_path: Path) -> None:
    save_file({"backbone.det_token": torch.zeros(1, 5, 12)}, tmp_path / "vidt.safetensors")
    with pytest.raises(UserError, match="missing"):
        load_backbone(ours(), tmp_path / "vidt.safetensors")


def test_timm_has_no_nano(tmp_path: Path) -> None:
    with pytest.raises(NoWeights, match="swin_nano"):
        backbone_file(BACKBONES["nano"], offline=True)
