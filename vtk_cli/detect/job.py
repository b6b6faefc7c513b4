"""The story of `vtk detect train`, top to bottom.

Images with objects are opened, the detector is built or loaded; the engine trains it on the losses of all levels; what
comes out is measured as COCO does, saved and shown.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import nn

from vtk_cli.console import Console
from vtk_cli.detect.measuring import detector_of, measured, measures_masks
from vtk_cli.detect.network import parameter_count
from vtk_cli.detect.options import TrainOptions
from vtk_cli.detect.outcome import Outcome, conclude, save_weights
from vtk_cli.detect.plan import show_plan
from vtk_cli.detect.preparation import Training, open_data, prepare
from vtk_cli.detect.report import Measured
from vtk_cli.engine.loop import FitResult, fit
from vtk_cli.engine.processes.distributed import join_world, shared_run
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.run_weights import BEST
from vtk_cli.errors import ExitCode, JobError
from vtk_cli.models.best_weights import BestWeights

_MAY_CHANGE = {"device", "workers", "checkpoint-seconds", "skip-nonfinite", "parallel"}
"""Options that may differ when a run goes on: the result does not depend on them."""


def train_detector(options: TrainOptions, console: Console) -> ExitCode:
    """Train: the whole command, or its plan.

    Raises:
        UserError: options, data, weights and run folder do not go together.
        JobError: the loss is not finite, or the disk is full; the last checkpoint stays.
        Preempted, KeyboardInterrupt: a signal came; the state is saved.
    """
    with join_world(options.device, options.parallel) as world:
        face = console if world.is_main else Console(quiet=True)
        training = prepare(options, open_data(options, face), world, face)
        if options.dry_run:
            show_plan(options, training, face)
            return ExitCode.DONE
        name = f"{Path(options.data).name}-{training.name}"
        with shared_run(world, "detect train", name, options, face, may_change=_MAY_CHANGE) as run:
            face.note(
                f"{training.name}: {parameter_count(training.network) / 1e6:.2f} M weights, from"
                f" {training.started_from}"
            )
            result = fitted(options, training, run, face)
            outcome = _measure(training, result)
            world.on_main(lambda: conclude(options, training, result, outcome, run=run, console=face))
    return ExitCode.DONE


def fitted(options: TrainOptions, training: Training, run: RunFolder, console: Console) -> FitResult:
    """Train, evaluating as the plan says and keeping the weights that did best.

    Raises:
        JobError: the loss is not finite; the message names its terms and the images.
    """
    try:
        return fit(
            training.network,
            training.objective,
            training.batches,
            training.optimizer,
            plan=training.plan,
            device=training.world.device,
            seed=options.seed,
            scheduler=training.scheduler,
            evaluate=None if training.validation is None else lambda model: _measured(training, model).scalars(),
            after_epoch=BestWeights(run.path / BEST, "ap", partial(save_weights, options, training)),
            checkpoints=run.checkpoints,
            metrics=run.path / "metrics.jsonl",
            console=console,
            description=f"training {training.name}",
            world=training.world,
        )
    except JobError as error:
        blame = training.objective.blame()
        raise JobError(f"{error} ({blame})" if blame else str(error)) from error
    finally:
        if training.validation is not None:
            training.validation.close()


def _measured(training: Training, model: nn.Module) -> Measured:
    if training.validation is None:
        raise ValueError("there are no validation images")
    network = detector_of(model)
    return measured(
        network,
        training.validation,
        world=training.world,
        precision=training.plan.precision,
        masks=measures_masks(network, training.validation.dataset),
        console=Console(quiet=True),  # the training's progress is on show
    )


def _measure(training: Training, result: FitResult) -> Outcome:
    """Measure what came out."""
    if training.validation is None:
        return Outcome(None, None)
    last = _measured(training, result.model)
    averaged = None if result.ema is None else _measured(training, result.ema)
    training.validation.close()
    return Outcome(last, averaged)
