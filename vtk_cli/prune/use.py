"""The verbs of `vtk prune` on what a search left: apply, info, verify, sample, export, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device, resolve_device
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import write_json
from vtk_cli.prune.data import open_data
from vtk_cli.prune.exports import export_generator, frozen_weights
from vtk_cli.prune.generator_file import save_generator
from vtk_cli.prune.generator_source import TICKET, open_generator
from vtk_cli.prune.metrics.quality import Quality, check_counts
from vtk_cli.prune.metrics.summaries import real_summary
from vtk_cli.prune.preparation import open_measure, picture_noise, report_noise
from vtk_cli.prune.rebuilding import fill_weights, rebuild
from vtk_cli.prune.samples import generated, write_image, write_sample_grid
from vtk_cli.prune.ticket import Ticket
from vtk_cli.prune.ticket_file import SUFFIX, read_ticket
from vtk_cli.prune.ticket_info import (
    LAYER_COLUMNS,
    NO_SPEED_UP,
    SIZE_COLUMNS,
    layer_rows,
    size_rows,
    sizes,
    summary,
    ticket_counts,
)
from vtk_cli.prune.trials import plain, quality_of
from vtk_cli.prune.verb_options import (
    ApplyOptions,
    EvaluateOptions,
    ExportVerbOptions,
    InfoOptions,
    SampleOptions,
    VerifyOptions,
)
from vtk_cli.prune.verification import verify

METRIC_COLUMNS = ("metric", "value")
RUNS = Path("runs", "prune-run")


def apply_ticket(options: ApplyOptions, console: Console) -> ExitCode:
    """Rebuild a ticket's network and write it.

    Raises:
        UserError: there is no ticket, or what is rebuilt is not what it was written from.
    """
    path = ticket_path(options.ticket)
    ticket = read_ticket(path)
    generator = rebuild(ticket, _theta_state(options.theta))
    target = options.out or path.with_suffix(".safetensors")
    if target.suffix != ".safetensors":
        raise UserError("is no safetensors file", f"--out {target}", "name a file that ends in .safetensors")
    save_generator(target, generator)
    counts = ticket_counts(ticket)
    console.text(f"Rebuilt {generator.name}: {counts.kept:,} of {counts.n:,} weights, SHA-256 {ticket.weights_sha256}")
    console.text(f"Written to {target}; look at its images: vtk prune sample {target}")
    console.emit(
        {"generator": str(target), "weights_sha256": ticket.weights_sha256, "kept": counts.kept, "n": counts.n}
    )
    return ExitCode.DONE


def show_ticket(options: InfoOptions, console: Console) -> ExitCode:
    """Print the tables of a ticket.

    Raises:
        UserError: there is no ticket.
    """
    path = ticket_path(options.ticket)
    ticket, size = read_ticket(path), path.stat().st_size
    arguments = ", ".join(f"{name} {value}" for name, value in ticket.generator.items() if name != "name")
    found_by = f"found by {ticket.algorithm}, seed {ticket.origin.seed}"
    console.text(f"{path}: {ticket.generator['name']} ({arguments}), {found_by}")
    title = f"Kept: {ticket.keep} by {ticket.scope}, structure {ticket.structure}"
    console.table(title, LAYER_COLUMNS, layer_rows(ticket))
    console.table("Sizes", SIZE_COLUMNS, size_rows(sizes(ticket, size)))
    console.text(NO_SPEED_UP)
    for warning in ticket_counts(ticket).warnings():
        console.warn(warning)
    if ticket.metrics:
        console.table("Measured", METRIC_COLUMNS, [(name, _said(value)) for name, value in ticket.metrics.items()])
    console.emit(summary(ticket, size))
    return ExitCode.DONE


def verify_ticket(options: VerifyOptions, console: Console) -> ExitCode:
    """Print what was looked at; whether all of it holds is the exit code.

    Raises:
        UserError: the file is no ticket, or was cut short or changed.
    """
    path = ticket_path(options.ticket)
    findings = verify(read_ticket(path), _theta_state(options.theta))
    rows = [(one.claim, "yes" if one.holds else "NO", one.found) for one in findings]
    console.table(str(path), ("claim", "holds", "found"), rows)
    holds = all(one.holds for one in findings)
    console.emit({"ticket": str(path), "holds": holds, "findings": [vars(one) for one in findings]})
    return ExitCode.DONE if holds else ExitCode.FAILED


def write_samples(options: SampleOptions, console: Console) -> ExitCode:
    """Write a grid of samples, and each by itself where asked.

    Raises:
        UserError: there is no generator.
    """
    device = resolve_device(options.device)
    generator = open_generator(_given(options.model), options.theta).to(device)
    noise = picture_noise(options.seed, generator.nz, options.count)
    images = torch.cat(list(generated(generator, noise, device=device)))
    write_sample_grid(options.out, images, options.columns)
    folder = options.out.with_suffix("")
    if options.single:
        for number, image in enumerate(images):
            write_image(folder / f"{number:05d}.png", image)
    console.text(f"{len(images)} samples of {generator.name}, seed {options.seed}: {options.out}")
    single = {"folder": str(folder)} if options.single else {}
    console.emit({"picture": str(options.out), "count": len(images), "seed": options.seed, **single})
    return ExitCode.DONE


def export_model(options: ExportVerbOptions, console: Console) -> ExitCode:
    """Write a generator in every form that was asked for.

    Raises:
        UserError: there is no generator, its weights have no such form, or a package is missing.
        JobError: what was read back is not what was written.
    """
    model = _given(options.model)
    generator = open_generator(model, options.theta)
    target = options.out or (model / "generator" if model.is_dir() else model.with_suffix(""))
    original = _before_masking(model, options.theta)
    written = [export_generator(generator, form.value, target, theta=original) for form in dict.fromkeys(options.form)]
    rows = [(one.form, str(one.path), f"{one.bytes:,}", f"{one.difference:.2g}") for one in written]
    console.table("Written, read back and compared", ("form", "file", "bytes", "largest difference"), rows)
    console.emit({"exports": [one.summary() for one in written]})
    return ExitCode.DONE


def evaluate_model(options: EvaluateOptions, console: Console) -> ExitCode:
    """Measure a generator on the images that are held out.

    Raises:
        UserError: generator, images and embedder do not go together, or there are too few images.
    """
    device = resolve_device(options.device)
    generator = open_generator(_given(options.model), options.theta).to(device)
    splits = open_data(
        options.data,
        size=generator.image_size,
        channels=generator.channels,
        eval_data=options.eval_data,
        holdout=options.holdout,
        console=console,
    )
    check_counts(len(splits.held_out), options.samples, options.embedder, options.neighbours)
    if options.dry_run:
        console.text(f"{options.samples:,} samples against {len(splits.held_out):,} images: {splits.held_out.name}")
        console.emit({"samples": options.samples, "images": len(splits.held_out), "config": options.as_config()})
        return ExitCode.DONE
    embedder = open_measure(options, generator.image_size, device, console)
    found = quality_of(
        generator,
        report_noise(options.seed, generator.nz, options.samples),
        real_summary(splits.held_out, embedder, console),
        embedder,
        k=options.neighbours,
        console=console,
    )
    about = {"model": str(options.model), "device": describe_device(device), "seed": options.seed}
    result = {**about, **plain(found.to_json())}
    console.table(found.described(), METRIC_COLUMNS, quality_rows(found))
    if options.out is not None:
        write_json(options.out / "evaluation.json", result)
    console.emit(result)
    return ExitCode.DONE


def quality_rows(found: Quality) -> list[tuple[str, str]]:
    """Name and value of each number."""
    shares = found.fidelity
    rows = [
        (found.distance_name, f"{found.frechet:.4g}"),
        (found.kernel_name, f"{found.kernel.mean:.4g} +- {found.kernel.std:.2g}"),
        (f"precision, k = {shares.k}", f"{shares.precision:.3f}"),
        (f"recall, k = {shares.k}", f"{shares.recall:.3f}"),
        (f"density, k = {shares.k}", f"{shares.density:.3f}"),
        (f"coverage, k = {shares.k}", f"{shares.coverage:.3f}"),
    ]
    if found.confidence is not None and found.class_entropy is not None:
        rows += [("confidence", f"{found.confidence:.3f}"), ("class entropy, nats", f"{found.class_entropy:.3f}")]
    return rows


def _said(value: Any) -> str:
    """A JSON value for people: `mean 37.76, std 8.899` for an object."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def ticket_path(given: Path | None) -> Path:
    """The ticket file that a path means: itself, that of a run folder, or without a path that of the newest run.

    Raises:
        UserError: the folder has none, or there is no finished run.
    """
    given = _given(given)
    if given.is_dir():
        if not (given / TICKET).is_file():
            raise UserError(f"holds no {TICKET}", str(given), "name a ticket, or the folder of a finished search")
        return given / TICKET
    return given


def _given(model: Path | None) -> Path:
    if model is None:
        return _newest()
    if not model.exists():
        raise UserError("no such file", str(model), "name a ticket, a weight file or the folder of a run")
    return model


def _newest() -> Path:
    found = sorted(RUNS.glob(f"*/{TICKET}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"there is no finished search in {RUNS}", "TICKET", "name a ticket or a run folder")
    return found[-1].parent


def _theta_state(theta: Path | None) -> dict[str, torch.Tensor] | None:
    return None if theta is None else dict(open_generator(theta).state_dict())


def _before_masking(model: Path, theta: Path | None) -> dict[str, torch.Tensor] | None:
    """The weights that a ticket selects from, by layer; None for other files."""
    file = ticket_path(model) if model.is_dir() and (model / TICKET).is_file() else model
    if file.suffix != SUFFIX:
        return None
    ticket: Ticket = read_ticket(file)
    generator = rebuild(ticket, given := _theta_state(theta))
    fill_weights(generator, ticket, given)
    return frozen_weights(generator)
