"""ViDT's neck and decoder on any network with feature maps: `vtk detect train --backbone`."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from tests.detect.coloured_shapes import one_line
from vtk_cli.console import Console
from vtk_cli.data.detection import open_detection
from vtk_cli.detect.checkpoint import read_detector
from vtk_cli.detect.configurations import (
    Classes,
    DetectorConfig,
    FeatureBackboneConfig,
    config_from_json,
    config_to_json,
    detector_config,
)
from vtk_cli.detect.distillation import check_teacher
from vtk_cli.detect.feature_backbone import FeatureBackbone
from vtk_cli.detect.network import FoldedDetector, ViDT, build_detector
from vtk_cli.detect.objective import Objective
from vtk_cli.detect.official_keys import to_official
from vtk_cli.detect.optimisation import CosineRate, build_optimizer, parameter_groups
from vtk_cli.detect.options import TrainOptions
from vtk_cli.detect.recipes import RECIPES
from vtk_cli.detect.starting import Start, starting_detector
from vtk_cli.errors import UserError
from vtk_cli.models.feature_maps import feature_network
from vtk_cli.models.zoo import PixelConfig, network_metadata

IMAGENET = FeatureBackboneConfig("test_resnet", "{}", IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
HALVES = replace(IMAGENET, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.5))
FAST = ("--size", "64", "--batch-size", "4", "--seed", "3", "--warmup-steps", "1", "--workers", "0")


def config(name: str = "vidt-micro", backbone: FeatureBackboneConfig = IMAGENET, **changes: Any) -> DetectorConfig:
    return replace(detector_config(name, 3, queries=7, **changes), backbone=backbone, cross_stages=())


def network(name: str = "vidt-micro", backbone: FeatureBackboneConfig = IMAGENET, **changes: Any) -> ViDT:
    torch.manual_seed(0)
    made = build_detector(config(name, backbone, **changes))
    assert isinstance(made, ViDT)
    return made


def noise(*size: int) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


def nowhere(images: Tensor) -> Tensor:
    return torch.zeros(images.shape[0], *images.shape[2:], dtype=torch.bool)


# the network


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet", "test_mambaout"])
def test_the_maps_are_the_networks_and_one_of_stride_64_for_images_of_any_size(name: str) -> None:
    torch.manual_seed(0)
    backbone = FeatureBackbone(replace(IMAGENET, name=name), queries=5, dim=12).eval()
    images = noise(72, 100)
    maps = backbone(images, nowhere(images)).maps
    assert [tuple(each.shape[2:]) for each in maps] == [(9, 13), (5, 7), (3, 4), (2, 2)]
    assert tuple(each.shape[1] for each in maps) == backbone.map_widths
    for one, other in zip(maps[:3], backbone.network.feature_maps(images), strict=True):
        assert torch.equal(one, other)  # made for ImageNet's mean and deviation: nothing is changed


def test_pixels_are_normalised_as_the_network_was_trained_and_padding_stays_0(padded: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    backbone = FeatureBackbone(HALVES, queries=5, dim=12).eval()
    batch = padded((64, 64), (40, 32), extent=(64, 96))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    own_mean, own_std = (torch.tensor(v).view(3, 1, 1) for v in (HALVES.mean, HALVES.std))
    pixels = batch.images * std + mean
    own = ((pixels - own_mean) / own_std).masked_fill(batch.mask[:, None], 0)
    found = backbone(batch.images, batch.mask).maps
    for one, other in zip(found[:3], backbone.network.feature_maps(own), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_det_tokens_are_constants_that_pass_the_network_by(padded: Callable[..., Any]) -> None:
    model = network().eval()
    batch = padded((64, 64), (64, 64))
    tokens = model.backbone(batch.images, batch.mask).tokens
    assert torch.equal(tokens, model.backbone.det_token)
    assert torch.equal(model.backbone.constant_tokens(), tokens)
    folded, whole = FoldedDetector(model)(batch).final, model(batch).final
    assert torch.equal(folded.boxes, whole.boxes)
    assert torch.equal(folded.logits, whole.logits)
    assert not torch.equal(whole.logits[0], whole.logits[1])  # they look at the image in the decoder


def test_the_decoder_sees_no_cell_of_the_padding_on_any_level(padded: Callable[..., Any]) -> None:
    """A cell is padding where the pixel at its corner is; nothing that is predicted depends on such a cell."""
    model = network().eval()
    batch = padded((64, 64), (33, 40), extent=(64, 96))
    seen = {}

    def look(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        arguments[2].cells.retain_grad()
        seen["memory"] = arguments[2]

    model.decoder[0].cross_attn.register_forward_pre_hook(look)
    final = model(batch, for_losses=False).final
    (final.boxes.square().sum() + final.logits.square().sum()).backward()
    memory = seen["memory"]
    assert memory.shapes == ((8, 12), (4, 6), (2, 3), (1, 2))
    padding = []
    for (rows, columns), stride in zip(memory.shapes, (8, 16, 32, 64), strict=True):
        step_y, step_x = 64 / rows, 96 / columns
        padding.append(
            torch.tensor(
                [
                    [
                        bool(batch.mask[image, int(y * step_y), int(x * step_x)])
                        for y in range(rows)
                        for x in range(columns)
                    ]
                    for image in range(2)
                ]
            )
        )
        assert stride == step_y or rows == 1
    wanted = torch.cat(padding, 1)
    assert torch.equal(memory.padding, wanted)
    assert memory.cells.grad[wanted].abs().max() == 0
    assert memory.cells.grad[~wanted].abs().max() > 0
    assert memory.valid_ratios[1, 0].tolist() == pytest.approx([5 / 12, 5 / 8])


@pytest.mark.parametrize("name", ["vidt-micro", "vidt-plus-micro"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_mambaout"])
def test_the_gradient_reaches_everything_that_learns(name: str, backbone: str, padded: Callable[..., Any]) -> None:
    model = network(name, replace(IMAGENET, name=backbone)).train()
    outputs = model(padded((64, 64), (48, 64)))
    parts = [part for level in outputs.levels for part in (level.logits, level.boxes, level.iou_logits)]
    parts += list(outputs.token_logits or ())
    torch.stack([part.square().sum() for part in parts if part is not None]).sum().backward()
    learning = {key: one for key, one in model.named_parameters() if one.requires_grad}
    assert [key for key, one in learning.items() if one.grad is None] == []
    for key in ("backbone.det_token", "backbone.det_pos_embed"):
        assert learning[key].grad is not None
        assert learning[key].grad.abs().max() > 0
    first = next(one for key, one in learning.items() if key.startswith("backbone.network.") and one.ndim == 4)
    assert first.grad is not None
    assert first.grad.abs().max() > 0


def test_activations_computed_again_change_nothing(padded: Callable[..., Any]) -> None:
    batch = padded((64, 64), (64, 64))
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = build_detector(config(dropout=0.0), recompute=recompute).train()
        model(batch).final.boxes.sum().backward()
        gradients.append([one.grad for one in model.backbone.network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


# batch norms and learning rates


def test_frozen_batch_norms_keep_everything_while_all_else_trains(padded: Callable[..., Any]) -> None:
    batch = padded((64, 64), (64, 64))
    for frozen in (True, False):
        backbone = network().backbone
        assert isinstance(backbone, FeatureBackbone)
        norms = [(key, one) for key, one in backbone.named_modules() if isinstance(one, nn.BatchNorm2d)]
        before = {key: {name: value.clone() for name, value in one.state_dict().items()} for key, one in norms}
        if frozen:
            assert backbone.freeze_norms() == len(norms) > 0
        backbone.eval().train()
        assert backbone.network.training
        optimizer = torch.optim.SGD([one for one in backbone.parameters() if one.requires_grad], 0.1)
        torch.stack([each.square().sum() for each in backbone(batch.images, batch.mask).maps]).sum().backward()
        optimizer.step()
        after = {key: one.state_dict() for key, one in norms}
        kept = {
            (key, name) for key in before for name in before[key] if torch.equal(before[key][name], after[key][name])
        }
        if frozen:
            assert kept == {(key, name) for key in before for name in before[key]}
        else:
            assert not {name for _, name in kept} & {"running_mean", "running_var", "num_batches_tracked"}
            assert (norms[0][0], "weight") not in kept


def test_frozen_batch_norms_make_an_image_independent_of_its_batch(padded: Callable[..., Any]) -> None:
    backbone = network().backbone
    assert isinstance(backbone, FeatureBackbone)
    backbone.train()
    two = padded((64, 64), (64, 64))

    def difference() -> float:
        both = backbone(two.images, two.mask).maps[0][:1]
        return float((both - backbone(two.images[:1], two.mask[:1]).maps[0]).detach().abs().max())

    assert difference() > 1e-2
    backbone.freeze_norms()
    assert difference() < 1e-4


def test_the_backbone_learns_at_its_share_of_the_rate_at_every_moment() -> None:
    model = network()
    slower = {f"backbone.network.{name}" for name, _ in model.backbone.network.named_parameters()}
    optimizer = build_optimizer(parameter_groups(model, 1e-4, "paper", slower=slower, share=0.1), 1e-3)
    names = {id(one): key for key, one in model.named_parameters()}
    found = {names[id(one)]: group for group in optimizer.param_groups for one in group["params"]}
    assert found.keys() == {key for key, one in model.named_parameters() if one.requires_grad}
    rate = CosineRate(optimizer, 1e-3, 1e-6, epochs=2, updates=10, warmup=3, on_updates=True)
    for update in (0, 1, 5, 9):
        rate.step_update(update)
        for key, group in found.items():
            assert group["lr"] == pytest.approx(rate.rate * (0.1 if key in slower else 1))
            spared = key in {"backbone.det_token", "backbone.det_pos_embed"} or (
                key.startswith("backbone.") and model.get_parameter(key).ndim < 2
            )
            assert group["weight_decay"] == (0 if spared else 1e-4)


# files


@pytest.mark.parametrize("damage", [{"mean": [1, 2, 3]}, {"model_args": {}}, {"kind": "other"}, {"depths": [1]}])
def test_a_configuration_survives_json_and_a_damaged_one_is_refused(damage: dict[str, Any]) -> None:
    values = json.loads(json.dumps(config_to_json(config())))
    assert config_from_json(values) == config()
    with pytest.raises(ValueError, match="no detector configuration"):
        config_from_json({**values, "backbone": {**values["backbone"], **damage}})


def test_a_file_may_not_name_a_function_as_its_backbone(trained_on: Path, tmp_path: Path) -> None:
    with safe_open(trained_on / "model.safetensors", "pt") as file:
        said = file.metadata()
    described = json.loads(said["detector"])
    described["backbone"]["name"] = "py:os:getcwd"
    path = tmp_path / "bad.safetensors"
    save_file(load_file(trained_on / "model.safetensors"), path, {**said, "detector": json.dumps(described)})
    with pytest.raises(UserError, match=r"bad\.safetensors: may not name the architecture 'py:os:getcwd' itself"):
        read_detector(path)


def test_the_published_form_has_no_place_for_it() -> None:
    with pytest.raises(UserError, match="the published form holds a Swin with DET tokens, and no test_resnet"):
        to_official(network().state_dict(), config())


def test_tokens_that_see_the_image_do_not_match_those_that_do_not() -> None:
    swin = detector_config("vidt-micro", 3, queries=7)
    check_teacher(config(), config(backbone=HALVES))
    for student, teacher in ((config(), swin), (swin, config())):
        with pytest.raises(UserError, match="a Swin's see the image, and those of other networks pass it by"):
            check_teacher(student, teacher)


def test_a_detector_without_a_neck_cannot_be_built_on_it() -> None:
    with pytest.raises(UserError, match="needs its DET tokens inside the backbone, and test_resnet has none"):
        build_detector(config("vidt-neck-free-micro"))


# what a training starts from


@pytest.fixture
def start(data: Path, place: Path) -> Callable[..., Start]:
    """The detector that a training with these options starts from."""

    def call(**options: Any) -> Start:
        dataset = open_detection(str(data), "train", skip_bad=False, console=Console(quiet=True))
        given = TrainOptions(**{**RECIPES["digits"], "data": str(data), "model": "vidt-micro", **options})
        classes = Classes(dataset.class_names, dataset.category_ids)
        return starting_detector(given, dataset, classes, Console(quiet=True))

    return call


def classifier() -> nn.Module:
    torch.manual_seed(1)
    made: nn.Module = timm.create_model("test_resnet", num_classes=4)
    return made


def test_weights_come_from_a_file_however_it_is_named(start: Callable[..., Start], tmp_path: Path) -> None:
    state, pixels = classifier().state_dict(), PixelConfig(32, HALVES.mean, HALVES.std)
    torch.save(state, tmp_path / "net.pt")
    save_file(state, tmp_path / "model.safetensors", network_metadata("test_resnet", pixels))
    wanted = feature_network(f"test_resnet={tmp_path / 'net.pt'}").module.state_dict()
    for options in (
        {"backbone": f"test_resnet={tmp_path / 'net.pt'}"},
        {"backbone": "test_resnet", "weights": str(tmp_path / "net.pt")},
        {"backbone": str(tmp_path / "model.safetensors")},
    ):
        made = start(**options)
        found = made.network.backbone.network.state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
        assert (made.backbone_lr, made.name) == (0.1, "vidt-micro-test_resnet")
        assert "file: " in made.source
        assert made.trained == {
            f"backbone.network.{key}" for key, _ in made.network.backbone.network.named_parameters()
        }
    assert made.network.config.backbone == replace(HALVES)  # the file's own mean and deviation


def test_batch_norms_are_frozen_with_trained_weights_alone_unless_told(
    start: Callable[..., Start], tmp_path: Path
) -> None:
    torch.save(classifier().state_dict(), tmp_path / "net.pt")
    file = f"test_resnet={tmp_path / 'net.pt'}"

    def frozen(**options: Any) -> bool:
        norms = [one for one in start(**options).network.train().modules() if isinstance(one, nn.BatchNorm2d)]
        assert len({one.training for one in norms}) == 1
        return not norms[0].training

    assert frozen(backbone=file)
    assert not frozen(backbone=file, freeze_bn="off")
    assert not frozen(backbone="test_resnet", weights="none")
    assert frozen(backbone="test_resnet", weights="none", freeze_bn="on")


def test_random_weights_learn_as_fast_as_all_else_and_the_drop_path_is_the_constructors(
    start: Callable[..., Start],
) -> None:
    made = start(backbone="test_convnext", weights="none", drop_path=0.3)
    assert (made.source, made.backbone_lr) == ("random weights", 1.0)
    rates = [one.drop_prob for one in made.network.modules() if type(one).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.3)
    assert json.loads(made.network.config.backbone.model_args) == {"drop_path_rate": 0.3}
    assert start(weights="none", backbone_lr=0.5).backbone_lr == 0.5  # of a Swin too, if asked for


# the commands


@pytest.fixture(scope="session")
def trained_on(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a ViDT+ with masks and token labels on a ResNet, long enough to learn something."""
    from vtk_cli.app import main

    folder = tmp_path_factory.mktemp("runs") / "resnet"
    model = ("--recipe", "digits", "--model", "vidt-plus-micro", "--backbone", "test_resnet", "--weights", "none")
    more = ("--masks", "on", "--epochs", "8", "--evaluate-epochs", "8", "-o", str(folder), "--quiet")
    before = os.environ.get("VTK_CACHE")
    os.environ["VTK_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    try:
        code = main(["detect", "train", str(data), *model, *FAST, *more])
    finally:
        os.environ.pop("VTK_CACHE") if before is None else os.environ.update(VTK_CACHE=before)
    assert code == 0
    return folder


def test_the_loss_of_a_training_falls(trained_on: Path) -> None:
    rows = [json.loads(line) for line in (trained_on / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [*range(1, 9)]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert {"ap", "mask_ap"} <= rows[-1].keys()


def test_what_was_trained_is_measured_and_predicts(
    trained_on: Path, data: Path, result: Callable[..., Any], place: Path
) -> None:
    summary = json.loads((trained_on / "summary.json").read_text())
    again = result("eval", trained_on, "--device", "cpu", "--workers", "0")
    assert again["boxes"] == summary["boxes"]
    assert again["masks"] == summary["masks"]
    result(
        "predict", data / "val2017", "--model", trained_on, "--device", "cpu", "--mask", "--conf", "0", "-o", "found"
    )
    assert len([*Path("found").glob("*.png"), *Path("found").glob("*.jpg")]) == 6
    saved = read_detector(trained_on / "model.safetensors")
    assert saved.config.backbone.name == "test_resnet"
    assert isinstance(saved.build().backbone, FeatureBackbone)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")), reason="no onnx"
)
def test_it_is_exported_and_answers_the_same(trained_on: Path, result: Callable[..., Any]) -> None:
    """Sides that no stride divides are padded and cut in the file as here."""
    said = result("export", trained_on, "-o", "exported", "--size", "72", "--size", "100", "--batch", "1", "--mask")
    assert said["share"] <= 1e-4
    assert said["same_answers"] == 1


def test_a_training_goes_on_from_it_and_not_on_another_network(
    trained_on: Path, data: Path, run: Callable[..., Any], result: Callable[..., Any]
) -> None:
    go_on = ("train", data, "--weights", trained_on, "--recipe", "digits", *FAST, "--dry-run")
    for more in ((), ("--backbone", "test_resnet")):
        plan = result(*go_on, *more)
        assert plan["backbone"] == "test_resnet"
        assert plan["weights"].endswith(f"from {trained_on / 'model.safetensors'}")
        assert plan["learning rate"] == "0.001, of the backbone 0.0001"
    for more in (("--backbone", "test_convnext"), ("--model", "vidt-plus-micro")):
        code, _, err = run(*go_on, *more)
        assert code == 2
        assert "test_resnet" in one_line(err)
    code, _, err = run("convert", trained_on / "model.safetensors", "--to", "official")
    assert code == 2
    assert "the published form holds a Swin" in one_line(err)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_weights_and_statistics(
    data: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("train", data, "--recipe", "digits", "--model", "vidt-micro", "--backbone", "test_resnet")
    train = (*train, "--weights", "none", "--epochs", "2", "--ema-decay", "0.5", "--backbone-lr", "0.2", *FAST)
    code, _, err = run(*train, "-o", "whole")
    assert code == 0, err
    call = Objective.__call__

    def stopped(self: Objective, model: nn.Module, batch: Any, clock: Any) -> Tensor:
        if clock.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return call(self, model, batch, clock)

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "__call__", stopped)
        assert run(*train, "-o", "parts")[0] == 75
    code, _, err = run("train", "--resume", "parts")
    assert code == 0, err
    for file in ("model.safetensors", "ema.safetensors"):
        first, second = (load_file(f"{name}/{file}") for name in ("whole", "parts"))
        assert any(key.endswith("running_mean") for key in first)
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--backbone", "vit_ti", "--weights", "none"), "vit_ti: has feature maps of strides 16, 16, 16"),
        (("--backbone", "test_coatnet", "--weights", "none"), "takes no images of any size"),
        (("--backbone", "tv:resnet18"), "networks of torchvision give no feature maps"),
        (("--backbone", "nosuchnet"), "unknown network"),
        (("--backbone", "py:json:loads"), "could not be read again without running that function"),
        (("--backbone", "absent.safetensors"), "no such weight file"),
        (("--backbone", "test_resnet", "--model", "vidt-neck-free-micro"), "has no neck"),
        (("--backbone", "test_resnet=net.pt", "--weights", "none"), "the name already brings its weights"),
        (("--backbone", "test_convnext", "--weights", "none", "--freeze-bn", "on"), "test_convnext has no batch norms"),
        (("--freeze-bn", "on"), "swin_micro has no batch norms"),
        (("--backbone", "test_resnet=net.pt"), "the weights do not fit ResNet"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    options: tuple[str, ...], said: str, data: Path, run: Callable[..., Any]
) -> None:
    torch.save({"a.weight": torch.zeros(2, 2)}, "net.pt")
    code, _, err = run("train", data, "--recipe", "digits", "--model", "vidt-micro", *FAST, *options, "--dry-run")
    assert code == 2
    assert said in one_line(err)


def test_published_weights_that_cannot_be_fetched_are_asked_for_by_their_option(
    data: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtk_cli.models.published.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("vtk_cli.models.published.answers", lambda url: False)
    for weights in ((), ("--weights", "imagenet")):
        code, _, err = run("train", data, "--recipe", "digits", "--backbone", "test_resnet", *weights, *FAST)
        assert code == 2
        assert "give --weights FILE, or give --weights none" in one_line(err)
