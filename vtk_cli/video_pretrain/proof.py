"""`vtk proof video-pretrain`: what takes the static scene from a network makes it see motion.

Clips of digits whose direction is the label, on a background that gives the label away in training and not in the test.
FreqAug (arXiv 2204.03865): SimCLR with and without it, and with its opposite. TIME (arXiv 2207.09067): a small
TimeSformer from the classes alone, and with the three temporal losses.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from vtk_cli.console import Console
from vtk_cli.data.moving_digits import build_moving_digits
from vtk_cli.data.video.clips import ClipSource
from vtk_cli.data.video.decoding import VideoDecoder
from vtk_cli.data.video.sets import VideoSet, open_videos
from vtk_cli.engine.loop import fit
from vtk_cli.engine.pieces.results import ResultStore, work_through
from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.signals import stop_requests
from vtk_cli.files import cache_folder, content_key, disk_errors, lock, make_folder
from vtk_cli.reports.curves import Points, draw_points
from vtk_cli.reports.evidence import Claim, Proof
from vtk_cli.reports.page import Table
from vtk_cli.video_pretrain.linear_probe import fit_probe
from vtk_cli.video_pretrain.looking import Found, Looker
from vtk_cli.video_pretrain.objective import ClassifiedVideo
from vtk_cli.video_pretrain.options import VideoOptions
from vtk_cli.video_pretrain.preparation import Data, prepare, test_views
from vtk_cli.video_pretrain.protocols import Bank, answers_of, by_neighbours
from vtk_cli.video_pretrain.recipes import RECIPES

_VERSION = 1
"""Raised when what is measured changes, so that kept results are not taken for it."""
FREQAUG_GAIN, TIME_GAIN = 0.08, 0.20
"""What is asked for: of FreqAug along time over SimCLR, linear; of the temporal losses over the classes alone."""
_CLASSES = 4


@dataclass(frozen=True)
class Scale:
    """How much is trained: clips a split, epochs of both parts."""

    train: int
    test: int
    ssl_epochs: int
    supervised_epochs: int


FULL, SMALLEST = Scale(768, 512, 25, 100), Scale(32, 16, 1, 1)


@dataclass(frozen=True)
class Arm:
    """One way of training: what it sets of the options of `vtk video-pretrain run`."""

    name: str
    sets: Mapping[str, Any]


_NO_FILTER: Mapping[str, Any] = {"freqaug": "none"}
RANDOM = "random weights"
SIMCLR = Arm("SimCLR", _NO_FILTER)
_UNTRAINED = Arm(RANDOM, _NO_FILTER)
SSL_ARMS = (
    SIMCLR,
    Arm("+ FreqAug t", {"freqaug": "t"}),
    Arm("+ FreqAug st", {"freqaug": "st"}),
    Arm("+ temporal low-pass (control)", {"freqaug": "t", "freq_t": "lp"}),
)
CLASSES = Arm("classes alone", {"time": "none"})
TIME_ARMS = (CLASSES, Arm("+ order, debias, flow", {"time": "order,debias,flow"}))
AGREEMENT = {"ssl": 10, "supervised": 5}
"""The background agrees with the label in training in all but one of so many clips."""


@dataclass(frozen=True)
class Result:
    """What a training came to: shares of right answers, by measure."""

    arm: str
    seed: int
    scores: dict[str, float]


def prove(seeds: Sequence[int], *, smallest: bool, plots: Path, device: torch.device, console: Console) -> Proof:
    """Train every arm from every seed; the machinery alone if `smallest`."""
    scale = SMALLEST if smallest else FULL
    seeds = seeds[:1] if smallest else seeds
    results = work(seeds, smallest=smallest, device=device, console=console)
    make_folder(plots)
    return Proof(
        name="video-pretrain",
        title="What takes the static scene away makes a network see motion (arXiv 2204.03865, 2207.09067)",
        setting=(
            f"{scale.train} clips of moving digits, 8 frames of 24 pixels; the direction is the label. The background"
            f" gives it away in 9 of 10 training clips (FreqAug) or 4 of 5 (temporal losses), and not at all in"
            f" {scale.test} test clips of other digits. FreqAug: a small 3D network, {scale.ssl_epochs} epochs of"
            f" SimCLR, then frozen; probes on {scale.test} clips whose background says nothing. Temporal losses: a"
            f" TimeSformer of two blocks from scratch, {scale.supervised_epochs} epochs."
            f" Seeds {', '.join(map(str, seeds))}."
        ),
        tables=[_ssl_table(results, seeds), _time_table(results, seeds)],
        claims=_claims(results, seeds),
        not_claimed=(
            "That real videos gain as much: here motion alone is the label, and the background a planted cue.",
            "Which of the three temporal losses helps: they were not taken apart.",
        ),
        pictures=[_draw(results, plots)],
        data={"results": [asdict(one) for one in results]},
    )


def work(
    seeds: Sequence[int], *, smallest: bool, device: torch.device, console: Console, share: Share = WHOLE
) -> list[Result]:
    """All trainings, those of `share` first: of every seed the random weights, and every arm of both parts."""
    scale = SMALLEST if smallest else FULL
    arms = [("ssl", arm) for arm in (_UNTRAINED, *SSL_ARMS)] + [("supervised", arm) for arm in TIME_ARMS]
    pieces = [_Piece(arm, part, seed, scale) for seed in (seeds[:1] if smallest else seeds) for part, arm in arms]
    clips: dict[str, _Clips] = {}  # of the part at hand: those of both would be twice the memory

    def compute(piece: _Piece) -> dict[str, Any]:
        if piece.part not in clips:
            clips.clear()
            clips[piece.part] = _open_clips(scale, AGREEMENT[piece.part])
        options = options_of(piece.arm, piece.part, piece.seed, scale, clips[piece.part].folder)
        return _measured(options, clips[piece.part], device, train=piece.arm is not _UNTRAINED)

    with stop_requests() as stop, console.progress("trainings", len(pieces)) as progress:
        found = work_through(
            pieces,
            key=lambda piece: piece.key(device),
            compute=compute,
            store=ResultStore(cache_folder() / "proof-video-pretrain"),
            stop=stop,
            kept="finished trainings",
            share=share,
            name=lambda piece: f"{piece.arm.name} from seed {piece.seed}",
            heard=lambda piece, _: progress.advance(1, f"{piece.arm.name}, seed {piece.seed}"),
        )
    return [Result(piece.arm.name, piece.seed, scores) for piece, scores in zip(pieces, found, strict=True)]


@dataclass(frozen=True)
class _Piece:
    """One training: an arm of a part, `ssl` or `supervised`."""

    arm: Arm
    part: str
    seed: int
    scale: Scale

    def key(self, device: torch.device) -> str:
        options = options_of(self.arm, self.part, self.seed, self.scale, Path("clips"))
        told = {name: str(value) for name, value in options.as_config().items()}
        about = {"version": _VERSION, "scale": asdict(self.scale), "device": device.type}
        return content_key({**about, "arm": self.arm.name, "part": self.part, "options": told})


def options_of(arm: Arm, objective: str, seed: int, scale: Scale, folder: Path) -> VideoOptions:
    """The options of a training, as the command would resolve them."""
    epochs = scale.ssl_epochs if objective == "ssl" else scale.supervised_epochs
    recipe = RECIPES[f"digits-{objective}"]
    return VideoOptions(
        **{
            **recipe,
            **arm.sets,
            "data": str(folder / "train.csv"),
            "val": str(folder / "val.csv"),
            "epochs": epochs,
            "warmup": min(float(recipe.get("warmup", 0.0)), epochs / 2),
            "seed": seed,
            "workers": 0,
            "in_memory": True,
            "precision": "fp32",
        }
    )


@dataclass(frozen=True, eq=False)
class _Clips:
    """Decoded splits of one dataset, shared by all trainings on it."""

    folder: Path
    sets: Mapping[str, tuple[VideoSet, ClipSource]]
    families: Mapping[str, list[int]]

    def data(self) -> Data:
        """As a training takes it."""
        (train, source), (val, other) = self.sets["train"], self.sets["val"]
        return Data(train, val, source, other)


def _measured(options: VideoOptions, clips: _Clips, device: torch.device, *, train: bool = True) -> dict[str, float]:
    """Train as the options say and measure on every split."""
    quiet, world = Console(quiet=True), World(0, 1, 0, device)
    training = prepare(options, clips.data(), world, quiet)
    if train:
        fit(
            training.model,
            training.objective,
            training.batches,
            training.optimizer,
            plan=training.plan,
            device=device,
            seed=options.seed,
            scheduler=training.scheduler,
            evaluate=None,
            checkpoints=None,
            metrics=None,
            console=quiet,
            world=world,
        )
    model = training.model.to(device)
    head = model.head if isinstance(model, ClassifiedVideo) else None
    looker = Looker(model.backbone, head, device)
    views = test_views(options)
    found = {name: looker.look(source, views, quiet) for name, (_, source) in clips.sets.items()}
    if head is not None:
        return {
            name: answers_of(found[name], _scores(found[name]), clips.sets[name][0].labels).top1
            for name in ("val", "val-iid", "train")
        }
    return _probed(found, clips)


def _probed(found: Mapping[str, Found], clips: _Clips) -> dict[str, float]:
    """Linear and nearest-neighbour answers from clips whose background says nothing, and from the training clips."""
    labels = {name: videos.labels for name, (videos, _) in clips.sets.items()}
    scores: dict[str, float] = {}
    for bank_name, suffix in (("probe", ""), ("train", ", biased probe")):
        bank = Bank(found[bank_name], labels[bank_name], _CLASSES)
        probe = fit_probe(bank.found.features, bank.targets, classes=_CLASSES)
        for test in ("val", "val-iid"):
            answers = answers_of(found[test], probe.probabilities(found[test].features), labels[test])
            scores[f"linear{suffix}, {test}"] = answers.top1
        if bank_name == "probe":
            for test in ("val", "val-iid"):
                votes = by_neighbours(found[test], bank, k=20, temperature=0.07)
                scores[f"kNN, {test}"] = answers_of(found[test], votes, labels[test]).top1
    families = Bank(found["probe"], clips.families["probe"], _CLASSES)
    probe = fit_probe(families.found.features, families.targets, classes=_CLASSES)
    answers = answers_of(found["val"], probe.probabilities(found["val"].features), clips.families["val"])
    return {**scores, "background, val": answers.top1}


def _open_clips(scale: Scale, exceptions: int) -> _Clips:
    """Build, or open, the clips of a proof, decoded."""
    counts = {"train": scale.train, "val": scale.test, "val_iid": scale.test, "probe": scale.test}
    key = content_key({"version": _VERSION, "exceptions": exceptions, **counts})
    folder = cache_folder() / "proof-video-pretrain" / f"clips-{key}"
    make_folder(folder.parent)
    with lock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            temporary = folder.with_name(f".{uuid4().hex}")
            make_folder(temporary)
            try:
                with disk_errors(folder):
                    build_moving_digits(temporary, **counts, exceptions=exceptions)
                    temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    quiet, sets = Console(quiet=True), {}
    for name in ("train", "val", "val-iid", "probe"):
        videos, _ = open_videos(folder / f"{name}.csv", console=quiet)
        source = ClipSource(videos.videos, VideoDecoder())
        source.keep_all(quiet)
        sets[name] = (videos, source)
    described = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    families = {name: [clip["family"] for clip in described[name]] for name in sets}
    return _Clips(folder, sets, families)


def _scores(found: Found) -> np.ndarray[Any, Any]:
    if found.scores is None:
        raise ValueError("the network has no classes")
    return found.scores


def _of(results: Sequence[Result], arm: str, measure: str) -> list[float]:
    return [result.scores[measure] for result in results if result.arm == arm and measure in result.scores]


def _ssl_table(results: Sequence[Result], seeds: Sequence[int]) -> Table:
    measures = ("linear, val", "kNN, val", "linear, val-iid", "linear, biased probe, val", "background, val")
    rows = [
        (name, *(_told(_of(results, name, measure)) for measure in measures))
        for name in (RANDOM, *(arm.name for arm in SSL_ARMS))
    ]
    columns = ("pretraining", "linear", "kNN", "linear, val-iid", "linear, biased probe", "which background")
    caption = f"Right answers on frozen features, %, mean and standard deviation of {len(seeds)} seeds, chance 25"
    return Table(columns, rows, caption)


def _time_table(results: Sequence[Result], seeds: Sequence[int]) -> Table:
    rows = [
        (
            arm.name,
            *(f"{100 * value:.1f}" for value in _of(results, arm.name, "val")),
            *(_told(_of(results, arm.name, measure)) for measure in ("val", "val-iid", "train")),
        )
        for arm in TIME_ARMS
    ]
    columns = ("training", *(f"seed {seed}" for seed in seeds), "val", "val-iid", "train")
    return Table(columns, rows, "Right answers of the classes, %; val-iid keeps the background's cue")


def _told(values: Sequence[float]) -> str:
    spread = f" ({100 * stdev(values):.1f})" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def _claims(results: Sequence[Result], seeds: Sequence[int]) -> list[Claim]:
    freqaug = _gains(results, SSL_ARMS[1].name, SIMCLR.name, "linear, val")
    control = _gains(results, SSL_ARMS[3].name, SIMCLR.name, "linear, val")
    temporal = _gains(results, TIME_ARMS[1].name, CLASSES.name, "val")
    each = ", ".join
    return [
        Claim(
            "FreqAug along time is worth more than SimCLR alone, linear",
            f"at least {100 * FREQAUG_GAIN:g} points, on the mean of {len(seeds)} seeds",
            f"{100 * mean(freqaug):+.1f} points ({each(f'{100 * gain:+.1f}' for gain in freqaug)})",
            mean(freqaug) >= FREQAUG_GAIN,
        ),
        Claim(
            "It is the high-pass that does it: a low-pass is worth less",
            "below FreqAug's gain",
            f"{100 * mean(control):+.1f} points",
            mean(control) < mean(freqaug),
        ),
        Claim(
            "The temporal losses are worth more than the classes alone",
            f"at least {100 * TIME_GAIN:g} points, on the mean of {len(seeds)} seeds",
            f"{100 * mean(temporal):+.1f} points ({each(f'{100 * gain:+.1f}' for gain in temporal)})",
            mean(temporal) >= TIME_GAIN,
        ),
    ]


def _gains(results: Sequence[Result], arm: str, baseline: str, measure: str) -> list[float]:
    pairs = zip(_of(results, arm, measure), _of(results, baseline, measure), strict=True)
    return [one - other for one, other in pairs]


def _draw(results: Sequence[Result], plots: Path) -> Path:
    rows = [(arm, "linear, val") for arm in SSL_ARMS] + [(arm, "val") for arm in TIME_ARMS]
    ours = {SSL_ARMS[1].name, SSL_ARMS[2].name, TIME_ARMS[1].name}
    points = [
        Points(arm.name, 100 * np.array(_of(results, arm.name, measure)), arm.name in ours) for arm, measure in rows
    ]
    title = "Right answers where the background says nothing"
    return draw_points(plots / "arms", points, title=title, x_label="linear probe, or classes, %").png
