"""Clips of many videos: decoded when asked for or all at once before, and what is done about videos that are broken.

In training a broken video is replaced by another one, which follows from the sample's own random numbers; it is counted
and named at the end, and too many are an error. In a test nothing is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.data.video.decoding import BrokenVideo, Choose, VideoDecoder
from vtk_cli.data.video.reader import Pixels, ReadError
from vtk_cli.data.video.records import VideoFile
from vtk_cli.engine.batches import Batches
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import UserError

TOLERATED = 0.02
"""The largest share of an epoch's videos that may be broken."""
_TRIES = 10
"""So many other videos are tried in place of a broken one."""
_LEAST, _LEAST_SHARE = 5, 0.1
"""So many broken videos are not too many yet, where they are no larger share: 2 % of a short list is not even one."""


@dataclass(frozen=True)
class Fault:
    """A video that cannot be used, and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class _Kept:
    frames: Pixels
    fps: float


@dataclass(eq=False)
class ClipSource:
    """Videos to take clips from; picklable, and safe in workers.

    Args:
        videos: all of them.
        decoder: reads their clips.
    """

    videos: Sequence[VideoFile]
    decoder: VideoDecoder
    _kept: dict[int, _Kept | str] = field(default_factory=dict)
    _broken: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.videos)

    def clips(self, index: int, choose: Choose) -> list[Tensor]:
        """Clips of a video, each uint8 (T, H, W, 3).

        Raises:
            BrokenVideo: it cannot be decoded; it is not tried again in this process.
        """
        if index in self._kept:
            return self._from_memory(index, choose)
        if index in self._broken:
            raise BrokenVideo(self.videos[index].path, self._broken[index])
        try:
            return [torch.from_numpy(clip) for clip in self.decoder.clips(self.videos[index], choose)]
        except BrokenVideo as error:
            self._broken[index] = error.reason
            raise

    def clips_or_others(
        self, index: int, choose: Choose, rng: np.random.Generator
    ) -> tuple[list[Tensor], int, list[Fault]]:
        """Clips of a video, or of another one that `rng` draws where it is broken: (clips, whose they are, faults).

        Args:
            index: of the video.
            choose: may draw from `rng`; it starts from the same state for every video and decoder that is tried, so
                that what is drawn does not depend on what this process knows to be broken.
            rng: of this sample.

        Raises:
            UserError: so many in a row are broken.
        """
        others = np.random.default_rng(rng.integers(2**63))
        state = rng.bit_generator.state

        def choose_anew(length: int, fps: float) -> Sequence[Any]:
            rng.bit_generator.state = state
            return choose(length, fps)

        faults: list[Fault] = []
        for _ in range(_TRIES):
            try:
                return self.clips(index, choose_anew), index, faults
            except BrokenVideo as error:
                faults.append(Fault(index, error.reason))
                index = int(others.integers(len(self.videos)))
        first = self.videos[faults[0].index]
        what = f"{_TRIES} videos in a row cannot be decoded, the first because {faults[0].reason}"
        raise UserError(what, str(first.path), "see all that are broken with vtk data check")

    def keep_all(self, console: Console) -> None:
        """Decode every video once and keep its frames, before any worker is started; broken ones are remembered."""
        threads = min(worker_count(None) or 1, len(self.videos)) or 1
        with console.progress("decoding videos", len(self.videos)) as progress, ThreadPoolExecutor(threads) as pool:
            parts = [range(start, len(self.videos), threads) for start in range(threads)]
            for _ in pool.map(partial(self._keep, heard=progress.advance), parts):
                pass
        if len([kept for kept in self._kept.values() if isinstance(kept, str)]) == len(self.videos):
            reason = self._kept[0]
            raise UserError(f"no video can be decoded, the first because {reason}", str(self.videos[0].path))

    def close(self) -> None:
        """End the decoder."""
        self.decoder.close()

    def _keep(self, indices: Sequence[int], *, heard: Callable[[], None]) -> None:
        decoder = self.decoder.fresh()
        for index in indices:
            rate = 0.0

            def everything(length: int, fps: float) -> list[Any]:
                nonlocal rate
                rate = fps
                return [np.arange(length)]

            try:
                (frames,) = decoder.clips(self.videos[index], everything)
                self._kept[index] = _Kept(frames, rate)
            except BrokenVideo as error:
                self._kept[index] = error.reason
            heard()
        decoder.close()

    def _from_memory(self, index: int, choose: Choose) -> list[Tensor]:
        kept = self._kept[index]
        if isinstance(kept, str):
            raise BrokenVideo(self.videos[index].path, kept)
        try:
            wanted = choose(len(kept.frames), kept.fps)
        except ReadError as error:
            raise BrokenVideo(self.videos[index].path, str(error)) from error
        return [torch.from_numpy(kept.frames[frames]) for frames in wanted]


class CountedBatches:
    """Batches whose last part is the faults of their samples, which are counted here and taken off.

    Args:
        batches: each `(indices, ..., faults)`, faults a list for each sample.
        source: the videos, for names.
        tolerated: the largest share of an epoch's samples.
    """

    def __init__(self, batches: Batches, source: ClipSource, tolerated: float = TOLERATED) -> None:
        self._batches, self._source, self._tolerated = batches, source, tolerated
        self.faults: dict[int, str] = {}

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return self._batches.steps_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, ...]]:
        """See `Batches`.

        Raises:
            UserError: too many videos are broken.
        """
        broken: set[int] = set()
        for *parts, faults in self._batches.epoch(epoch, start):
            for fault in (fault for sample in faults for fault in sample):
                self.faults.setdefault(fault.index, fault.reason)
                broken.add(fault.index)
            count = len(self._source)
            if len(broken) > max(self._tolerated * count, min(_LEAST, _LEAST_SHARE * count)):
                what = f"more than {100 * self._tolerated:g} % of the videos are broken: {self.told()}"
                raise UserError(what, fix="see all with vtk data check, and mend the list")
            yield tuple(parts)

    def name_of(self, index: int) -> str:
        """The path of a sample's video."""
        return str(self._source.videos[index].path)

    def close(self) -> None:
        """End the workers."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
        self._source.close()

    def told(self, most: int = 3) -> str:
        """How many are broken, why, and the first by name."""
        counts: dict[str, int] = {}
        for reason in self.faults.values():
            counts[reason] = counts.get(reason, 0) + 1
        reasons = ", ".join(f"{count} x {reason}" for reason, count in counts.items())
        names = "; ".join(str(self._source.videos[index].path) for index in sorted(self.faults)[:most])
        return f"{len(self.faults)} of {len(self._source)} videos: {reasons} (first {names})"
