"""`vtk bench video`: how fast clips are read, what that takes of a training step, and of a worker's memory."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from vtk_cli.console import Console
from vtk_cli.data.video.clips import ClipSource
from vtk_cli.data.video.decoding import VideoDecoder
from vtk_cli.data.video.measuring import (
    CLIP_BYTES,
    SAMPLING,
    clips_per_second,
    clips_per_second_unprotected,
    memory_over,
    write_clips,
)
from vtk_cli.data.video.records import VideoFile
from vtk_cli.data.video.sets import VideoSet
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.loss_meter import LossMeter
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.update import Updater
from vtk_cli.reports.evidence import BenchRow
from vtk_cli.video_pretrain.options import VideoOptions
from vtk_cli.video_pretrain.preparation import Data, prepare
from vtk_cli.video_pretrain.recipes import RECIPES

_ROUNDS, _CLIPS, _MEMORY_CLIPS, _VIDEOS = 3, 60, 2000, 8
_SIDE, _BATCH = 112, 8


def measure(*, smallest: bool, device: torch.device, console: Console) -> list[BenchRow]:  # noqa: ARG001 - the family's signature
    """Read clips of 320x240 H.264 videos that are written for it; the medians of rounds in turns."""
    rounds, clips, many = (1, 4, 20) if smallest else (_ROUNDS, _CLIPS, _MEMORY_CLIPS)
    with TemporaryDirectory() as folder:
        videos = write_clips(Path(folder), 2 if smallest else _VIDEOS, frames=64 if smallest else 300)
        rows = [_decoders(videos, clips, rounds, device), _protection(videos, clips, rounds, device)]
        return [*rows, _waiting(videos, 2 if smallest else 12, device), _memory(videos, many, device)]


def _decoders(videos: list[VideoFile], clips: int, rounds: int, device: torch.device) -> BenchRow:
    pairs = [(clips_per_second(videos, "auto", clips), clips_per_second(videos, "pyav", clips)) for _ in range(rounds)]
    ours, theirs = (median(column) for column in zip(*pairs, strict=True))
    return BenchRow(
        name="a clip of 8 frames of a 320x240 H.264 video, in one worker",
        ours=1 / ours,
        theirs=1 / theirs,
        peer="PyAV",
        target=None,
        device=describe_device(device),
        versions=_versions(),
        note=f"decord {ours:.1f} clips/s, PyAV {theirs:.1f} clips/s, both in a process apart; median of {rounds}",
    )


def _protection(videos: list[VideoFile], clips: int, rounds: int, device: torch.device) -> BenchRow:
    pairs = [
        (clips_per_second(videos, "auto", clips), clips_per_second_unprotected(videos, "auto", clips))
        for _ in range(rounds)
    ]
    ours, theirs = (median(column) for column in zip(*pairs, strict=True))
    return BenchRow(
        name="the same, what it costs to be safe from files that abort the decoder",
        ours=1 / ours,
        theirs=1 / theirs,
        peer="decord in the worker itself",
        target=None,
        device=describe_device(device),
        versions=_versions(),
        note=f"{ours:.1f} against {theirs:.1f} clips/s",
    )


def _waiting(videos: list[VideoFile], steps: int, device: torch.device) -> BenchRow:
    """Of a step of a training, how long it waits for clips that one worker reads."""
    options = VideoOptions(
        **{
            **RECIPES["simclr"],
            "model": "slow_r18",
            "img_size": _SIDE,
            "batch_size": min(_BATCH, len(videos)),
            "epochs": 40,
            "workers": 1,
            "precision": "fp32",
            "head_width": 128,
        }
    )
    source = ClipSource(tuple(videos), VideoDecoder())
    train = VideoSet("bench", tuple(videos), ())
    world, quiet = World(0, 1, 0, device), Console(quiet=True)
    training = prepare(options, Data(train, None, source, None), world, quiet)
    updater = Updater(
        training.model,
        training.objective,
        training.optimizer,
        training.scheduler,
        clip_norm=None,
        ema_decay=None,
        precision="fp32",
        seed=0,
        world=world,
    )
    training.model.train()
    meter, waited, whole, made = LossMeter(world), 0.0, 0.0, 0
    for epoch in range(steps + 1):
        start = time.perf_counter()
        for batch in training.batches.epoch(epoch, 0):
            arrived = time.perf_counter()
            updater([batch], epoch, made, meter)
            meter.read()
            if epoch:  # the worker starts in the first
                waited += arrived - start
                whole += time.perf_counter() - start
                made += 1
            start = time.perf_counter()
    training.batches.close()
    return BenchRow(
        name=f"waiting for clips in a step of slow_r18, {options.batch_size} videos of 2 views of {_SIDE} pixels",
        ours=waited / made,
        theirs=whole / made,
        peer="the whole step",
        target=None,
        device=describe_device(device),
        versions=_versions(),
        note=f"{100 * waited / whole:.0f} % of the time is waiting, with one worker",
    )


def _memory(videos: list[VideoFile], clips: int, device: torch.device) -> BenchRow:
    found = memory_over(videos, "auto", clips)
    grown = float("nan") if found is None else found.growth / 2**20
    clip = CLIP_BYTES / 2**20
    return BenchRow(
        name=f"memory (MiB) that a worker gains over {clips:,} clips",
        ours=max(grown, clip),  # below a clip, it is the noise of the allocator
        theirs=clips * clip,
        peer="all of the clips",
        target=None,
        device=describe_device(device),
        versions=_versions(),
        note=f"{grown:.1f} MiB since the first tenth; a clip of {SAMPLING.frames} frames has {clip:.1f} MiB",
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in ("decord", "av", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # no decord for this platform
            continue
    return found
