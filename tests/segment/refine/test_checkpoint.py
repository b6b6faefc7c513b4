from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from vtk_cli.data.points.records import Classes
from vtk_cli.errors import UserError
from vtk_cli.segment.refine.checkpoint import read_refiner, save_refiner
from vtk_cli.segment.refine.configurations import MICRO
from vtk_cli.segment.refine.network import MicroRefineNet

CLASSES = Classes(("cat", "dog"), (3, 7))


def test_a_saved_network_comes_back_to_the_bit_with_its_classes(tmp_path: Path) -> None:
    network = MicroRefineNet(2).eval()
    save_refiner(tmp_path / "m.safetensors", network.state_dict(), MICRO, CLASSES)
    saved = read_refiner(tmp_path / "m.safetensors")
    assert (saved.config, saved.classes) == (MICRO, CLASSES)
    crops = torch.randn(1, 7, 48, 48)
    with torch.inference_mode():
        assert torch.equal(saved.build()(crops), network(crops))


def test_published_weights_are_known_by_their_first_convolution(tmp_path: Path) -> None:
    for channels, names in ((85, "person"), (13, "class 1")):
        content = {"model_state": {"layer0.0.weight": torch.zeros(64, channels, 7, 7)}, "epoch": 3, "best_AP": 0.1}
        torch.save(content, tmp_path / "m.pth")
        saved = read_refiner(tmp_path / "m.pth")
        assert saved.classes.names[0] == names
        assert len(saved.classes.names) == channels - 5
        assert list(saved.state) == ["encoder.conv1.weight"]


@pytest.mark.parametrize("metadata", [None, {"refiner": "micro", "classes": "{}"}])
def test_other_files_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata)
    with pytest.raises(UserError, match=r"no MaskRefineNet|classes cannot be read"):
        read_refiner(tmp_path / "m.safetensors")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_refiner(tmp_path / "m.safetensors", MicroRefineNet(3).state_dict(), MICRO, CLASSES)
    with pytest.raises(UserError, match="do not fit"):
        read_refiner(tmp_path / "m.safetensors").build()
