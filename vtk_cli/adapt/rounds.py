"""A run's steps on its folder: the source, a question, a round of training. Each can be stopped and made again.

A step reads the state and the ledger, writes what it makes, and the state last: whoever comes after a kill finds the
state before, and makes the step again from the stages' own checkpoints to the same end.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from vtk_cli.adapt.audit import draw_audit
from vtk_cli.adapt.budget import parse_budget, plan_rounds
from vtk_cli.adapt.domains import Unreadable
from vtk_cli.adapt.learner import Learner, load_learner, save_learner
from vtk_cli.adapt.ledger import LabelRow, Partition
from vtk_cli.adapt.manifest import make_manifest, write_manifest
from vtk_cli.adapt.network_file import open_network, save_network
from vtk_cli.adapt.networks import DomainNetwork
from vtk_cli.adapt.options import AdaptOptions
from vtk_cli.adapt.preparation import Lab, first_network, open_lab, read_domains
from vtk_cli.adapt.run_files import RunFiles, save_state, write_classes
from vtk_cli.adapt.scoreboard import metrics_of, put_metrics
from vtk_cli.adapt.source_stage import begin_target, train_source
from vtk_cli.adapt.stages import Labelled, StageOutcome, adapt_jointly, adapt_to_labelled, adapt_to_unlabelled
from vtk_cli.adapt.state import AdaptState, check_invariants, divide, new_state, source_ready, trained
from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import World
from vtk_cli.errors import UserError
from vtk_cli.files import content_key, lock, make_folder, write_json

SOURCE_NETWORK, UNREADABLE = "source.safetensors", "unreadable.json"
_BEGUN = "begun.json"


def plan_run(options: AdaptOptions, pool: int, classes: int, console: Console) -> tuple[int, int]:
    """Labels in all, and rounds.

    Raises:
        UserError: the budget cannot be read, or is more than the pool has.
    """
    budget = options.budget
    if options.per_round is not None:
        budget = str(parse_budget(options.per_round, pool, where="--per-round") * options.rounds)
    return plan_rounds(budget, pool, options.rounds, classes, console)


def begin(
    options: AdaptOptions,
    files: RunFiles,
    console: Console,
    *,
    shared: Path | None = None,
    world: World | None = None,
) -> tuple[Lab, AdaptState]:
    """The first step: look at the data, train on the source, make ready for the target.

    Args:
        options: of the run.
        files: its folder.
        console: shows the progress.
        shared: a file for the network of the source, where several runs begin with the same; None: no such file.
        world: this process among those that train together; None: it is alone.

    Raises:
        UserError: data and options do not go together.
        JobError, Preempted, KeyboardInterrupt: as `train_source`.
    """
    domains, unreadable = read_domains(options, console, world=world)
    total, rounds = plan_run(options, len(domains.pool), len(domains.class_names), console)
    audit = draw_audit(domains.pool.ids, options.audit, options.seed)
    if total > len(domains.pool) - len(audit):
        what = f"a budget of {total} and an audit of {len(audit)} are more than the {len(domains.pool)} images"
        raise UserError(what, "--audit", "give less of one of them")
    network, knows_source = first_network(options, domains.class_names, console)
    lab = open_lab(options, domains, network.pixels, console, world=world)
    processes = lab.circumstances.processes

    def write_down() -> AdaptState:
        manifest = make_manifest(domains.pool, console)
        new = new_state(
            total=total,
            rounds=rounds,
            strategy=options.query,
            recipe=options.recipe,
            seed=options.seed,
            manifest_sha1=manifest.sha1,
            audit=audit,
        )
        make_folder(files.folder)
        write_manifest(files.manifest, manifest)
        write_classes(files, domains.class_names)
        write_json(files.folder / UNREADABLE, [asdict(one) for one in unreadable])
        save_state(files, new)
        if knows_source:
            save_network(files.folder / SOURCE_NETWORK, network, domains.class_names)
        return new

    state = processes.on_main(write_down)
    if not knows_source:
        network = _source_network(lab, files, network, shared)

    def end() -> AdaptState:
        begin_target(network, lab.target, start=options.target_bn_init, circumstances=lab.circumstances)
        save_learner(files.model(None), lab.learner(network))
        ready = source_ready(state, files.relative(files.model(None)))
        save_state(files, ready)
        shutil.rmtree(files.folder / "checkpoints", ignore_errors=True)
        return ready

    return lab, processes.on_main(end)


def read_unreadable(files: RunFiles) -> tuple[Unreadable, ...]:
    """The images that were left out at the start of a run."""
    try:
        return tuple(Unreadable(**one) for one in json.loads((files.folder / UNREADABLE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot be read ({error})", str(files.folder / UNREADABLE), "restore the file") from error


def learner_at(lab: Lab, files: RunFiles, model: str | None) -> Learner:
    """What learns, as it was when the file `model` was written.

    Raises:
        UserError: the file is missing, damaged or of another network.
    """
    network, _ = open_network(files.folder / SOURCE_NETWORK, lab.circumstances.console)
    learner = lab.learner(network.to(lab.circumstances.device))
    load_learner(files.folder / (model or ""), learner)
    return learner


def train_round(lab: Lab, files: RunFiles, state: AdaptState, rows: Sequence[LabelRow]) -> AdaptState:
    """Train on a round's answers, round 0 without any; measure; write it all down.

    Args:
        lab: of the run.
        files: its folder.
        state: with every answer that there will be.
        rows: of the ledger.

    Returns:
        The state after it, which is on disk.

    Raises:
        UserError, JobError, Preempted, KeyboardInterrupt: as the stages.
    """
    number, ids, world = state.round, lab.pool.ids, lab.circumstances.processes
    learner = learner_at(lab, files, state.model)
    part = divide(state, rows, ids)
    folder = files.folder / "checkpoints" / f"round_{number:02d}"
    world.on_main(lambda: _begin_anew_where_changed(folder, state, part))
    last = _stages(lab, learner, part, state, folder)
    after = trained(state, rows, ids, files.relative(files.model(number)))
    check_invariants(after, rows, ids)
    row = {"round": number, "labels": after.budget.used, "strategy": after.history[-1].strategy}
    row |= metrics_of(lab, learner, divide(after, rows, ids), rows, last)

    def write_down() -> None:
        save_learner(files.model(number), learner, {"round": number})
        put_metrics(files, row)
        save_state(files, after)
        shutil.rmtree(folder, ignore_errors=True)

    world.on_main(write_down)
    return after


def _stages(lab: Lab, learner: Learner, part: Partition, state: AdaptState, folder: Path) -> StageOutcome | None:
    """The stages of a round by the recipe; what came of the unlabelled one."""
    recipe, number, here = lab.options.recipe, state.round, lab.circumstances
    labelled = bought(lab, part)
    if recipe == "joint":
        if number and lab.source is not None:
            adapt_jointly(
                learner, lab.source, lab.source_labels, lab.target, labelled, round_number=number, method=lab.method,
                place=folder / "joint", circumstances=here,
            )  # fmt: skip
        return None
    if number:
        adapt_to_labelled(
            learner, lab.target, labelled, round_number=number, asked=len(state.history[-1].asked), method=lab.method,
            place=folder / "labelled", circumstances=here,
        )  # fmt: skip
    if recipe == "labelled":
        return None
    return adapt_to_unlabelled(
        learner, lab.target, sorted(lab.pool.rows(part.without_label)), round_number=number, labelled=labelled,
        source=lab.source, method=lab.method, place=folder / "unlabelled", circumstances=here,
    )  # fmt: skip


def bought(lab: Lab, part: Partition) -> Labelled:
    """The images that may be trained on with their labels: those of the ledger, and no others."""
    numbers = {name: number for number, name in enumerate(lab.class_names)}
    labels = torch.tensor([numbers[label] for label in part.labelled.values()], dtype=torch.int64)
    return Labelled(tuple(lab.pool.rows(part.labelled)), labels)


def _begin_anew_where_changed(folder: Path, state: AdaptState, part: Partition) -> None:
    """Forget stages that were begun and stopped where labels came in since."""
    key = content_key({"labelled": dict(part.labelled), "rest": list(part.without_label), "model": state.model})
    begun = folder / _BEGUN
    if folder.exists() and not (begun.is_file() and begun.read_text(encoding="utf-8").strip() == f'"{key}"'):
        shutil.rmtree(folder)
    write_json(begun, key)


def _source_network(lab: Lab, files: RunFiles, network: DomainNetwork, shared: Path | None) -> DomainNetwork:
    """The network after its training on the source: from the file, or trained and written to it."""
    kept = files.folder / SOURCE_NETWORK
    if shared is None:
        return _trained(lab, kept, network, files.folder / "checkpoints" / "source")
    with lock(shared.with_suffix(".lock")):
        found = _trained(lab, shared, network, shared.with_suffix(""))
    save_network(kept, found, lab.class_names)
    return found


def _trained(lab: Lab, kept: Path, network: DomainNetwork, place: Path) -> DomainNetwork:
    here = lab.circumstances
    if here.processes.broadcast(kept.is_file()):
        return open_network(kept, here.console)[0].to(here.device)
    if lab.source is None:
        raise UserError("there is no source to train on", "--source", "give it, or --model")
    outcome = train_source(
        network,
        lab.source,
        lab.source_labels,
        training=lab.options.source_training,
        place=place,
        circumstances=here,
    )
    if outcome.holdout_accuracy is not None:
        here.console.note(f"source: {outcome.holdout_accuracy:.1f} % of its hold-out right")

    def keep() -> None:
        save_network(kept, network, lab.class_names)
        shutil.rmtree(place, ignore_errors=True)

    here.processes.on_main(keep)
    return network
