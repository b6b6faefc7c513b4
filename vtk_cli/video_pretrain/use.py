"""What is done with a trained network: it is evaluated by a protocol, or names the classes of videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vtk_cli.console import Console
from vtk_cli.data.inputs import find_inputs
from vtk_cli.data.video.clips import ClipSource
from vtk_cli.data.video.decoding import VideoDecoder
from vtk_cli.data.video.reading import check_backend
from vtk_cli.data.video.records import Short, VideoFile, is_video, parse_sampling
from vtk_cli.data.video.sets import VideoSet
from vtk_cli.engine.devices import resolve_device
from vtk_cli.engine.processes.distributed import World, join_world
from vtk_cli.engine.run_config import RunConfig
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import atomic_path, make_folder, require_folder, write_json
from vtk_cli.video_pretrain.command import PredictOptions
from vtk_cli.video_pretrain.data_options import MOVING_DIGITS
from vtk_cli.video_pretrain.eval_options import EvalOptions
from vtk_cli.video_pretrain.further_training import further_training
from vtk_cli.video_pretrain.job import train_video
from vtk_cli.video_pretrain.looking import Found, Looker
from vtk_cli.video_pretrain.named_videos import common_classes, named_videos
from vtk_cli.video_pretrain.protocols import Bank, answers_of, by_neighbours, probe_of, retrieval
from vtk_cli.video_pretrain.report import Story, percent, write_story
from vtk_cli.video_pretrain.samples import TestViews
from vtk_cli.video_pretrain.scores import Answers
from vtk_cli.video_pretrain.shortcuts import SHORTCUTS
from vtk_cli.video_pretrain.trained import SavedNetwork, open_network
from vtk_cli.video_pretrain.update_options import TestViewOptions

Judge = Callable[[Found], NDArray[Any]]
"""From what was found to class scores (n, K)."""


@dataclass(frozen=True, eq=False)
class Evaluating:
    """What every protocol works with."""

    options: EvalOptions
    saved: SavedNetwork
    train: VideoSet
    test: VideoSet
    train_source: ClipSource
    test_source: ClipSource
    looker: Looker
    views: TestViews
    world: World
    console: Console
    classes: tuple[str, ...]
    in_memory: bool

    def keep_in_memory(self, protocol: str) -> None:
        """Decode everything that the protocol looks at once, where the options ask for it."""
        if self.in_memory:
            for source in (self.test_source,) if protocol == "test" else (self.train_source, self.test_source):
                source.keep_all(self.console)

    def at_tests(self, change: Any = None, *, each: bool = False) -> Found:
        """What is found of the test videos."""
        return self.looker.look(
            self.test_source, self.views, self.console, change=change, each=each, title="looking at test videos"
        )

    def bank(self) -> Bank:
        """What is found of the training videos."""
        found = self.looker.look(self.train_source, self.views, self.console, title="looking at training videos")
        return Bank(found, self.train.labels, len(self.train.classes))


def evaluate_model(options: EvalOptions, console: Console) -> ExitCode:
    """Evaluate by the protocol that the options name.

    Raises:
        UserError: network, videos and protocol do not go together; or test videos are broken and --allow-missing is
            not given.
    """
    options.check()
    check_backend(options.backend)
    saved = open_network(options.model)
    protocol = options.protocol or ("test" if saved.head else "knn")
    if options.trains(protocol):
        return train_video(further_training(options, saved, protocol), console)
    if options.out is not None:
        require_folder(options.out)
        if RunConfig.read(options.out) is not None:
            raise UserError("holds a run, whose page would be lost", f"--out {options.out}", "choose another folder")
    with join_world(options.device) as world:
        work = _opened(options, saved, protocol, world, console if world.is_main else Console(quiet=True))
        if options.dry_run:
            world.on_main(lambda: show_plan(work, protocol))
            return ExitCode.DONE
        with closing(work.train_source), closing(work.test_source):
            work.keep_in_memory(protocol)
            found = work.at_tests(each=options.export is not None)
            world.on_main(lambda: _allow_missing(options, work, found))
            answers, extra = _answered(work, protocol, found)
            world.on_main(lambda: _tell(work, protocol, found, answers, extra))
    return ExitCode.DONE


def _tell(work: Evaluating, protocol: str, found: Found, answers: Answers | None, extra: Mapping[str, Any]) -> None:
    """Show and write what an evaluation by features or classes came to."""
    options, saved, console = work.options, work.saved, work.console
    if options.export is not None:
        export_features(options.export, work.test_source, found)
        extra = {**extra, "features": str(options.export)}
    title = f"{saved.config.name} on {work.test.name}, {protocol}"
    by = {"test": "classes", "knn": f"{options.knn_k} nearest neighbours", "linear": "linear probe"}.get(protocol, "")
    told = {name: percent(value) if isinstance(value, float) else str(value) for name, value in extra.items()}
    story = Story(options.out or Path(), title, answers, by, work.classes, extra=told, notes=saved.notes)
    summary: dict[str, Any] = {"protocol": protocol, "model": str(saved.path), "data": work.test.name}
    summary |= {} if answers is None else {"n": answers.n, **answers.scalars()}
    summary |= {**extra, "missing": len(found.missing)}
    summary["missing videos"] = {str(work.test.videos[index].path): why for index, why in found.missing.items()}
    console.table(title, ("", "value"), story.rows())
    if options.out is not None:
        make_folder(options.out)
        write_json(options.out / "evaluation.json", summary)
        console.text(f"Look at {write_story(story)}")
    console.emit(summary)


def predict_videos(options: PredictOptions, console: Console) -> ExitCode:
    """Name the likeliest classes of videos, and write their features.

    Raises:
        UserError: there is no video, the network has no classes and no features are asked for.
    """
    check_backend(options.backend)
    if not options.videos:
        raise UserError("no videos are named", "VIDEOS", "name videos, folders or patterns")
    files = [file for file in find_inputs(options.videos) if is_video(file.name)]
    if not files:
        raise UserError("no videos among these", "VIDEOS", "name videos, folders or patterns")
    saved = open_network(options.model)
    if not saved.head and not options.features:
        fix = "give --features, or a network that was trained with --objective supervised"
        raise UserError("the network has no classes", str(saved.path), fix)
    if options.out is not None:
        require_folder(options.out)
    videos = tuple(VideoFile(file, None, str(file)) for file in files)
    source = ClipSource(videos, VideoDecoder(options.backend, options.decode_timeout))
    views = views_of(saved, options, options.sampling, options.short)
    with closing(source):
        looker = _looker(saved, options, resolve_device(options.device), worker_count(options.workers))
        found = looker.look(source, views, console, each=options.features, title="looking at videos")
    rows, entries = _named(options, saved, videos, found)
    for index, why in found.missing.items():
        console.warn(f"{videos[index].path}: {why}")
    console.table(f"{saved.path} says", ("video", "classes"), rows)
    out = options.out or Path("predictions")
    make_folder(out)
    write_json(out / "predictions.json", entries)
    if options.features:
        export_features(out / "features.npz", source, found)
    console.text(f"Look at {out}")
    missing = [str(videos[index].path) for index in found.missing]
    console.emit({"videos": len(entries), "broken": missing, "folder": str(out), "predictions": entries})
    return ExitCode.DONE


def export_features(path: Path, source: ClipSource, found: Found) -> None:
    """Write `feat` (m, D), `path`, `start` and `end` (m,) of every view.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    if found.clips is None:
        raise ValueError("the views' features were not kept")
    paths = np.array([str(source.videos[index].path) for index in found.clips["index"].tolist()])
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        seconds = found.clips["seconds"]
        np.savez(stream, feat=found.clips["feat"], path=paths, start=seconds[:, 0], end=seconds[:, 1])


def views_of(saved: SavedNetwork, options: TestViewOptions, sampling: str | None, short: Short) -> TestViews:
    """How a network looks at videos in a test."""
    config = saved.config
    return TestViews(
        parse_sampling(sampling or config.sampling),
        options.test_clips,
        int(options.test_crops),
        options.test_scale or config.scale,
        config.side,
        options.views_offset,
        short,
        config.mean,
        config.std,
    )


def _answered(work: Evaluating, protocol: str, found: Found) -> tuple[Answers | None, dict[str, Any]]:
    """The answers of a protocol, and what else it says.

    All processes look at videos; what is made of their features then is made in the first.
    """
    options, labels, on_main = work.options, work.test.labels, work.world.on_main
    if protocol == "retrieval":
        bank = work.bank()
        recalls = on_main(lambda: retrieval(found, labels, bank))
        return None, {f"R@{k}": value for k, value in recalls.items()}
    judge = _judge(work, protocol)

    def judged(seen: Found) -> Answers:
        return on_main(lambda: answers_of(seen, judge(seen), labels))

    answers = judged(found)
    changes = SHORTCUTS.items() if options.shortcuts else ()
    return answers, {f"top-1, {name}": judged(work.at_tests(change)).top1 for name, change in changes}


def _judge(work: Evaluating, protocol: str) -> Judge:
    options = work.options
    if protocol == "test":
        return _scores
    bank = work.bank()
    if protocol == "knn":
        return lambda found: by_neighbours(found, bank, k=options.knn_k, temperature=options.knn_temperature)
    probe = work.world.on_main(lambda: probe_of(bank))
    return lambda found: probe.probabilities(found.features)


def _scores(found: Found) -> NDArray[Any]:
    if found.scores is None:
        raise ValueError("the network has no classes")
    return found.scores


def _opened(options: EvalOptions, saved: SavedNetwork, protocol: str, world: World, console: Console) -> Evaluating:
    """The videos and the network; of a list without test videos the classes are tested on all of it."""
    named = named_videos(options, saved)
    train, test = named.opened(console)
    if test is None and protocol == "test":
        test = train
    if test is None:
        raise UserError("has no test videos of its own", named.data, "name some with --val")
    if protocol != "test" and not train.labelled:
        raise UserError("the training videos have no labels", train.name, "label them, or give --protocol test")
    if not test.labelled:
        raise UserError(
            "the test videos have no labels", test.name, "label them; vtk video-pretrain predict does without"
        )
    if protocol == "test" and not saved.head:
        raise UserError("the network has no classes", str(saved.path), "give --protocol linear, knn ...")
    classes = common_classes(saved, test.classes) if protocol == "test" else train.classes
    train_source, test_source = (
        ClipSource(one.videos, VideoDecoder(options.backend, options.decode_timeout)) for one in (train, test)
    )
    in_memory = named.data == MOVING_DIGITS if options.in_memory is None else options.in_memory
    workers = 0 if in_memory and options.workers is None else worker_count(options.workers)
    looker = replace(_looker(saved, options, world.device, workers), world=world)
    if options.compile:
        saved.backbone.compile()
    views = views_of(saved, options, options.sampling, options.short)
    return Evaluating(
        options, saved, train, test, train_source, test_source, looker, views, world, console, classes, in_memory
    )


def show_plan(work: Evaluating, protocol: str) -> None:
    """Show what would be done; nothing is decoded or written."""
    looks = work.views
    summary: dict[str, Any] = {
        "network": work.saved.config.name,
        "weights": str(work.saved.path),
        "protocol": protocol,
        "training videos": 0 if protocol == "test" else len(work.train.videos),
        "test videos": len(work.test.videos),
        "classes": len(work.classes),
        "views of a video": looks.clips * looks.crops,
        "processes": max(work.world.size, work.options.nproc or 1),
        "written to": None if work.options.out is None else str(work.options.out),
    }
    work.console.table("Plan", ("", "value"), [(name, str(value or "-")) for name, value in summary.items()])
    work.console.emit(summary)


def _looker(saved: SavedNetwork, options: EvalOptions | PredictOptions, device: torch.device, workers: int) -> Looker:
    head = saved.class_layer()
    backbone = saved.backbone.to(device).eval()
    head = None if head is None else head.to(device)
    return Looker(backbone, head, device, options.precision, workers, options.ensemble)


def _allow_missing(options: EvalOptions, work: Evaluating, found: Found) -> None:
    if not found.missing:
        return
    first = next(iter(found.missing))
    where, why = work.test.videos[first].path, found.missing[first]
    what = f"{len(found.missing)} of {len(work.test.videos)} test videos cannot be decoded (first {where}: {why})"
    if not options.allow_missing:
        raise UserError(what, work.test.name, "mend the list, or leave them out with --allow-missing")
    work.console.warn(what)


def _named(
    options: PredictOptions, saved: SavedNetwork, videos: tuple[VideoFile, ...], found: Found
) -> tuple[list[tuple[str, str]], list[dict[str, Any]]]:
    """A row and an entry a video."""
    rows: list[tuple[str, str]] = []
    entries: list[dict[str, Any]] = []
    for place, index in enumerate(found.indices.tolist()):
        entry: dict[str, Any] = {"file": str(videos[index].path)}
        if found.scores is not None:
            best = np.argsort(-found.scores[place], kind="stable")[: options.top_k]
            entry["classes"] = [
                {"class": saved.classes[one], "score": float(found.scores[place, one])} for one in best.tolist()
            ]
            told = ", ".join(f"{one['class']} {one['score']:.2f}" for one in entry["classes"])
            rows.append((videos[index].path.name, told))
        else:
            rows.append((videos[index].path.name, "features"))
        entries.append(entry)
    return rows, entries
