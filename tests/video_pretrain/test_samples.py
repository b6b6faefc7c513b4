"""From files to views: the same whatever the number of workers, and in a test every crop of every clip once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.data.video.written_videos import moving, write_video
from tests.video_pretrain.test_view_augmentation import AUGMENT
from vtk_cli.data.video.clips import ClipSource
from vtk_cli.data.video.decoding import VideoDecoder
from vtk_cli.data.video.records import Sampling, VideoFile
from vtk_cli.engine.batches import LoaderBatches
from vtk_cli.video_pretrain.freqaug import FreqAug
from vtk_cli.video_pretrain.samples import TestViews, TrainViews, collate_views

SAMPLING = Sampling("stride", 3, 2)
LABELS = [2, 0, 1, 2]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClipSource]:
    folder: Path = tmp_path_factory.mktemp("videos")
    files = [write_video(folder / f"{number}.mp4", moving(12, 24, 64, number)) for number in range(4)]
    source = ClipSource([VideoFile(path, label, "") for path, label in zip(files, LABELS, strict=True)], VideoDecoder())
    yield source
    source.close()


def views(source: ClipSource) -> TrainViews:
    freqaug = FreqAug("diff", probability=0.5)
    return TrainViews(source, LABELS, SAMPLING, 2, (0.0, float("inf")), "clamp", AUGMENT, freqaug)


def test_views_are_the_same_whatever_the_number_of_workers(source):
    found = []
    for workers in (0, 2):
        batches = LoaderBatches(views(source), 2, 5, workers, collate=collate_views)
        found.append([batch for epoch in range(2) for batch in batches.epoch(epoch)])
        batches.close()
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_batch_has_views_flags_labels_and_faults(source):
    (indices, given, flags, labels, faults), *_ = LoaderBatches(views(source), 4, 0, 0, collate=collate_views).epoch(0)
    assert given.shape == (4, 2, 3, 3, 16, 16)
    assert (flags.shape, flags.dtype) == ((4, 2), torch.bool)
    assert labels.tolist() == [LABELS[index] for index in indices.tolist()]
    assert faults == [[]] * 4
    assert not torch.equal(given[:, 0], given[:, 1])


def test_a_test_looks_at_the_left_the_middle_and_the_right():
    look = TestViews(SAMPLING, 1, 3, 24, 24, "start", "clamp", 0.45, 0.225)
    clip = torch.from_numpy(moving(3, 24, 64))
    whole = ((clip.float() / 255 - 0.45) / 0.225).permute(3, 0, 1, 2)
    seen = look.seen(clip)
    assert seen.shape == (3, 3, 3, 24, 24)
    for crop, left in zip(seen, (0, 20, 40), strict=True):
        torch.testing.assert_close(crop, whole[..., left : left + 24])
