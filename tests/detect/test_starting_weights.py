"""What `vtk detect train` starts from: a Swin's file, a detector's, a published one, with or without its classifier."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.detect.shape_folders import write_yolo
from vtk_cli.app import main
from vtk_cli.detect.backbone_weights import is_new
from vtk_cli.detect.checkpoint import read_detector, save_official
from vtk_cli.detect.configurations import detector_config
from vtk_cli.detect.network import build_detector
from vtk_cli.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_yolo(tmp_path_factory.mktemp("shapes"), {"train": 2, "val": 1})


@pytest.fixture
def plan(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `vtk detect train DATA --dry-run`; gives the exit code, the plan and what was told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))

    def call(*arguments: object) -> tuple[int, dict[str, str], str]:
        capsys.readouterr()
        code = main(["detect", "train", str(data), "--size", "64", "--dry-run", "--json", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, json.loads(out) if code == 0 else {}, err

    return call


def test_a_swins_file_starts_the_backbone_without_any_other_option(plan: Any, tmp_path: Path) -> None:
    network = build_detector(detector_config("vidt-micro", 3))
    stages = len(network.backbone.layers)
    swin = {name: value for name, value in network.backbone.state_dict().items() if not is_new(name, stages)}
    torch.save({"model": {**swin, "head.weight": torch.zeros(1000, 8)}}, tmp_path / "swin.pth")
    code, said, err = plan("--model", "vidt-micro", "--weights", "swin.pth")
    assert code == 0, err
    assert said["weights"].endswith("from ImageNet weights of its backbone (swin.pth)")
    assert "--recipe paper" in err
    code, _, err = plan("--model", "vidt-nano", "--weights", "swin.pth")
    assert code == 2
    assert "swin.pth" in err


def test_a_published_detector_is_gone_on_from_with_new_classifiers(plan: Any, tmp_path: Path) -> None:
    config = detector_config("vidt-plus-nano", 91, queries=10)
    save_official(tmp_path / "vidt_plus.pth", build_detector(config).state_dict(), config)
    code, said, err = plan("--weights", "vidt_plus.pth")
    assert code == 0, err
    assert (said["detector"], said["classes"]) == ("the detector of vidt_plus.pth", "3")
    assert "the classifier is new" in err
    assert "heads.vector_embed of the file is left out" in err  # these objects have no outlines
    code, _, err = plan("--weights", "vidt_plus.pth", "--no-reset-head")
    assert code == 2
    assert "91: N/A, person" in err
    assert "3: red, green, blue" in err
    assert "--reset-head" in err


def test_a_converted_detector_is_the_published_one(plan: Any, tmp_path: Path) -> None:
    config = detector_config("vidt-nano", 91, queries=10)
    state = build_detector(config).state_dict()
    save_official(tmp_path / "vidt.pth", state, config)
    assert main(["detect", "convert", "vidt.pth", "-o", "ours.safetensors", "--quiet"]) == 0
    ours = load_file("ours.safetensors")
    assert ours.keys() == state.keys()
    assert all(torch.equal(ours[name], state[name]) for name in state)
    plans = [plan("--weights", name)[1] for name in ("vidt.pth", "ours.safetensors")]
    assert plans[0]["weights"].split(",")[:2] == plans[1]["weights"].split(",")[:2]


@pytest.mark.parametrize(("change", "said"), [({"decoder_heads": 4}, "heads 4, not 8"), ({"groups": 16}, "groups 16")])
def test_a_detector_that_the_published_form_cannot_tell_is_not_written_so(
    change: dict[str, int], said: str, tmp_path: Path
) -> None:
    config = detector_config("vidt-nano", 2, queries=5, **change)
    with pytest.raises(UserError, match=f"the published form cannot tell: .*{said}"):
        save_official(tmp_path / "ours.pth", build_detector(config).state_dict(), config)
    assert [*tmp_path.iterdir()] == []


def test_a_published_file_may_hold_its_training_too(tmp_path: Path) -> None:
    config = detector_config("vidt-nano", 91, queries=5)
    save_official(tmp_path / "vidt.pth", build_detector(config).state_dict(), config)
    content = torch.load(tmp_path / "vidt.pth", weights_only=True)
    training = {"optimizer": {"state": {}}, "lr_scheduler": {"last_epoch": 49}, "epoch": 49}
    torch.save({**content, **training, "args": Namespace(lr=1e-4, masks=True)}, tmp_path / "training.pth")
    assert read_detector(tmp_path / "training.pth").config == config
