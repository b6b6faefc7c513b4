"""Checkpoints in the layouts of PySlowFast and TIME, written here from their published names and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.networks.building import create_backbone
from vtk_cli.video_pretrain.networks.foreign_checkpoints import load_foreign, read_foreign

C, GRID, TIMES, MLP = 64, 14, 8, 96


def linear(name: str, out: int, inside: int, *, bias: bool = True) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.randn(out, inside)} | ({f"{name}.bias": torch.randn(out)} if bias else {})


def norm(name: str, width: int = C) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.rand(width), f"{name}.bias": torch.randn(width)}


def batch_norm(name: str, width: int) -> dict[str, Tensor]:
    state = norm(name, width) | {f"{name}.running_mean": torch.randn(width), f"{name}.running_var": torch.rand(width)}
    return state | {f"{name}.num_batches_tracked": torch.tensor(7)}


def vit(prefix: str = "") -> dict[str, Tensor]:
    state = {
        "cls_token": torch.randn(1, 1, C),
        "pos_embed": torch.randn(1, GRID**2 + 1, C),
        "patch_embed.proj.weight": torch.randn(C, 3, 16, 16),
        "patch_embed.proj.bias": torch.randn(C),
    }
    for block in ("blocks.0", "blocks.1"):
        state |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
        state |= linear(f"{block}.attn.qkv", 3 * C, C) | linear(f"{block}.attn.proj", C, C)
        state |= linear(f"{block}.mlp.fc1", MLP, C) | linear(f"{block}.mlp.fc2", C, MLP)
    state |= norm("norm")
    return {prefix + name: tensor for name, tensor in state.items()}


def time_heads() -> dict[str, Tensor]:
    state = linear("temp_head", TIMES, C) | linear("flow_head", 9, C) | norm("mlp_norm")
    for name in ("mlp_q", "mlp_k", "mlp_v", "mlp_proj"):
        state |= linear(name, C, C)
    return state


def timesformer() -> dict[str, Tensor]:
    state = vit() | {"time_embed": torch.randn(1, TIMES, C)} | linear("head", 174, C) | time_heads()
    for block in ("blocks.0", "blocks.1"):
        state |= norm(f"{block}.temporal_norm1") | linear(f"{block}.temporal_fc", C, C)
        state |= linear(f"{block}.temporal_attn.qkv", 3 * C, C) | linear(f"{block}.temporal_attn.proj", C, C)
    return state


def motionformer() -> dict[str, Tensor]:
    state = vit() | {"temp_embed": torch.randn(1, TIMES, C)} | linear("head", 174, C) | linear("pre_logits.fc", C, C)
    for block in ("blocks.0", "blocks.1"):
        state |= linear(f"{block}.attn.proj_q", C, C) | linear(f"{block}.attn.proj_kv", 2 * C, C)
    return state | time_heads()


def xvit() -> dict[str, Tensor]:
    state = vit("base_model.") | {"base_model.temp_embed": torch.randn(1, TIMES, 1, C)} | time_heads()
    state |= {"consensus.cls_token": torch.randn(1, 1, C)} | linear("consensus.head", 174, C)
    block = "consensus.temporal_encoder.0"
    state |= norm(f"{block}.norm1") | norm(f"{block}.norm2") | linear(f"{block}.attn.qkv", 3 * C, C, bias=False)
    state |= linear(f"{block}.attn.proj", C, C)
    state |= linear(f"{block}.mlp.fc1", MLP, C) | linear(f"{block}.mlp.fc2", C, MLP)
    return state | norm("consensus.mlp_head.0") | linear("consensus.mlp_head.1", C, C)


def slow_r50() -> dict[str, Tensor]:
    """Table 1 of arXiv 1812.03982 by PySlowFast's names."""
    state = {"s1.pathway0_stem.conv.weight": torch.randn(64, 3, 1, 7, 7)} | batch_norm("s1.pathway0_stem.bn", 64)
    inside = 64
    for stage, (blocks, temporal) in enumerate(((3, 1), (4, 1), (6, 3), (3, 3))):
        width = 64 * 2**stage
        for index in range(blocks):
            at = f"s{stage + 2}.pathway0_res{index}"
            if not index:
                state[f"{at}.branch1.weight"] = torch.randn(4 * width, inside, 1, 1, 1)
                state |= batch_norm(f"{at}.branch1_bn", 4 * width)
            state[f"{at}.branch2.a.weight"] = torch.randn(width, inside, temporal, 1, 1)
            state[f"{at}.branch2.b.weight"] = torch.randn(width, width, 1, 3, 3)
            state[f"{at}.branch2.c.weight"] = torch.randn(4 * width, width, 1, 1, 1)
            for name, out in (("a", width), ("b", width), ("c", 4 * width)):
                state |= batch_norm(f"{at}.branch2.{name}_bn", out)
            inside = 4 * width
    return state


def save(folder: Path, state: dict[str, Tensor], **more: Any) -> Path:
    path = folder / "checkpoint.pyth"
    torch.save({"epoch": 3, "model_state": state, "optimizer_state": {"state": {}}, "cfg": "TRAIN:"} | more, path)
    return path


@pytest.mark.parametrize("make", [timesformer, motionformer, xvit])
def test_a_checkpoint_of_time_fits_with_no_key_missing_or_left_over(make, tmp_path):
    state = make()
    weights = read_foreign(save(tmp_path, state))
    assert (weights.network, weights.frames, weights.side) == (make.__name__, TIMES, 224)
    assert weights.model_args == {"width": C, "depth": 2, "heads": 1, "patch": 16, "mlp": MLP}
    assert weights.class_head["weight"].shape == (174, C)
    assert set(weights.heads) == set(time_heads())
    network = create_backbone(weights.network, frames=TIMES, side=224, **weights.model_args)
    assert load_foreign(network, weights, "here") == ""
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    used = set(network.state_dict()) | set(weights.heads)
    assert {name for name in state if name not in used} == {
        ("consensus.head." if make is xvit else "head.") + part for part in ("weight", "bias")
    }


@pytest.mark.parametrize("make", [timesformer, motionformer, xvit])
def test_positions_are_resized_to_other_clips_and_that_is_said(make, tmp_path):
    weights = read_foreign(save(tmp_path, make()))
    network = create_backbone(weights.network, frames=4, side=32, **weights.model_args)
    note = load_foreign(network, weights, "here")
    assert "positions of 196 patches resized to 4" in note
    assert "positions of 8 frames resized to 4" in note
    times = next(tensor for name, tensor in network.state_dict().items() if name.endswith(("time_embed", "temp_embed")))
    stored = next(tensor for name, tensor in weights.state.items() if name.endswith(("time_embed", "temp_embed")))
    assert torch.equal(times, stored[:, ::2])


def test_a_classified_slow_network_fits_with_no_key_missing_or_left_over(tmp_path):
    state = slow_r50()
    weights = read_foreign(save(tmp_path, state | linear("head.projection", 400, 2048)))
    assert (weights.network, weights.heads, weights.left_out) == ("slow_r50", {}, ())
    assert weights.class_head["weight"].shape == (400, 2048)
    network = create_backbone("slow_r50", frames=8, side=32)
    assert load_foreign(network, weights, "here") == ""
    assert set(network.state_dict()) == set(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_a_contrastive_slow_network_leaves_its_queue_and_momentum_network_out(tmp_path):
    state = slow_r50()
    full = {f"backbone.{name}": tensor for name, tensor in state.items()}
    full |= {f"backbone_hist.{name}": tensor + 1 for name, tensor in state.items()}
    for network in ("backbone", "backbone_hist"):
        full |= linear(f"{network}.head.projection.projection", 128, 2048)
    names = ("queue_x", "ptr", "iter", "knn_mem.memory")
    extra = {name: torch.ones(2) for name in names}
    weights = read_foreign(save(tmp_path, full | extra))
    assert weights.class_head == {}
    assert set(weights.heads) == {f"head.projection.projection.{part}" for part in ("weight", "bias")}
    assert set(extra) <= set(weights.left_out)
    assert set(weights.state) == set(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in weights.state.items())


def test_changed_networks_are_refused_with_what_differs(tmp_path):
    state = timesformer()
    del state["blocks.1.temporal_fc.weight"]
    with pytest.raises(UserError, match=r"1 missing \(blocks\.1\.temporal_fc\.weight"):
        read_foreign(save(tmp_path, state))
    with pytest.raises(UserError, match=r"1 unexpected \(s2\.extra\.weight"):
        read_foreign(save(tmp_path, slow_r50() | {"s2.extra.weight": torch.ones(1)}))
    with pytest.raises(UserError, match="no checkpoint of a video network"):
        read_foreign(save(tmp_path, linear("layer", 2, 2)))
    with pytest.raises(UserError, match="two pathways"):
        read_foreign(save(tmp_path, slow_r50() | {"s2.pathway1_res0.branch2.a.weight": torch.ones(1)}))
    with pytest.raises(UserError, match="fit no timesformer"):
        read_foreign(save(tmp_path, {name: one for name, one in timesformer().items() if name != "cls_token"}))


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_code_in_a_checkpoint_is_named_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="holds code"):
        read_foreign(save(tmp_path, timesformer(), cfg=Code()))
    assert not Path("ran").exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    weights = read_foreign(save(tmp_path, timesformer()))
    other = create_backbone("motionformer", frames=8, side=224, **weights.model_args)
    for network in (create_backbone("c3d_tiny", frames=8, side=24), other):
        with pytest.raises(UserError, match="holds a timesformer"):
            load_foreign(network, weights, "here")
