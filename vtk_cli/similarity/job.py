"""The story of `vtk similarity`, top to bottom.

Names become networks (published, or trained here on digits); every network answers every image, clean and under random
noise; each network is attacked once and every network answers the attacked images (a row); the rows become scores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import tomli_w
import torch

from vtk_cli.console import Console
from vtk_cli.engine.devices import resolve_device
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.signals import StopRequest, stop_requests
from vtk_cli.errors import ExitCode, JobError, UserError
from vtk_cli.files import Busy, cache_folder, remove_leftovers, require_folder
from vtk_cli.models.names import NetworkName, read_network_list
from vtk_cli.options import flag_name, option_fields
from vtk_cli.similarity import analysis
from vtk_cli.similarity.attack import Attack
from vtk_cli.similarity.command import (
    AnalysisOptions,
    ScaleOptions,
    SimilarityOptions,
)
from vtk_cli.similarity.digits_networks import DigitsNetwork, is_trained, parameter_count
from vtk_cli.similarity.examples import example_section
from vtk_cli.similarity.features import write_features
from vtk_cli.similarity.images import ImageSet, digits_images, folder_images
from vtk_cli.similarity.matrix_file import read_matrix_csv
from vtk_cli.similarity.members import (
    Member,
    Pool,
    file_member_for_digits,
    parse_members,
    planned_digits_network,
    trained_member,
    zoo_member,
)
from vtk_cli.similarity.outcome import assess, headline, result_sections
from vtk_cli.similarity.passes import Comparison, Passes, Settings
from vtk_cli.similarity.plan import Plan, show_plan
from vtk_cli.similarity.publish import Report, publish
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.section import plain
from vtk_cli.similarity.store import Store
from vtk_cli.similarity.summary import summary, write_tables

_WATCH_S = 0.2
"""How often the processes of `--devices` are looked after."""

Named = tuple[NetworkName, int]
"""A network and the seed it is trained from, if it is trained here."""

_MAY_CHANGE = {"networks", "list", "reference", "offline", "device", "batch-size", "checkpoint-seconds"} | {
    flag_name(field)
    for group in (AnalysisOptions, ScaleOptions)
    for field in set(option_fields(group)) - {"seed", "out"}
}
"""Options that may differ from an earlier run in the same folder: what was computed then is still true."""


def compare(options: SimilarityOptions, console: Console) -> ExitCode:
    """Compare networks: the whole command, a shard of it, or its plan."""
    asked = _names(options)
    named = asked + _references(options, asked)
    analysis.require_possible([name.label for name, _ in named], options)
    device = resolve_device(options.device)
    if options.dry_run:
        show_plan(_plan(options, named, device), console)
        return ExitCode.DONE
    if options.shard:
        return _work_on_shard(options, named, device, console)
    if options.devices:
        _work_on_devices(options, console)
    title = "-".join(name.label for name, _ in named[:3]) + (f"-and-{len(named) - 3}-more" if len(named) > 3 else "")
    with (
        RunFolder.open(
            "similarity",
            title,
            config=options.as_config(),
            out=options.out,
            console=console,
            seed=options.seed,
            device=str(device),
            may_change=_MAY_CHANGE if options.out else (),
        ) as run,
        stop_requests() as stop,
    ):

        def check() -> None:
            stop.raise_if_requested("finished rows")

        rows = _prepare(options, named, device, console, check)
        if options.merge:
            _require_finished(rows)
        result = assess(rows, eps_s=options.floor, resamples=options.resamples, seed=options.seed)
        features = analysis.wanted_features(rows, options)
        findings = [*analysis.sections(result, rows, features, options), example_section(rows)]
        about = _about(options)
        write_tables(result, run.path)
        if features:
            write_features(run.path / "features.csv", dict(zip(result.matrix.names, features, strict=True)))
        report = Report(
            headline(result, len(asked)),
            about,
            [*result_sections(result, rows.comparison.members), *findings],
            result.warnings,
            summary(result, findings, rows, about),
        )
        publish(report, run, console)
    return ExitCode.DONE


def analyse_matrix(options: SimilarityOptions, console: Console) -> ExitCode:
    """Analyse a matrix that was published or computed before; no network is touched."""
    source = Path(str(options.import_matrix))
    names, score = read_matrix_csv(source)
    analysis.require_possible(names, options)
    if options.dry_run:
        console.text(f"{len(names)} networks in {source}; run folder {options.out or 'runs/similarity/DATE-NAME'}")
        console.emit({"imported": str(source), "networks": list(names), "config": options.as_config()})
        return ExitCode.DONE
    with RunFolder.open(
        "similarity",
        source.stem,
        config=options.as_config(),
        out=options.out,
        console=console,
        seed=options.seed,
        device="none",
        may_change=_MAY_CHANGE if options.out else (),
    ) as run:
        sections = analysis.matrix_sections(names, score, options)
        data = {section.key: plain(section.data) for section in sections}
        content = {"imported": str(source), "networks": list(names), "sat": plain(score), **data}
        publish(Report(f"{len(names)} networks", f"Scores from {source}", sections, [], content), run, console)
    return ExitCode.DONE


def _names(options: SimilarityOptions) -> list[Named]:
    listed = [name.spec for name in read_network_list(options.list)] if options.list else []
    parsed = parse_members([*options.networks, *listed])
    for name, seed in parsed:
        if seed is not None and not (options.on_digits and name.kind == "timm"):
            raise UserError(f"{name.label} is not trained here, so it has no seed", fix=f"leave out @{seed}")
    return [(name, options.seed if seed is None else seed) for name, seed in parsed]


def _references(options: SimilarityOptions, asked: list[Named]) -> list[Named]:
    """With `--reference`, what is trained here once more from another seed."""
    other, labels = options.seed + 1, {name.label for name, _ in asked}
    if not options.reference:
        return []
    again = [(dataclasses.replace(name, label=f"{name.label}@{other}"), seed) for name, seed in asked]
    return [(name, other) for name, seed in again if name.kind == "timm" and seed != other and name.label not in labels]


def _prepare(
    options: SimilarityOptions, named: list[Named], device: torch.device, console: Console, check: Callable[[], None]
) -> Rows:
    """Load or train the networks, open the images, settle the labels."""
    store = _store(options)
    require_folder(store.folder)
    remove_leftovers(store.folder)
    images = _images(options, console)
    members = []
    for make in [_planned(options, name, seed, device, console) for name, seed in named]:
        check()  # a training heeds only signals that come while it runs
        members.append(make())
    for one, other in itertools.combinations(members, 2):
        if one.key == other.key:
            console.note(f"{one.label} and {other.label} are the same network: SAT is ln 100 if every attack succeeds")
    settings = Settings(
        attack=Attack(
            options.attack, options.eps, options.steps, options.step, options.random_start, seed=options.seed
        ),
        batch_size=options.batch_size,
        attack_precision=options.attack_precision,
        precision=options.precision,
        protocol=options.protocol,
        keep_images=options.cache_adv,
    )
    passes = Passes(Pool(members, device), store, settings, device, console, check)
    comparison = passes.compare(members, images)
    _require_sense(comparison)
    return Rows(passes, comparison)


def _store(options: SimilarityOptions) -> Store:
    return Store(options.store or cache_folder() / "similarity")


def _images(options: SimilarityOptions, console: Console) -> ImageSet:
    if options.on_digits:
        return digits_images(options.images)
    return folder_images(
        Path(options.data),
        labels=options.labels,
        class_map=options.class_map,
        limit=options.images,
        seed=options.seed,
        console=console,
    )


def _planned(
    options: SimilarityOptions, name: NetworkName, seed: int, device: torch.device, console: Console
) -> Callable[[], Member]:
    """What makes a member; a name that cannot be trained, or a wrong file, is refused now: before any training."""
    if options.on_digits and name.kind == "file":
        member = file_member_for_digits(name, device)
        return lambda: member
    if options.on_digits:
        network = _to_train(options, name, seed)
        return partial(trained_member, name, network, device, console, options.checkpoint_seconds)
    return partial(zoo_member, name, weights=options.weights, offline=options.offline, device=device)


def _to_train(options: SimilarityOptions, name: NetworkName, seed: int) -> DigitsNetwork:
    return planned_digits_network(name, seed, quick=options.quick, epochs=options.epochs)


def _require_sense(comparison: Comparison) -> None:
    """Stop where the labels cannot be those of the networks.

    Raises:
        UserError: nothing is classified correctly, or hardly more than by chance.
    """
    accuracy, classes = comparison.correct.mean(axis=1), comparison.logits.shape[2]
    fix = "check the order of the classes (--class-map FILE.json) and the weights"
    if not accuracy.any():
        names = " and ".join(comparison.names) if len(accuracy) == 2 else f"all {len(accuracy)} networks"
        raise UserError(f"{names} classify nothing correctly, so no SAT can be computed", comparison.images.name, fix)
    needed = min(5.0, 1.0 + 0.2 * (classes - 1)) / classes  # five times chance, less where classes are few
    for member, reached in zip(comparison.members, accuracy, strict=True):
        # A network trained here on the very classes may be weak, but its labels are right.
        if reached < needed and comparison.images.labels is not None and not member.is_trained_here:
            raise UserError(
                f"{member.label} is right on {100 * reached:.1f} % of the images, chance is {100 / classes:.1f} %:"
                " the labels do not match its head",
                comparison.images.name,
                fix,
            )


def _work_on_shard(options: SimilarityOptions, named: list[Named], device: torch.device, console: Console) -> ExitCode:
    """Compute some rows into the store; any number of such processes may run at once."""
    with stop_requests() as stop:
        rows = _prepare(options, named, device, console, lambda: stop.raise_if_requested("finished rows"))
        index, count = options.shard_numbers or (0, 1)
        mine = range(index, len(named), count)
        for source in mine:
            busy = contextlib.suppress(Busy) if options.shard == "queue" else contextlib.nullcontext()
            with busy:
                rows.row(source, wait=options.shard != "queue")
    finished = [rows.comparison.names[source] for source in mine if rows.is_finished(source)]
    console.text(f"shard {options.shard}: {len(finished)} rows are finished; assemble them with --merge")
    console.emit({"shard": options.shard, "finished": finished, "attacks": rows.work.attacks})
    return ExitCode.DONE


def _work_on_devices(options: SimilarityOptions, console: Console) -> None:
    """Start this command once a device, each taking rows that no other process works on, and wait for all."""
    devices = [f"cuda:{name}" if name.isdecimal() else name for name in str(options.devices).split(",")]
    for device in devices:
        resolve_device(device)
    settings = options.as_config() | {"shard": "queue"}
    for ours in ("devices", "device", "out"):
        settings.pop(ours, None)
    with tempfile.NamedTemporaryFile("wb", suffix=".toml") as config:
        tomli_w.dump(settings, config)
        config.flush()
        command = [sys.executable, "-m", "vtk_cli", "similarity", "--config", config.name, "--quiet"]
        with stop_requests() as stop:
            workers = [
                subprocess.Popen([*command, "--device", device], stdout=subprocess.DEVNULL) for device in devices
            ]
            console.note(f"{len(workers)} processes at work on {', '.join(devices)}")
            _wait_for(workers, stop)
    failed = [device for device, worker in zip(devices, workers, strict=True) if worker.returncode != 0]
    if failed:
        raise JobError(f"the process on {failed[0]} failed; finished rows are kept: run the same command again")


def _wait_for(workers: Sequence[subprocess.Popen[bytes]], stop: StopRequest) -> None:
    """Wait for all to end; when this process is asked to stop, they are, and nobody is left behind."""
    while stop.signal is None and any(worker.poll() is None for worker in workers):
        time.sleep(_WATCH_S)
    if stop.signal is not None:
        for worker in workers:
            worker.terminate()
    for worker in workers:
        worker.wait()
    stop.raise_if_requested("finished rows")


def _require_finished(rows: Rows) -> None:
    names = rows.comparison.names
    missing = [name for source, name in enumerate(names) if not rows.is_finished(source)]
    if missing:
        listed = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise UserError(
            f"{len(missing)} of {len(names)} rows are missing: {listed}", "--merge", "run their shards first"
        )


def _about(options: SimilarityOptions) -> str:
    """What the numbers rest on, in a sentence."""
    if not options.on_digits:
        return f"Images from {options.data}, {options.preset} attack, {options.weights} weights."
    if options.quick:
        return (
            "Stand-ins at digits scale (ResNet layouts at 1/4 width, ViTs of dim 192 and 4 blocks), trained here on the"
            " embedded digits, not ImageNet weights."
        )
    return "The real networks at 32 x 32 pixels, trained here on the embedded digits, not ImageNet weights."


def _plan(options: SimilarityOptions, named: list[Named], device: torch.device) -> Plan:
    networks: list[tuple[str, str, str, float | None]] = []
    for name, seed in named:
        if not options.on_digits or name.kind == "file":
            networks.append((name.label, name.tagged, "a file" if name.kind == "file" else "published", None))
            continue
        network = _to_train(options, name, seed)
        weights = "trained here on digits: " + ("in the cache" if is_trained(network) else "to be trained")
        networks.append((name.label, name.name, weights, parameter_count(network) / 1e6))
    images = len(_images(options, Console(quiet=True)))
    return Plan(networks, images, str(device), _store(options).folder, options)
