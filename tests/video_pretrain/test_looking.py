"""What is said of a video is the mean over its views; one that cannot be decoded is listed, never replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.video.written_videos import moving, write_video
from vtk_cli.console import Console
from vtk_cli.data.video.clips import ClipSource
from vtk_cli.data.video.decoding import VideoDecoder
from vtk_cli.data.video.records import Sampling, VideoFile
from vtk_cli.errors import JobError, UserError
from vtk_cli.video_pretrain.looking import Looker
from vtk_cli.video_pretrain.networks.building import create_backbone
from vtk_cli.video_pretrain.samples import TestSet, TestViews

QUIET = Console(quiet=True)
VIEWS = TestViews(Sampling("stride", 4, 1), 2, 3, 24, 24, "even", "clamp", 0.45, 0.225)


@pytest.fixture
def source(tmp_path: Path):
    files = [write_video(tmp_path / f"{number}.mp4", moving(9, 24, 64, number)) for number in range(3)]
    files[1].unlink()
    source = ClipSource([VideoFile(path, 0, "") for path in files], VideoDecoder())
    yield source
    source.close()


@pytest.mark.parametrize("ensemble", ["softmax", "logits"])
def test_scores_and_features_are_the_mean_over_six_views(ensemble, source):
    torch.manual_seed(0)
    backbone, head = create_backbone("c3d_tiny", frames=4, side=24).train(), torch.nn.Linear(48, 5)
    found = Looker(backbone, head, torch.device("cpu"), ensemble=ensemble).look(source, VIEWS, QUIET, each=True)
    assert backbone.training
    assert found.indices.tolist() == [0, 2]
    assert found.missing == {1: "video is missing"}
    backbone.eval()
    for row, index in enumerate((0, 2)):
        with torch.no_grad():
            features = backbone(TestSet(source, VIEWS)[index].views)
            scores = head(features)
        assert len(features) == 6
        np.testing.assert_allclose(found.features[row], features.mean(0), rtol=1e-4, atol=1e-6)
        scores = scores.softmax(1) if ensemble == "softmax" else scores
        assert found.scores is not None
        np.testing.assert_allclose(found.scores[row], scores.mean(0), rtol=1e-4, atol=1e-6)
    assert found.clips is not None
    assert found.clips["index"].tolist() == [0] * 6 + [2] * 6
    np.testing.assert_allclose(found.clips["seconds"][[0, 3]], [[0, 4 / 30], [5 / 30, 9 / 30]], atol=1e-9)


def test_no_video_at_all_and_features_that_are_not_finite_are_errors(source):
    looker = Looker(create_backbone("c3d_tiny", frames=4, side=24), None, torch.device("cpu"))
    with pytest.raises(UserError, match="no video can be decoded, the first because video is missing"):
        looker.look(source, VIEWS, QUIET, indices=[1])
    with pytest.raises(JobError, match="not finite"):
        looker.look(source, VIEWS, QUIET, change=lambda clips: clips * float("nan"))
