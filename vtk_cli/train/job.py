"""The story of `vtk train`, top to bottom.

Images (and the points that annotators left on them) are opened, the network is built or loaded, its cost is told; the
engine trains it with the two losses of each step; what comes out is measured, saved and shown.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vtk_cli.console import Console
from vtk_cli.engine.devices import autocast, resolve_precision
from vtk_cli.engine.loop import FitResult, fit
from vtk_cli.engine.processes.distributed import join_world, shared_run
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.run_weights import BEST, EMA, LAST
from vtk_cli.engine.update import Clock
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.models.accuracy import Evaluation, MultiLabelEvaluation
from vtk_cli.models.best_weights import BestWeights
from vtk_cli.models.evaluation import evaluate
from vtk_cli.train.byproduct_check import check_byproducts
from vtk_cli.train.cost import StepCost, step_cost
from vtk_cli.train.eval_sets import score_sets
from vtk_cli.train.kept_weights import best_weights, classifier_of, save_weights
from vtk_cli.train.options import TrainOptions
from vtk_cli.train.outcome import Outcome, show_outcome
from vtk_cli.train.plan import show_plan, tell_cost
from vtk_cli.train.preparation import Training, open_data, prepare, training_samples

_MAY_CHANGE = {"device", "workers", "checkpoint-seconds", "skip-nonfinite", "eval-set", "parallel"}
"""Options that may differ when a run goes on: the result does not depend on them."""
_PULLED = 16
"""Images on which the pull of the losses is measured: few, since two backward passes share a graph."""


def train_network(options: TrainOptions, console: Console) -> ExitCode:
    """Train: the whole command, or its plan.

    Raises:
        UserError: options, data, network and run folder do not go together.
        JobError: the loss is not finite, or the disk is full; the last checkpoint stays.
        Preempted, KeyboardInterrupt: a signal came; the state is saved.
    """
    with join_world(options.device, options.parallel) as world:
        face = console if world.is_main else Console(quiet=True)
        training = prepare(options, open_data(options, face), world, face)
        cost = step_cost(training.classifier, training.network.config.input_size, fused=options.sub_fused)
        if options.dry_run:
            world.on_main(lambda: show_plan(options, training, cost, face))
            return ExitCode.DONE
        name = f"{options.data_name}-{options.network}"
        with shared_run(world, "train", name, options, face, may_change=_MAY_CHANGE) as run:
            tell_cost(training, cost, face)
            best = best_weights(options, training, run.path / BEST)
            result = _fit(options, training, best, run, face)
            outcome = _measure(options, training, cost=cost, result=result, best=best, console=face)
            world.on_main(lambda: _conclude(options, training, outcome, run, face))
    return ExitCode.DONE


def check_byproducts_only(options: TrainOptions, console: Console) -> ExitCode:
    """Look at the byproducts and stop: coverage, where the points lie, a sheet of augmented images.

    Raises:
        UserError: there are none, or they do not fit the images.
    """
    data = open_data(options, console)
    if data.byproducts is None or data.points is None:
        raise UserError("there are no byproducts", "--ab-check", "give --byproducts FILE")
    with join_world(options.device) as world:
        pixels = prepare(options, data, world, console).network.config
    check = check_byproducts(
        data.byproducts,
        data.points,
        data.splits.train,
        training_samples(options, data, pixels),
        folder=options.out or Path("byproducts"),
        seed=options.seed,
        console=console,
    )
    console.emit(check.summary())
    return ExitCode.DONE


def _fit(options: TrainOptions, training: Training, best: BestWeights, run: RunFolder, console: Console) -> FitResult:
    """Train, evaluating as the plan says and keeping the weights that did best."""
    try:
        return fit(
            training.classifier,
            training.objective,
            training.batches,
            training.optimizer,
            plan=training.plan,
            device=training.world.device,
            seed=options.seed,
            scheduler=training.scheduler,
            evaluate=None if training.validation is None else lambda model: _evaluated(training, model).scalars(),
            after_epoch=best,
            checkpoints=run.checkpoints,
            metrics=run.path / "metrics.jsonl",
            console=console,
            description=f"training {options.network}",
            world=training.world,
        )
    finally:
        if training.validation is not None:
            training.validation.close()


def _evaluated(training: Training, model: nn.Module) -> Evaluation | MultiLabelEvaluation:
    if training.validation is None:
        raise ValueError("there are no validation images")
    return evaluate(
        model,
        training.validation,
        pixels=training.eval_pixels,
        device=training.world.device,
        precision=training.plan.precision,
        world=training.world,
    )


def _measure(
    options: TrainOptions,
    training: Training,
    *,
    cost: StepCost | None,
    result: FitResult,
    best: BestWeights,
    console: Console,
) -> Outcome:
    """Measure what came out, on the validation images and on the sets that were asked for."""
    last = averaged = None
    if training.validation is not None:
        last = _evaluated(training, result.model)
        averaged = None if result.ema is None else _evaluated(training, result.ema)
        training.validation.close()
    scores = score_sets(
        classifier_of(result.model).network,
        training.data.sets,
        pixels=training.eval_pixels,
        device=training.world.device,
        precision=training.plan.precision,
        batch_size=max(1, options.batch_size // training.world.size),
        workers=worker_count(options.workers),
        console=console,
        world=training.world,
    )
    norms = _gradient_norms(options, training, result)
    broken = len(set().union(*training.world.gather(set(training.batches.broken))))
    return Outcome(result, cost, last, averaged, best.kept(), tuple(scores), norms, broken)


def _gradient_norms(options: TrainOptions, training: Training, result: FitResult) -> dict[str, float] | None:
    """How much the class loss and the point loss still pull at the weights they share, on a few training images.

    At the end and not at the start, where the head for points is zero and passes nothing on.
    """
    classifier = classifier_of(result.model)
    if classifier.points is None or not options.ab_weight:
        return None
    device = training.world.device
    batch = tuple(part[:_PULLED].to(device) for part in next(training.batches.epoch(options.epochs - 1, 0)))
    statistics = [buffer.clone() for buffer in classifier.buffers()]
    try:
        clock = Clock(options.epochs - 1, result.steps, options.seed)
        # Without a scaler, whose part is the training, fp16 would lose small gradients.
        is_bf16 = resolve_precision(training.plan.precision, device) == "bf16"
        with autocast(device, "bf16" if is_bf16 else "fp32"):
            return training.objective.gradient_norms(classifier.train(), batch, clock)
    finally:
        classifier.eval()
        training.batches.close()
        for buffer, before in zip(classifier.buffers(), statistics, strict=True):
            buffer.copy_(before)


def _conclude(options: TrainOptions, training: Training, outcome: Outcome, run: RunFolder, console: Console) -> None:
    """Save the weights, write the pages and pictures, tell the result."""
    note = {"epoch": str(options.epochs)}
    save_weights(options, training, run.path / LAST, outcome.result.model, note)
    if outcome.result.ema is not None:
        save_weights(options, training, run.path / EMA, outcome.result.ema, note)
    summary = show_outcome(options, training, outcome, run.path, console)
    run.finish(summary)
    console.emit(summary)
