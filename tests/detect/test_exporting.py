"""ONNX files of detectors answer as the detectors do."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path

import pytest
import torch

from vtk_cli.detect import exporting
from vtk_cli.detect.configurations import Classes
from vtk_cli.detect.exporting import ExportedDetector, export_detector
from vtk_cli.errors import JobError, UserError
from vtk_kernels import deformable_attention

CLASSES = Classes(("a", "b", "c"), (10, 20, 30))
needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")), reason="no onnx"
)


@pytest.mark.parametrize("parts", [2, 4])
def test_deformable_attention_by_grid_sample_is_the_kernel(parts):
    generator = torch.Generator().manual_seed(0)
    B, Q, M, D, P, shapes = 2, 5, 3, 4, 2, [(6, 4), (3, 2)]

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    value, where = draw(B, 30, M, D), draw(B, Q, 2, parts).sigmoid()
    offsets, logits = 3 * draw(B, Q, M, 2, P, 2), draw(B, Q, M, 4)
    sides = [side for shape in shapes for side in shape]
    plain = exporting._plain_attention(value, sides, where, offsets, logits, False)
    torch.testing.assert_close(plain, deformable_attention(value, shapes, where, offsets, logits))


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch", "size", "codes"),
    [
        ("vidt-micro", None, (64, 64), False),
        ("vidt-plus-micro", 1, (64, 96), True),
    ],
)
def test_a_file_answers_as_the_detector_does(name, batch, size, codes, detector, tmp_path):
    network = detector(name, **({"mask_coefficients": 16} if codes else {}))
    path = tmp_path / "new" / "model.onnx"
    export = export_detector(network, path, size=size, batch=batch, classes=CLASSES, codes=codes)
    assert export.share <= 1e-4
    assert export.same_answers == 1
    session = importlib.import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    said = json.loads(session.get_modelmeta().custom_metadata_map["detector"])
    assert said == json.loads(path.with_suffix(".json").read_text())
    assert said["classes"] == ["a", "b", "c"]
    assert [one["name"] for one in said["outputs"]] == ["logits", "boxes", *(["mask_codes"] if codes else [])]
    stored = {one.name for one in importlib.import_module("onnx").load(path).graph.initializer}
    assert not [one for one in stored if one.endswith(("det_token", "det_pos_embed"))]  # folded into constants
    images = torch.randn(batch or 5, 3, *size)
    answers = session.run(None, {"images": images.numpy()})
    expected = ExportedDetector(network, codes=codes)(images)
    for one, other in zip(answers, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), other, atol=1e-4, rtol=1e-3)
    assert [*said["outputs"][0]["shape"][1:]] == [*expected[0].shape[1:]]


def test_a_file_that_answers_otherwise_is_not_kept(detector, tmp_path, monkeypatch):
    network = detector("vidt-micro")
    module = ExportedDetector(network, codes=False)
    monkeypatch.setattr(exporting, "require_onnx", lambda: None)
    monkeypatch.setattr(exporting, "_program", lambda *_: None)
    monkeypatch.setattr(exporting, "save_onnx", lambda program, path, **_: path.write_bytes(b"a file"))
    monkeypatch.setattr(exporting, "read_onnx", lambda *_: lambda images: tuple(one + 0.1 for one in module(images)))
    path = tmp_path / "m.onnx"
    with pytest.raises(JobError, match="answers otherwise"):
        export_detector(network, path, size=(64, 64), batch=1, classes=CLASSES)
    assert [*tmp_path.iterdir()] == []
    monkeypatch.setattr(exporting, "read_onnx", lambda *_: module)
    assert export_detector(network, path, size=(64, 64), batch=None, classes=CLASSES).difference < 1e-5
    assert path.read_bytes() == b"a file"


def test_codes_of_a_detector_without_masks_are_refused(detector, tmp_path, monkeypatch):
    path = Path(tmp_path, "m.onnx")
    monkeypatch.setattr(exporting, "require_onnx", lambda: None)
    with pytest.raises(UserError, match="no masks"):
        export_detector(detector("vidt-micro"), path, size=(64, 64), batch=1, classes=CLASSES, codes=True)
