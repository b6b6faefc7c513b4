"""One architecture, trained by itself from scratch on all training images.

    shape = space.shape("imagenet", classes=1000, width=46)
    retrained = retrain(options, space, genes, shape, world=world, console=console, run=run)
    retrained.weights                               # a file that says what architecture it is

Resumed in the same run folder, it goes on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.loop import FitResult, fit
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.run_weights import BEST, EMA, LAST
from vtk_cli.models.best_weights import BestWeights
from vtk_cli.models.evaluation import Evaluation
from vtk_cli.models.spaces.cost import Cost
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Shape, Space
from vtk_cli.models.spaces.stand_alone import StandAlone
from vtk_cli.search.retrain_options import RetrainOptions
from vtk_cli.search.retrain_preparation import prepare_retraining


@dataclass(frozen=True, eq=False)
class Retrained:
    """A network that is trained.

    Args:
        network: on its device, in eval mode.
        cost: of an image's forward.
        result: of the loop.
        evaluation: of the weights at the end; None without validation images.
        averaged: of their average; None where none is kept.
        best: epoch and top-1 of the weights that did best; None without validation images.
        weights: the file of the weights at the end; `best.safetensors` and `ema.safetensors` lie beside it.
        images: how many it was trained on.
        broken: training images that could not be read, whichever process found them.
        device: what it was trained on.
    """

    network: StandAlone
    cost: Cost
    result: FitResult
    evaluation: Evaluation | None
    averaged: Evaluation | None
    best: Mapping[str, Any] | None
    weights: Path
    images: int
    broken: int
    device: str

    def summary(self) -> dict[str, Any]:
        """What came out, as JSON values."""
        evaluated = {} if self.evaluation is None else self.evaluation.scalars()
        averaged = {} if self.averaged is None else self.averaged.scalars()
        return {
            "macs": self.cost.macs,
            "params": self.cost.params,
            "images": self.images,
            "updates": self.result.steps,
            **evaluated,
            **{f"ema_{name}": value for name, value in averaged.items()},
            **({} if self.best is None else {"best": dict(self.best)}),
            "broken": self.broken,
            "device": self.device,
            "images_per_second": self.result.images_per_second,
            "weights": str(self.weights),
        }


def retrain(
    options: RetrainOptions,
    space: Space,
    genes: Genes,
    shape: Shape,
    *,
    world: World,
    console: Console,
    run: RunFolder,
    sync_bn: bool = False,
) -> Retrained:
    """Train the network of an architecture from scratch, or go on with a training that was interrupted.

    Args:
        options: images and training.
        space: of the architecture.
        genes: of the architecture.
        shape: of the network, as many classes as the images have.
        world: this process among the others.
        console: shows the progress.
        run: the folder where checkpoints, `metrics.jsonl` and weights go.
        sync_bn: batch normalisation over all processes.

    Raises:
        UserError: options, images and architecture do not go together.
        JobError: the loss is not finite, or the disk is full; the last checkpoint stays.
        Preempted, KeyboardInterrupt: a signal came; the state is saved.
    """
    training = prepare_retraining(options, space, genes, shape, world=world, console=console, sync_bn=sync_bn)
    best = BestWeights(run.path / BEST, "top1", training.save)
    validation = training.validation
    try:
        result = fit(
            training.network,
            training.objective,
            training.batches,
            training.optimizer,
            plan=training.plan,
            device=world.device,
            seed=options.seed,
            scheduler=training.scheduler,
            evaluate=None if validation is None else lambda model: training.evaluated(model).scalars(),
            after_epoch=best,
            checkpoints=run.checkpoints,
            metrics=run.path / "metrics.jsonl",
            console=console,
            description=f"training an architecture of {space.name}",
            world=world,
        )
        evaluation = None if validation is None else training.evaluated(result.model)
        averaged = None if validation is None or result.ema is None else training.evaluated(result.ema)
    finally:
        if validation is not None:
            validation.close()
    note = {"epoch": str(options.epochs)}
    world.on_main(lambda: training.save(run.path / LAST, result.model, note))
    if (ema := result.ema) is not None:
        world.on_main(lambda: training.save(run.path / EMA, ema, note))
    broken = len(set().union(*world.gather(set(training.broken))))
    return Retrained(
        training.network,
        space.cost(genes, training.shape),
        result,
        evaluation,
        averaged,
        best.kept(),
        run.path / LAST,
        len(training.images.splits.train),
        broken,
        describe_device(world.device),
    )
