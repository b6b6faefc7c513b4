"""`vtk search tabulate`: the true accuracies of a small space, as a table that `vtk search rank` reads.

Every training of every architecture is a piece of work by itself: kept once it is finished, and shared among processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device, resolve_device
from vtk_cli.engine.loop import fit
from vtk_cli.engine.pieces.assembly import end_shard, require_place
from vtk_cli.engine.pieces.results import Result, ResultStore, work_through
from vtk_cli.engine.pieces.sharding import work_on_devices
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.run_folder import SUMMARY, RunFolder
from vtk_cli.engine.signals import stop_requests
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import content_key
from vtk_cli.models.spaces.catalog import space_named
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Shape, Space
from vtk_cli.search.benchmarks.benchmark import Row
from vtk_cli.search.benchmarks.table_file import write_table
from vtk_cli.search.images import open_search_images, source_digest
from vtk_cli.search.measuring import result_store
from vtk_cli.search.retrain_preparation import prepare_retraining
from vtk_cli.search.verb_options import TabulateOptions
from vtk_cli.search.words import architectures_of

BENCHMARK = "benchmark.csv"
KEPT = "finished trainings"
_PLACE = {"out", "device", "workers", "store", "shard", "devices", "arch", "seeds", "seed", "checkpoint-seconds"}
"""Options that do not change what a training with a given seed comes to."""


@dataclass(frozen=True)
class Trainings:
    """Trainings of architectures from several seeds.

    Args:
        options: how to train.
        space: of the architectures.
        shape: of their networks.
        images: a checksum of those that are trained and measured on.
        device: where.
    """

    options: TabulateOptions
    space: Space
    shape: Shape
    images: str
    device: torch.device

    def key(self, piece: tuple[Genes, int]) -> str:
        """Of everything that shapes a training."""
        genes, seed = piece
        settings = {name: value for name, value in self.options.as_config().items() if name not in _PLACE}
        about = {"shape": repr(self.shape), "images": self.images, "device": self.device.type, "settings": settings}
        return content_key({"training": list(genes), "seed": seed, **about})

    def result(self, piece: tuple[Genes, int]) -> Result:
        """Train one: its accuracy in percent and its loss on the validation images."""
        genes, seed = piece
        quiet, world = Console(quiet=True), World(0, 1, 0, self.device)
        training = prepare_retraining(
            replace(self.options, seed=seed), self.space, genes, self.shape, world=world, console=quiet
        )
        result = fit(
            training.network,
            training.objective,
            training.batches,
            training.optimizer,
            plan=training.plan,
            device=self.device,
            seed=seed,
            scheduler=training.scheduler,
            evaluate=None,
            checkpoints=None,
            metrics=None,
            console=quiet,
            world=world,
        )
        found = training.evaluated(result.model)
        if training.validation is not None:
            training.validation.close()
        return {"accuracy": 100 * found.top1, "loss": found.nll}


def tabulate(options: TabulateOptions, console: Console) -> ExitCode:
    """Train architectures and write their accuracies: by itself, as one task of many, or the plan.

    Raises:
        UserError: space, images and options do not go together.
        Preempted, KeyboardInterrupt: a signal came; finished trainings are kept.
    """
    device, space = resolve_device(options.device), space_named(options.space_name)
    side = options.size or space.forms[space.alone].resolution
    images = open_search_images(options, size=side, channels=space.input_channels, console=console, whole=True)
    if images.splits.val is None:
        raise UserError("has no images to measure accuracies on", options.data, "give --val DATA")
    shape = space.shape(space.alone, images.classes, resolution=side)
    genes = architectures_of(options.arch, space, options.seed)
    pieces = [(one, options.seed + number) for one in genes for number in range(options.seeds)]
    if options.dry_run:
        console.text(f"{len(pieces):,} trainings: {len(genes):,} architectures of {space.name}, {options.seeds} seeds")
        console.emit({"trainings": len(pieces), "architectures": len(genes), "config": options.as_config()})
        return ExitCode.DONE
    digest = content_key([source_digest(images.splits.train), source_digest(images.splits.val)])
    trainings = Trainings(options, space, shape, digest, device)
    store = result_store(options.store)
    require_place(options)
    if options.devices:
        work_on_devices("search tabulate", options, console, KEPT)

    def assemble() -> Path:
        with RunFolder.open(
            "search tabulate",
            f"{options.data_name}-{space.name}",
            config=options.as_config(),
            out=options.out,
            console=console,
            seed=options.seed,
            device=describe_device(device),
            may_change=_PLACE if options.out else (),
        ) as run:
            rows = _rows(trainings, pieces, _work(trainings, pieces, store, console))
            write_table(run.path / BENCHMARK, rows)
            _conclude(rows, run, console)
        return run.path / SUMMARY

    if options.shard is None:
        assemble()
        return ExitCode.DONE
    _work(trainings, pieces, store, console)
    keys = [trainings.key(piece) for piece in pieces]
    return end_shard(options, "search tabulate", keys, store.folder, assemble, kept=KEPT, console=console)


def _work(
    trainings: Trainings, pieces: Sequence[tuple[Genes, int]], store: ResultStore, console: Console
) -> list[Result]:
    with stop_requests() as stop, console.progress("trainings", len(pieces)) as progress:
        return work_through(
            pieces,
            key=trainings.key,
            compute=trainings.result,
            store=store,
            stop=stop,
            kept=KEPT,
            share=trainings.options.share,
            name=lambda piece: f"{trainings.space.format(piece[0])} from seed {piece[1]}",
            heard=lambda _piece, result: progress.advance(1, f"{result['accuracy']:.2f} %"),
        )


def _rows(trainings: Trainings, pieces: Sequence[tuple[Genes, int]], results: Sequence[Result]) -> list[Row]:
    space, options, table = trainings.space, trainings.options, trainings.space.table(trainings.shape)
    return [
        Row(
            space.format(genes),
            options.data_name,
            "test",
            str(options.epochs),
            seed,
            result["accuracy"],
            result["loss"],
            table.cost(genes).macs,
            table.cost(genes).params,
        )
        for (genes, seed), result in zip(pieces, results, strict=True)
    ]


def _conclude(rows: Sequence[Row], run: RunFolder, console: Console) -> None:
    means: dict[str, list[float]] = {}
    for row in rows:
        means.setdefault(row.arch, []).append(row.accuracy)
    order = sorted(((sum(values) / len(values), arch) for arch, values in means.items()), reverse=True)
    summary: dict[str, Any] = {
        "benchmark": str(run.path / BENCHMARK),
        "architectures": len(means),
        "trainings": len(rows),
        "best": {"arch": order[0][1], "accuracy": order[0][0]},
        "worst": {"arch": order[-1][1], "accuracy": order[-1][0]},
    }
    run.finish(summary)
    console.text(f"{len(means):,} architectures, {order[-1][0]:.1f} to {order[0][0]:.1f} %; best: {order[0][1]}")
    console.text(f"Compare scores with it: vtk search rank {Path(run.path) / BENCHMARK}")
    console.emit(summary)
