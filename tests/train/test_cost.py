from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vtk_cli.console import Console
from vtk_cli.train.classifier import Classifier
from vtk_cli.train.cost import StepCost, measured_macs, step_cost
from vtk_cli.train.sub import choose_sub

CPU = torch.device("cpu")


def classifier(name: str, size: int, ratio: float = 0.5, **arguments: Any) -> Classifier:
    with torch.device("meta" if size >= 160 else "cpu"):
        network = timm.create_model(name, **arguments)
    return Classifier(network, sub=choose_sub(network, "mask", "auto", ratio, size, console=Console()), image_size=size)


def vit_macs(
    *,
    depth: int,
    dim: int,
    patches: int,
    patch_size: int,
    classes: int,
    kept: int | None = None,
    prefix: int = 1,
    mlp_ratio: float = 4.0,
    channels: int = 3,
) -> float:
    """Multiply-accumulates of a plain vision transformer's forward, in closed form (arXiv 2306.11339).

    `depth ((4 + 2 mlp_ratio) N D^2 + 2 N^2 D) + patches channels patch_size^2 D + classes D` with N = prefix + kept.
    All patches are embedded in it, as published implementations do.
    """
    tokens = prefix + (patches if kept is None else kept)
    blocks = depth * ((4 + 2 * mlp_ratio) * tokens * dim**2 + 2 * tokens**2 * dim)
    return blocks + patches * channels * patch_size**2 * dim + classes * dim


@pytest.mark.parametrize(
    ("shape", "kept", "full", "sub"),
    [
        ((12, 384, 196, 16), 98, 4.60, 2.25),
        ((12, 768, 196, 16), 98, 17.56, 8.71),
        ((12, 768, 144, 16), 72, 12.79, 6.38),
        ((24, 1024, 196, 16), 98, 61.55, 30.53),
        ((32, 1280, 256, 14), 128, 167.3, 82.7),
    ],
    ids=["S", "B", "B at 192", "L", "H"],
)
def test_the_closed_form_gives_the_published_costs(
    shape: tuple[int, int, int, int], kept: int, full: float, sub: float
) -> None:
    depth, dim, patches, patch_size = shape
    size = {"depth": depth, "dim": dim, "patches": patches, "patch_size": patch_size, "classes": 1000}
    digits = 1 if full > 100 else 2
    assert round(vit_macs(**size) / 1e9, digits) == full
    assert round(vit_macs(**size, kept=kept) / 1e9, digits) == sub


def test_the_cost_that_is_measured_of_a_vit_is_that_of_the_closed_form() -> None:
    model = classifier("vit_base_patch16_224", 224)
    size = {"depth": 12, "dim": 768, "patch_size": 16, "classes": 1000}
    cost = step_cost(model, 224)
    assert cost is not None
    assert cost.main == vit_macs(**size, patches=196)
    # Patches that are not kept are not embedded either.
    assert cost.sub == vit_macs(**size, patches=196, kept=98) - 98 * 768 * 768
    assert cost.factor == pytest.approx(1.49, abs=0.005)
    assert "never kept together" in cost.memory


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_encoder_really_sees_the_kept_tokens_alone(ratio: float) -> None:
    model = classifier("vit_tiny_patch16_224", 64, ratio, img_size=64, depth=3, num_classes=5)
    counter = FlopCounterMode(display=False)
    samples = 2
    draw = model.sub.draw(samples, 0, 0, CPU)
    with counter, sdpa_kernel(SDPBackend.MATH):
        model.train()(torch.randn(samples, 3, 64, 64), draw)
    kept = draw.kept.shape[1]
    assert kept == round(16 * (1 - ratio))
    macs = vit_macs(depth=3, dim=192, patches=kept, patch_size=16, classes=5)
    assert counter.get_total_flops() == 2 * samples * macs


def test_masking_that_takes_nothing_out_costs_a_whole_forward() -> None:
    cost = step_cost(classifier("resnet10t", 64), 64)
    assert cost is not None
    assert cost.factor == 2
    plain = step_cost(Classifier(timm.create_model("resnet10t"), image_size=64), 64)
    assert plain is not None
    assert (plain.factor, plain.sub, plain.main) == (1, None, cost.main)


def test_a_fused_step_keeps_both_graphs() -> None:
    assert (
        StepCost(100, 50, fused=True).memory == "activations of both forwards are kept: 1.50x those of plain training"
    )
    assert "main forward" in StepCost(100, 50).memory
    assert "peak in the forward of the network" in StepCost(100, None).memory


def test_a_compiled_classifier_is_measured_without_being_compiled() -> None:
    model, counter = classifier("resnet10t", 64), CompileCounter()
    expected = measured_macs(model, 64)
    model.compile(backend=counter)
    assert measured_macs(model, 64) == expected
    assert counter.frame_count == 0


def test_measuring_moves_and_changes_nothing() -> None:
    model = classifier("vit_tiny_patch16_224", 64, img_size=64, depth=1, drop_path_rate=0.5, proj_drop_rate=0.5).eval()
    state = torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert step_cost(model, 64) is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert tensor.device == CPU
        assert torch.equal(tensor, before[name])


def test_a_network_that_looks_at_values_is_not_measured() -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, pixels: Tensor) -> Tensor:
            return pixels.mean((2, 3)) * (2.0 if float(pixels.sum()) > 0 else 1.0) * self.scale

    model = Classifier(Looking(), image_size=8)
    with pytest.raises(RuntimeError):
        measured_macs(model, 8)
    assert step_cost(model, 8) is None
