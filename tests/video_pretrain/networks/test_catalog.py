"""The names of the video networks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.networks.catalog import BACKBONES, backbone_entry


def test_the_catalog_imports_neither_torch_nor_timm():
    code = "import sys, vtk_cli.video_pretrain.networks.catalog; print({'torch', 'timm'} & {*sys.modules})"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "set()"


def test_every_name_stands_for_itself_and_only_transformers_have_tokens():
    assert all(backbone_entry(name).name == name for name in BACKBONES)
    tokens = {name for name, entry in BACKBONES.items() if entry.has_tokens}
    assert tokens == {"timesformer", "timesformer_tiny", "motionformer", "xvit"}


@pytest.mark.parametrize("family", ["timesformer", "motionformer", "xvit"])
def test_a_transformer_takes_the_size_of_a_vit(family):
    entry = backbone_entry(f"{family}:vit_small_patch16_224")
    assert (entry.name, entry.family) == (f"{family}:vit_small_patch16_224", family)
    assert entry.image_vit == "vit_small_patch16_224"
    assert entry.what.endswith(", vit_small_patch16_224")


@pytest.mark.parametrize(
    ("name", "said"),
    [("slow_r5", "slow_r50"), ("slow_r50:vit_small_patch16_224", "unknown"), ("timesformer:", "timesformer")],
)
def test_unknown_names_are_refused_with_the_nearest(name, said):
    with pytest.raises(UserError, match=said):
        backbone_entry(name)
