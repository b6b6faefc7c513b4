"""The verbs that look at a run and leave it as it is: `status`, `evaluate`, `predict`, `export`, `recipes`."""

from __future__ import annotations

from typing import Any

import torch

from vtk_cli.adapt.backbones import DIGITS
from vtk_cli.adapt.domain_lists import read_unlabelled
from vtk_cli.adapt.domain_norm import SOURCE, TARGET
from vtk_cli.adapt.domains import open_domains
from vtk_cli.adapt.export import PLAIN_DIGITS, save_plain
from vtk_cli.adapt.measuring import accuracy, doubted_labels, mean_class_accuracy
from vtk_cli.adapt.outcome import round_table, show_standing, standing_summary
from vtk_cli.adapt.pool import files_pool
from vtk_cli.adapt.preparation import Lab, domain_images
from vtk_cli.adapt.published_checkpoints import save_published
from vtk_cli.adapt.rounds import bought, learner_at
from vtk_cli.adapt.run_files import csv_text
from vtk_cli.adapt.scoreboard import metrics_of, outputs_of
from vtk_cli.adapt.session import Session, look_at
from vtk_cli.adapt.state import divide, next_command
from vtk_cli.adapt.verb_options import (
    EvaluateOptions,
    ExportOptions,
    PredictOptions,
    StatusOptions,
)
from vtk_cli.console import Console
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import write_text

MODEL = "model.safetensors"


def status(options: StatusOptions, console: Console) -> ExitCode:
    """Print where a run stands.

    Raises:
        UserError: there is no such run.
    """
    session = look_at(options.run)
    summary = standing_summary(session.files, session.state, session.rows, session.pool)
    show_standing(summary, console)
    if options.suspicious:
        doubted = _doubted(session, options, console)
        shown = [(one["sample_id"], one["label"], one["model"], f"{one['probability']:.3f}") for one in doubted]
        console.table("Labels to look at again", ("image", "label", "the model says", "p of the label"), shown)
        summary["suspicious"] = doubted
    console.emit(summary)
    return ExitCode.DONE


def evaluate(options: EvaluateOptions, console: Console) -> ExitCode:
    """Measure the model of a run as it is, on its own target or on other labelled images.

    Raises:
        UserError: there is no run, no model yet, or the images do not fit it.
    """
    session = look_at(options.run)
    lab = session.lab(console, options.device)
    learner = learner_at(lab, session.files, _model(session))
    summary: dict[str, Any]
    if options.data is None:
        part = divide(session.state, session.rows, session.pool)
        found = metrics_of(lab, learner, part, session.rows)
        last = session.state.history[-1].strategy if session.state.history else ""
        row = {"round": session.state.round, "labels": session.state.budget.used, "strategy": last, **found}
        console.table(f"{session.name} now", *round_table([row]))
        classes = {"target without label": "class_acc_pool_unlabelled", "test": "class_acc_test"}
        means = [(name, f"{found[key]:.1f}") for name, key in classes.items() if found.get(key) is not None]
        if means:
            console.table("Means of the classes' accuracies", ("on", "%"), means)
        summary = row
    else:
        domains = open_domains(
            None, options.data, console=console, root=options.root, class_names=lab.class_names, seed=lab.options.seed
        )
        if not domains.is_labelled:
            raise UserError(
                "not every image has a label", f"--data {options.data}", "label it, or use vtk adapt predict"
            )
        labels = torch.tensor([domains.truth[name] for name in domains.pool.ids], dtype=torch.int64)
        outputs = outputs_of(lab, learner, domain_images(domains.pool, lab, learner.network.pixels))
        summary = {
            "data": options.data,
            "images": len(labels),
            "accuracy": accuracy(outputs.logits, labels),
            "class_accuracy": mean_class_accuracy(outputs.logits, labels),
        }
        shown = [(name, f"{value:.1f}" if isinstance(value, float) else value) for name, value in summary.items()]
        console.table("Accuracy, %", ("", "value"), shown)
    console.emit(summary)
    return ExitCode.DONE


def predict(options: PredictOptions, console: Console) -> ExitCode:
    """Write a class and its probability for every image of a folder.

    Raises:
        UserError: there is no run, no model yet, or no image.
    """
    if options.images is None:
        raise UserError("which images?", "IMAGES", "name a folder of images")
    session = look_at(options.run)
    lab = session.lab(console, options.device)
    learner = learner_at(lab, session.files, _model(session))
    listed = read_unlabelled(options.images, console)
    pool = files_pool(str(options.images), listed.root, tuple(listed.labels))
    chances = outputs_of(lab, learner, domain_images(pool, lab, learner.network.pixels)).logits.softmax(dim=1)
    best = chances.max(dim=1)
    rows = [
        (name, lab.class_names[number], f"{value:.6g}")
        for name, number, value in zip(pool.ids, best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    write_text(options.to, csv_text([("path", "label", "probability"), *rows]))
    console.text(f"{len(rows):,} images: {options.to}")
    console.emit({"images": len(rows), "table": str(options.to)})
    return ExitCode.DONE


def export(options: ExportOptions, console: Console) -> ExitCode:
    """Write the adapted network for others.

    Raises:
        UserError: there is no run, no model yet, or the network has no such form.
    """
    session = look_at(options.run)
    lab = session.lab(Console(quiet=True), "cpu")
    network = learner_at(lab, session.files, _model(session)).network
    if options.published:
        folder = options.to or session.files.folder / "published"
        save_published(network, folder)
        console.text(f"FE.pt and CLS.pt are in {folder}")
        console.emit({"folder": str(folder), "round": session.state.round})
        return ExitCode.DONE
    path = options.to or session.files.folder / MODEL
    if path.suffix != ".safetensors":
        raise UserError("is no safetensors file", str(path), "name a file that ends in .safetensors")
    note = {"adapted_from": lab.options.name, "recipe": lab.options.recipe, "round": str(session.state.round)}
    save_plain(path, network, lab.class_names, note, SOURCE if options.source_norm else TARGET)
    console.text(f"Written to {path}: {network.origin.architecture} of round {session.state.round}")
    if network.origin.architecture == DIGITS:
        console.text(f"To use it, give {PLAIN_DIGITS}={path} as the model")
    console.emit({"model": str(path), "architecture": network.origin.architecture, "round": session.state.round})
    return ExitCode.DONE


def _model(session: Session) -> str:
    if session.state.model is None:
        fix = f"next: {next_command(session.state, session.name)}"
        raise UserError("there is no model yet", session.name, fix)
    return session.state.model


def _doubted(session: Session, options: StatusOptions, console: Console) -> list[dict[str, Any]]:
    """The labels that the model believes least: those it would give itself are left out."""
    part = divide(session.state, session.rows, session.pool)
    if not part.labelled:
        return []
    lab: Lab = session.lab(console, options.device)
    learner = learner_at(lab, session.files, _model(session))
    labelled, names = bought(lab, part), list(part.labelled)
    logits = outputs_of(lab, learner, lab.target, labelled.rows).logits
    chances = logits.softmax(dim=1)
    return [
        {
            "sample_id": names[at],
            "path": lab.pool.path(names[at]),
            "label": part.labelled[names[at]],
            "model": lab.class_names[int(chances[at].argmax())],
            "probability": float(chances[at, labelled.labels[at]]),
        }
        for at in doubted_labels(logits, labelled.labels, options.suspicious)
    ]
