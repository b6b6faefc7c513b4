"""From videos to what a network sees: augmented views for training, cropped views for testing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from vtk_cli.data.video.clips import ClipSource, Fault
from vtk_cli.data.video.decoding import BrokenVideo
from vtk_cli.data.video.records import Sampling, Short
from vtk_cli.data.video.sampling import Frames, Offset, clips_for_test, crops_of, train_views
from vtk_cli.video_pretrain.freqaug import FreqAug
from vtk_cli.video_pretrain.view_augmentation import ViewAugmentation, scaled_size


@dataclass(eq=False)
class TrainViews(Dataset[Any]):
    """The views of each video: (V, 3, T, S, S) float, (V,) bool which are to be filtered, the label, the faults.

    All randomness comes from torch's global generator, which `LoaderBatches` seeds for every sample.

    Args:
        source: the videos.
        labels: theirs; -1 without.
        sampling: which frames make a clip.
        views: clips of a video.
        gap: seconds between their starts, least and most.
        short: what becomes of videos that are shorter than a clip.
        augmentation: of a view.
        freqaug: draws which views are filtered; the filter itself comes later, on the device.
    """

    source: ClipSource
    labels: Sequence[int]
    sampling: Sampling
    views: int
    gap: tuple[float, float]
    short: Short
    augmentation: ViewAugmentation
    freqaug: FreqAug

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int, list[Fault]]:
        rng = np.random.default_rng(int(torch.randint(2**63 - 1, ())))

        def choose(length: int, fps: float) -> list[Frames]:
            return train_views(self.sampling, length, fps, rng, views=self.views, gap=self.gap, short=self.short)

        clips, used, faults = self.source.clips_or_others(index, choose, rng)
        augment = self.augmentation
        views = [augment.apply(clip, augment.draw(clip.shape[1], clip.shape[2], rng)) for clip in clips]
        return torch.stack(views), self.freqaug.draw(len(views)), self.labels[used], faults


def collate_views(samples: list[tuple[Tensor, Tensor, int, list[Fault]]]) -> tuple[Any, ...]:
    """A batch: (B, V, 3, T, S, S), (B, V), (B,), and the faults of each sample."""
    views, flags, labels, faults = zip(*samples, strict=True)
    return torch.stack(views), torch.stack(flags), torch.tensor(labels), list(faults)


@dataclass(frozen=True)
class TestViews:
    """How a video is looked at in a test.

    Args:
        sampling: which frames make a clip.
        clips: of a video.
        crops: of a clip, 1 or 3.
        scale: short side that frames are resized to.
        side: of a crop.
        offset: where the clips lie; see `clips_for_test`.
        short: what becomes of videos that are shorter than a clip.
        mean, std: values in [0, 1] less `mean` over `std`.
    """

    sampling: Sampling
    clips: int
    crops: int
    scale: int
    side: int
    offset: Offset
    short: Short
    mean: float
    std: float

    __test__ = False

    def seen(self, clip: Tensor) -> Tensor:
        """The crops of a clip uint8 (T, H, W, 3): float (S, 3, T, side, side)."""
        frames = clip.permute(0, 3, 1, 2).float() / 255
        size = scaled_size(clip.shape[1], clip.shape[2], max(self.scale, self.side))
        if size != tuple(clip.shape[1:3]):
            frames = F.resize(frames, list(size), antialias=True)
        frames = (frames - self.mean) / self.std
        corners = crops_of(size, self.side, self.crops)
        parts = [frames[..., top : top + self.side, left : left + self.side] for top, left in corners]
        return torch.stack(parts).transpose(1, 2).contiguous()


@dataclass(frozen=True, eq=False)
class Seen:
    """A video in a test.

    Args:
        index: of the list.
        views: float (K, 3, T, side, side), clip by clip.
        starts: (K,) the first frame of each view, and `ends` the last, in seconds of the video.
        fault: why there is nothing; empty where there is.
    """

    index: int
    views: Tensor
    starts: tuple[float, ...] = ()
    ends: tuple[float, ...] = ()
    fault: str = ""


@dataclass(eq=False)
class TestSet(Dataset[Seen]):
    """Each video once, never another in its place."""

    source: ClipSource
    views: TestViews

    __test__ = False

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Seen:
        spans: list[tuple[float, float]] = []

        def choose(length: int, fps: float) -> list[Frames]:
            look = self.views
            frames = clips_for_test(look.sampling, length, fps, look.clips, offset=look.offset, short=look.short)
            spans.extend((float(one.min()) / fps, float(one.max() + 1) / fps) for one in frames)
            return frames

        try:
            clips = self.source.clips(index, choose)
        except BrokenVideo as error:
            return Seen(index, torch.empty(0), fault=error.reason)
        crops = [self.views.seen(clip) for clip in clips]
        starts, ends = zip(*[span for span in spans[-len(clips) :] for _ in range(self.views.crops)], strict=True)
        return Seen(index, torch.cat(crops), starts, ends)
