"""ONNX files of networks answer as the networks do, and their instances are those of normal inference."""

from __future__ import annotations

import importlib
import importlib.util
import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from vtk_cli.data.points import Classes
from vtk_cli.errors import JobError, UserError
from vtk_cli.segment.solov2 import exporting
from vtk_cli.segment.solov2.exporting import FOUND, SEEN, ExportedSegmenter, export_segmenter
from vtk_cli.segment.solov2.inference import InferenceSettings, find_instances
from vtk_cli.segment.solov2.predictions import Frame

CLASSES = Classes(("a", "b", "c"), (10, 20, 30))
needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")), reason="no onnx"
)


def written(network, path, **changes):
    options = {"size": (64, 48), "short": 48, "batch": None, "classes": CLASSES, **changes}
    return export_segmenter(network, path, **options)


@pytest.fixture
def unsure(micro_network):
    """Few cells of the network are sure of a class."""
    with torch.no_grad():
        micro_network.ins_head.cate_pred.bias -= 3
    return micro_network


def test_the_instances_are_those_of_normal_inference(unsure):
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    settings, levels = InferenceSettings(candidates=2000), unsure.config.levels
    with torch.no_grad():
        module = ExportedSegmenter(unsure, settings)
        scores, labels, masks = module(images, torch.tensor([settings.least_category]))[: len(FOUND)]
        outputs = unsure(images)
    for index in range(2):
        found = find_instances(outputs.of_image(index), Frame((64, 48), (64, 48), (64, 48)), levels, settings)
        n = len(found)
        assert n > 3
        assert set(found.labels.tolist()) > {found.labels[0].item()}
        torch.testing.assert_close(scores[index, :n], found.scores)
        assert (scores[index, n:] == 0).all()
        assert torch.equal(labels[index, :n], found.labels)
        large = F.interpolate(masks[index : index + 1, :n], size=(64, 48), mode="bilinear", align_corners=False)[0]
        assert ((large > 0.5) == found.masks).float().mean() > 0.9999


def test_a_higher_least_probability_leaves_only_surer_cells(unsure):
    images = torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        counts = [
            int((ExportedSegmenter(unsure)(images, torch.tensor([p]))[0] > 0).sum()) for p in (0.1, 0.9, 0.9999, 1.0)
        ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2]
    assert counts[-1] == 0


@needs_onnx
@pytest.mark.slow
def test_a_file_answers_as_the_network_does(micro_network, tmp_path):
    path = tmp_path / "new" / "student.onnx"
    export = written(micro_network, path)
    assert export.share <= 1e-4
    assert export.same_answers == 1
    assert export.images == 6
    session = importlib.import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    said = json.loads(session.get_modelmeta().custom_metadata_map["segmenter"])
    assert said == json.loads(path.with_suffix(".json").read_text())
    assert said["classes"] == ["a", "b", "c"]
    assert tuple(one["name"] for one in said["outputs"]) == (*FOUND, *SEEN)
    images = torch.randn(5, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    least = torch.tensor([0.1])
    answers = session.run(None, {"images": images.numpy(), "least_probability": least.numpy()})
    with torch.no_grad():
        expected = ExportedSegmenter(micro_network)(images, least)
    assert int((expected[0] > 0).sum()) > 0
    for one, other in zip(answers, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), other, atol=1e-3, rtol=1e-3)
    for one, answer in zip(said["outputs"], answers, strict=True):
        assert one["shape"][1:] == [*answer.shape[1:]]


@pytest.mark.parametrize(("wrong", "message"), [("logits", "differ by"), ("instances", "of its instances")])
def test_a_file_that_answers_otherwise_is_not_kept(micro_network, tmp_path, monkeypatch, wrong, message):
    module = ExportedSegmenter(micro_network)

    def answer(images, least):
        found = list(module(images, least))
        if wrong == "logits":
            found[3] = found[3] + 0.1 * found[3].abs().max()
        else:
            found[1] = found[1] + 1
        return tuple(found)

    monkeypatch.setattr(exporting, "require_onnx", lambda: None)
    monkeypatch.setattr(exporting, "_program", lambda *_: None)
    monkeypatch.setattr(exporting, "save_onnx", lambda program, path, **_: path.write_bytes(b"a file"))
    monkeypatch.setattr(exporting, "read_onnx", lambda *_: answer)
    with pytest.raises(JobError, match=message):
        written(micro_network, tmp_path / "m.onnx")
    assert [*tmp_path.iterdir()] == []
    monkeypatch.setattr(exporting, "read_onnx", lambda *_: module)
    assert replace(written(micro_network, tmp_path / "m.onnx"), path=tmp_path).difference == 0
    assert (tmp_path / "m.onnx").read_bytes() == b"a file"


def test_a_size_that_the_network_cannot_pad_to_is_refused(micro_network, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "require_onnx", lambda: None)
    with pytest.raises(UserError, match="not multiples of 16"):
        written(micro_network, tmp_path / "m.onnx", size=(64, 50))
