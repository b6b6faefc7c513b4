"""From options to rows that can be computed: names to networks, folders to images, and whether they fit together."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from vtk_cli.console import Console
from vtk_cli.engine.pieces.turns import in_turns
from vtk_cli.errors import UserError
from vtk_cli.files import cache_folder, remove_leftovers, require_folder
from vtk_cli.models.names import NetworkName, read_network_list
from vtk_cli.similarity.attack import Attack
from vtk_cli.similarity.command import SimilarityOptions
from vtk_cli.similarity.digits_networks import DigitsNetwork, is_trained, parameter_count
from vtk_cli.similarity.images import ImageSet, digits_images, folder_images
from vtk_cli.similarity.members import (
    Member,
    Pool,
    file_member_for_digits,
    parse_members,
    planned_digits_network,
    trained_member,
    zoo_member,
)
from vtk_cli.similarity.passes import Comparison, Passes, Settings
from vtk_cli.similarity.plan import Plan
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.store import Store

Named = tuple[NetworkName, int]
"""A network and the seed it is trained from, if it is trained here."""


def names(options: SimilarityOptions) -> list[Named]:
    """What the user asked to compare.

    Raises:
        UserError: an unknown name, fewer than two, or a seed for what is not trained here.
    """
    listed = [name.spec for name in read_network_list(options.list)] if options.list else []
    parsed = parse_members([*options.networks, *listed])
    for name, seed in parsed:
        if seed is not None and not (options.on_digits and name.kind == "timm"):
            raise UserError(f"{name.label} is not trained here, so it has no seed", fix=f"leave out @{seed}")
    return [(name, options.seed if seed is None else seed) for name, seed in parsed]


def references(options: SimilarityOptions, asked: list[Named]) -> list[Named]:
    """With `--reference`, what is trained here once more from another seed."""
    other, labels = options.seed + 1, {name.label for name, _ in asked}
    if not options.reference:
        return []
    again = [(dataclasses.replace(name, label=f"{name.label}@{other}"), seed) for name, seed in asked]
    return [(name, other) for name, seed in again if name.kind == "timm" and seed != other and name.label not in labels]


def prepare(
    options: SimilarityOptions, named: list[Named], device: torch.device, console: Console, check: Callable[[], None]
) -> Rows:
    """Load or train the networks, open the images, settle the labels.

    Args:
        options: as resolved.
        named: the networks.
        device: of the computation.
        console: told of progress.
        check: called where the work may stop; raises when it is asked to.

    Raises:
        UserError: wrong names, files, images or labels; with `--merge`, a network that no shard has trained.
    """
    store = _store(options)
    require_folder(store.folder)
    remove_leftovers(store.folder)
    images = _images(options, console)
    members = in_turns(
        [_planned(options, name, seed, device, console) for name, seed in named],
        found=lambda planned: planned.make() if planned.is_there() else None,
        make=lambda planned: planned.make(),
        share=options.share,
        check=check,  # a training heeds only signals that come while it runs
        name=lambda planned: planned.label,
        what="networks",
    )
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
    passes = Passes(Pool(members, device), store, settings, device, console, check, options.share)
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


@dataclass(frozen=True)
class _Planned:
    """A member before anything is trained or fetched: what makes it, and whether its weights have been made."""

    label: str
    make: Callable[[], Member]
    is_there: Callable[[], bool] = lambda: True


def _planned(
    options: SimilarityOptions, name: NetworkName, seed: int, device: torch.device, console: Console
) -> _Planned:
    """A name that cannot be trained, or a wrong file, is refused now: before any training."""
    if options.on_digits and name.kind == "file":
        member = file_member_for_digits(name, device)
        return _Planned(name.label, lambda: member)
    if options.on_digits:
        network = _to_train(options, name, seed)
        make = partial(trained_member, name, network, device, console, options.checkpoint_seconds, wait=False)
        return _Planned(name.label, make, partial(is_trained, network))
    return _Planned(
        name.label, partial(zoo_member, name, weights=options.weights, offline=options.offline, device=device)
    )


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


def plan(options: SimilarityOptions, named: list[Named], device: torch.device) -> Plan:
    """What would be done, with nothing trained, fetched or written."""
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
