from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from vtk_cli.errors import JobError, UserError
from vtk_cli.models.export import require_onnx
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.train import exporting
from vtk_cli.train.exporting import Export, Format, export_network, preprocessing, probe_images

has_onnx = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not has_onnx, reason="the extra `export` is not installed")
PIXELS = PixelConfig(16, (0.5, 0.5, 0.5), (0.25, 0.5, 0.25), crop_pct=0.8)
NAMES = ("ant", "bee", "cow")


def vit() -> nn.Module:
    torch.manual_seed(0)
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 3}
    net: nn.Module = timm.create_model("vit_tiny_patch16_224", **options)
    nn.init.normal_(net.head.weight)  # type: ignore[arg-type, union-attr]
    return net


def convnet() -> nn.Module:
    """With batch normalisation whose statistics matter, and dropout."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(8, 3),
    )  # fmt: skip
    net[1].running_mean += 0.3
    return net.train()


def export(net: nn.Module, path: Path, form: Format, **options: Any) -> Export:
    return export_network(net, path, form, pixels=PIXELS, class_names=NAMES, **options)


def test_a_program_answers_as_the_network_does_for_any_number_of_images(tmp_path: Path) -> None:
    net = vit()
    done = export(net, tmp_path / "deep" / "model", "torch-export")
    assert done.path == tmp_path / "deep" / "model.pt2"
    assert done.difference <= 1e-5 * done.scale
    assert (done.same_answers, done.images) == (1.0, 16)
    assert done.bytes == done.path.stat().st_size
    extra = {"preprocessing.json": ""}
    read = torch.export.load(done.path, extra_files=extra).module()
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 16, 16)
        torch.testing.assert_close(read(images), net.eval()(images))
    beside = json.loads((tmp_path / "deep" / "model.preprocessing.json").read_text())
    assert beside == json.loads(extra["preprocessing.json"]) == preprocessing(PIXELS, NAMES, multi_label=False)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["model.preprocessing.json", "model.pt2"]


def test_dropout_and_batch_statistics_are_those_of_evaluation(tmp_path: Path) -> None:
    net = convnet()
    done = export(net, tmp_path / "model.safetensors", "torch-export")
    assert done.path.name == "model.pt2"
    assert net.training
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(torch.export.load(done.path).module()(images), net.eval()(images))


@needs_onnx
@pytest.mark.parametrize("make", [vit, convnet])
def test_onnx_answers_as_the_network_does_for_any_number_of_images(make: Any, tmp_path: Path) -> None:
    net = make()
    done = export(net, tmp_path / "model", "onnx", multi_label=True)
    assert done.difference <= 1e-5 * done.scale
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape[1:]) for value in session.get_inputs()] == [("images", [3, 16, 16])]
    assert [value.name for value in session.get_outputs()] == ["logits"]
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 16, 16)
        with torch.no_grad():
            expected = net.eval()(images).numpy()
        assert session.run(None, {"images": images.numpy()})[0] == pytest.approx(expected, abs=1e-4)
    about = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert about == json.loads((tmp_path / "model.preprocessing.json").read_text())
    assert about["output"] == {
        "name": "logits",
        "shape": ["batch", 3],
        "probabilities": "sigmoid",
        "classes": ["ant", "bee", "cow"],
    }


@needs_onnx
def test_weights_beside_an_onnx_file_are_found_where_they_are_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch writes them for networks of more than 2 GB."""
    write = exporting._write_onnx

    def apart(module: nn.Module, example: Tensor, path: Path, about: dict[str, Any]) -> None:
        write(module, example, path, about)
        onnx = importlib.import_module("onnx")
        content = onnx.load(str(path))
        path.unlink()
        onnx.save(content, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)

    monkeypatch.setattr(exporting, "_write_onnx", apart)
    done = export(vit(), tmp_path / "model", "onnx")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["model.onnx", "model.onnx.data", "model.preprocessing.json"]
    assert done.bytes == sum((tmp_path / name).stat().st_size for name in names[:2])
    runtime = importlib.import_module("onnxruntime")
    runtime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])


def test_a_file_that_answers_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = exporting._read_program
    monkeypatch.setattr(exporting, "_read_program", lambda path: lambda images: read(path)(images) * 1.01)
    (tmp_path / "model.pt2").write_text("the one before")
    with pytest.raises(JobError, match="answers otherwise than the network"):
        export(vit(), tmp_path / "model", "torch-export")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_text() == "the one before"
    export(vit(), tmp_path / "model", "torch-export", tolerance=0.02)


def test_a_file_that_cannot_be_read_back_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_write_program", lambda module, example, path, about: path.write_bytes(b"torn"))
    with pytest.raises(JobError, match=r"model.pt2: what was written cannot be read back"):
        export(vit(), tmp_path / "model", "torch-export")
    assert not [*tmp_path.iterdir()]


def test_a_network_that_answers_nan_is_not_kept(tmp_path: Path) -> None:
    net = vit()
    nn.init.constant_(net.head.bias, float("nan"))  # type: ignore[arg-type, union-attr]
    with pytest.raises(JobError, match="answers otherwise"):
        export(net, tmp_path / "model", "torch-export")


class Undecided(nn.Module):
    """Looks at its input before it answers, which no graph can hold."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))


def test_a_network_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Undecided cannot be written as \.pt2"):
        export(Undecided(), tmp_path / "model", "torch-export")
    assert not [*tmp_path.iterdir()]


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found("json"))
    with pytest.raises(UserError, match=r"ONNX needs onnxruntime; pip install 'vtk-cli\[export\]'"):
        require_onnx()


def test_the_networks_own_weights_and_mode_are_left_alone(tmp_path: Path) -> None:
    net = convnet().double()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    export(net, tmp_path / "model", "torch-export")
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net[0].weight.dtype == torch.float64


def test_preprocessing_says_what_evaluation_does() -> None:
    about = preprocessing(PIXELS, NAMES, multi_label=False)
    assert about["resize"] == {"shorter_side": 20, "interpolation": "bicubic", "centre_crop": 16}
    assert about["input"]["mean"] == [0.5, 0.5, 0.5]
    assert about["output"]["probabilities"] == "softmax"


def test_answers_are_compared_on_noise_and_on_digits() -> None:
    images = probe_images(PIXELS)
    assert images.shape == (16, 3, 16, 16)
    restored = (images * torch.tensor(PIXELS.std).view(3, 1, 1) + 0.5).clamp(0, 1)
    noise, digits = restored[:8], restored[8:]
    assert noise.std() > 0.25
    torch.testing.assert_close(digits[:, 0], digits[:, 2], rtol=0, atol=1e-5)
    assert (digits < 0.01).float().mean() > 0.3
    assert torch.equal(images, probe_images(PIXELS))
    assert not torch.equal(images, probe_images(PIXELS, seed=1))
    assert np.isfinite(images.numpy()).all()
