"""The story of `vtk train`, top to bottom.

Images (and the points that annotators left on them) are opened, the network is built or loaded, its cost is told; the
engine trains it with the two losses of each step; what comes out is measured, saved and shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device, resolve_precision
from vtk_cli.engine.distributed import join_world, shared_run_folder
from vtk_cli.engine.loop import FitResult, fit
from vtk_cli.engine.metrics import Row
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.models.names import file_metadata
from vtk_cli.train.accuracy import Evaluation, MultiLabelEvaluation
from vtk_cli.train.byproduct_check import check_byproducts
from vtk_cli.train.classifier import Classifier
from vtk_cli.train.cost import StepCost, step_cost
from vtk_cli.train.eval_sets import score_sets
from vtk_cli.train.evaluation import evaluate
from vtk_cli.train.options import TrainOptions, worker_count
from vtk_cli.train.preparation import Training, open_data, prepare, training_samples
from vtk_cli.train.report import Report, result_rows, score_table, write_report
from vtk_cli.train.robustness import SetScore
from vtk_cli.train.trained import BEST, EMA, LAST, save_trained

_MAY_CHANGE = {"device", "workers", "checkpoint-seconds", "eval-set"}
"""Options that may differ when a run goes on: the result does not depend on them."""


def train_network(options: TrainOptions, console: Console) -> ExitCode:
    """Train: the whole command, or its plan."""
    with join_world(options.device) as world:
        face = console if world.is_main else Console(quiet=True)
        training = prepare(options, open_data(options, face), world, face)
        cost = step_cost(training.classifier, training.network.config.input_size, fused=options.sub_fused)
        if options.dry_run:
            _show_plan(options, training, cost, face)
            return ExitCode.DONE
        with shared_run_folder(
            world,
            lambda: RunFolder.open(
                "train",
                f"{Path(options.data).name}-{options.network}",
                config=options.as_config(),
                out=options.out,
                console=face,
                seed=options.seed,
                device=describe_device(world.device),
                may_change=_MAY_CHANGE if options.out else (),
            ),
        ) as run:
            _tell_cost(training, cost, face)
            result = _fit(options, training, run, face)
            outcome = _measure(options, training, result, face)
            world.on_main(
                lambda: _conclude(
                    options=options, training=training, cost=cost, result=result, outcome=outcome, run=run, console=face
                )
            )
    return ExitCode.DONE


def check_byproducts_only(options: TrainOptions, console: Console) -> ExitCode:
    """Look at the byproducts and stop: coverage, where the points lie, a sheet of augmented images."""
    data = open_data(options, console)
    if data.byproducts is None or data.points is None:
        raise UserError("there are no byproducts", "--ab-check", "give --byproducts FILE")
    with join_world(options.device) as world:
        pixels = prepare(options, data, world, console).network.config
    folder = options.out or Path("byproducts")
    check = check_byproducts(
        data.byproducts,
        data.points,
        data.splits.train,
        training_samples(options, data, pixels),
        folder=folder,
        seed=options.seed,
        console=console,
    )
    console.emit(check.summary())
    return ExitCode.DONE


@dataclass(frozen=True, eq=False)
class _Outcome:
    """The network at the end, measured: with its own weights, with the averaged ones, on other sets."""

    last: Evaluation | MultiLabelEvaluation | None
    averaged: Evaluation | MultiLabelEvaluation | None
    scores: tuple[SetScore, ...]


def _fit(options: TrainOptions, training: Training, run: RunFolder, console: Console) -> FitResult:
    """Train, evaluating as the plan says and keeping the weights that did best."""
    best = _BestWeights(options, training, run.path / BEST)
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


def _measure(options: TrainOptions, training: Training, result: FitResult, console: Console) -> _Outcome:
    """Measure what came out, on the validation images and on the sets that were asked for."""
    last = averaged = None
    if training.validation is not None:
        last = _evaluated(training, result.model)
        averaged = None if result.ema is None else _evaluated(training, result.ema)
        training.validation.close()
    scores = score_sets(
        _classifier_of(result.model).network,
        options.eval_sets,
        training.data.splits.train.class_names,
        pixels=training.eval_pixels,
        device=training.world.device,
        precision=training.plan.precision,
        batch_size=options.batch_size,
        workers=worker_count(options.workers),
        console=console,
    )
    return _Outcome(last, averaged, tuple(scores))


def _conclude(
    *,
    options: TrainOptions,
    training: Training,
    cost: StepCost | None,
    result: FitResult,
    outcome: _Outcome,
    run: RunFolder,
    console: Console,
) -> None:
    """Save the weights, write the pages and pictures, tell the result."""
    _save(options, training, run.path / LAST, _classifier_of(result.model), {"epoch": str(options.epochs)})
    if result.ema is not None:
        _save(options, training, run.path / EMA, _classifier_of(result.ema), {"epoch": str(options.epochs)})
    rows = [] if outcome.last is None else result_rows(outcome.last)
    spent = _spent(training, cost, result)
    headline = dict(rows[:2])
    source = training.data.splits.train
    title = f"{options.network} on {source.name}" + (f": {rows[0][0]} {rows[0][1]}" if rows else "")
    page = write_report(
        run.path,
        Report(
            title,
            _about(options, training),
            headline,
            result.history,
            outcome.last,
            source.class_names,
            images=training.data.splits.val,
            cost=spent,
            scores=outcome.scores,
            options=options.as_config(),
            warnings=_warnings(options, training),
            footer=f"vtk train --config {run.path / 'config.toml'}",
        ),
    )
    summary = {
        "network": options.network,
        "data": source.name,
        "images": len(source),
        "classes": len(source.class_names),
        "epochs": options.epochs,
        "updates": result.steps,
        **_numbers("", outcome.last),
        **_numbers("ema_", outcome.averaged),
        **({"best": _best_of(run.path)} if (run.path / BEST).exists() else {}),
        "cost": spent,
        "sets": {
            score.name: {"measure": score.measure, "value": score.value, "images": score.images}
            for score in outcome.scores
        },
        "seed": options.seed,
        "folder": str(run.path),
        "weights": str(run.path / LAST),
        "report": str(page),
    }
    run.finish(summary)
    console.table(title, ("", "value"), [*rows, *spent.items()])
    if outcome.scores:
        table = score_table(outcome.scores)
        console.table("Other sets", table.columns, table.rows)
    console.text(f"Look at {page}; the weights are {run.path / LAST}")
    console.emit(summary)


class _BestWeights:
    """Keeps the weights of the epoch that did best on the validation images, first of equals.

    The file itself says of which epoch it is and how good that was, so that a run that goes on, or makes some epochs
    again, keeps the same.
    """

    def __init__(self, options: TrainOptions, training: Training, path: Path) -> None:
        self._options, self._training, self._path = options, training, path

    def __call__(self, row: Row, model: nn.Module, averaged: nn.Module | None) -> None:
        found = [
            (float(row[f"{prefix}{self.measure}"] or 0.0), one)
            for prefix, one in (("", model), ("ema_", averaged))
            if one is not None and row.get(f"{prefix}{self.measure}") is not None
        ]
        if not found:
            return
        value, best = max(found, key=lambda pair: pair[0])
        before = file_metadata(self._path) if self._path.exists() else {}
        if before and int(before["epoch"]) < int(row["epoch"] or 0) and float(before[self.measure]) >= value:
            return
        if before and int(before["epoch"]) > int(row["epoch"] or 0):
            return  # of an epoch that a killed run has made already, and will make again
        note = {"epoch": str(int(row["epoch"] or 0)), self.measure: repr(value)}
        _save(self._options, self._training, self._path, _classifier_of(best), note)

    @property
    def measure(self) -> str:
        """What is compared, in the rows of `metrics.jsonl`."""
        return "map" if self._training.data.splits.train.multi_label else "top1"


def _save(options: TrainOptions, training: Training, path: Path, model: Classifier, note: dict[str, str]) -> None:
    train = training.data.splits.train
    save_trained(
        path,
        model.inference_state(),
        architecture=training.network.name.tagged,
        config=training.eval_pixels,
        model_args=training.network.model_args,
        class_names=train.class_names,
        multi_label=train.multi_label,
        note={**note, "seed": str(options.seed)},
    )


def _classifier_of(model: nn.Module) -> Classifier:
    if not isinstance(model, Classifier):
        raise TypeError(f"a {type(model).__name__} is no Classifier")
    return model


def _best_of(folder: Path) -> dict[str, Any]:
    said = file_metadata(folder / BEST)
    measure = "map" if "map" in said else "top1"
    return {"epoch": int(said["epoch"]), measure: float(said[measure]), "weights": str(folder / BEST)}


def _numbers(prefix: str, evaluation: Evaluation | MultiLabelEvaluation | None) -> dict[str, float]:
    return {} if evaluation is None else {f"{prefix}{name}": value for name, value in evaluation.scalars().items()}


def _spent(training: Training, cost: StepCost | None, result: FitResult) -> dict[str, Any]:
    """What the training took, name to value."""
    spent: dict[str, Any] = {"device": describe_device(training.world.device)}
    if cost is not None:
        spent["GMACs an image"] = round(cost.main / 1e9, 4)
        if cost.sub is not None:
            spent["GMACs of its sub-branch"] = round(cost.sub / 1e9, 4)
            spent["step against plain training"] = f"{cost.factor:.2f}x"
    if result.images_per_second is not None:
        spent["images/s"] = round(result.images_per_second, 1)
    spent["hours of training in this sitting"] = round(result.train_seconds * training.world.size / 3600, 4)
    return spent


def _tell_cost(training: Training, cost: StepCost | None, console: Console) -> None:
    weights = sum(weight.numel() for weight in training.network.module.parameters())
    words = [f"{weights / 1e6:.2f} M weights"]
    if cost is not None:
        words.append(f"{cost.main / 1e9:.3g} GMACs an image")
        if cost.sub is not None:
            words.append(f"{cost.sub / 1e9:.3g} in its sub-branch: a step costs {cost.factor:.2f}x a plain one")
        words.append(cost.memory)
    console.note("; ".join(words))


def _show_plan(options: TrainOptions, training: Training, cost: StepCost | None, console: Console) -> None:
    """What `--dry-run` says; nothing is written."""
    splits, plan = training.data.splits, training.plan
    weights = sum(weight.numel() for weight in training.network.module.parameters())
    updates = -(-training.batches.steps_per_epoch // plan.accumulate) * plan.epochs
    rows: list[tuple[str, object]] = [
        ("network", f"{options.network} ({training.network.weights_source})"),
        ("weights", f"{weights:,}"),
        ("input", f"{training.network.config.input_size} pixels"),
        ("training images", f"{len(splits.train):,} of {len(splits.train.class_names)} classes"),
        ("validation images", "none" if splits.val is None else f"{len(splits.val):,}"),
        ("updates", f"{updates:,} in {plan.epochs} epochs"),
        ("learning rate", f"{max(group['initial_lr'] for group in training.optimizer.param_groups):g}"),
        ("precision", resolve_precision(plan.precision, training.world.device)),
    ]
    if training.classifier.sub is not None:
        rows.append(("sub-branch", f"{options.sub}, {training.classifier.sub.name}, ratio {options.sub_ratio}"))
    if cost is not None:
        rows += [("step against plain training", f"{cost.factor:.2f}x"), ("memory", cost.memory)]
    if training.data.points is not None:
        share = float(training.data.points.present.any(dim=1).float().mean())
        rows.append(("byproducts", f"points on {share:.1%} of the training images"))
    console.table("Plan", ("", "value"), rows)
    console.emit({name: str(value) for name, value in rows})


def _about(options: TrainOptions, training: Training) -> str:
    splits = training.data.splits
    sub = (
        "without a sub-branch"
        if options.sub == "none"
        else f"with a sub-branch ({options.sub}, ratio {options.sub_ratio})"
    )
    held = "no validation images" if splits.val is None else f"measured on {len(splits.val):,} others"
    return f"{len(splits.train):,} images, {options.epochs} epochs {sub}, seed {options.seed}; {held}."


def _warnings(options: TrainOptions, training: Training) -> list[str]:
    said = []
    if (broken := len(training.batches.broken)) > 0:
        said.append(f"{broken} training images could not be read; the next image took the place of each.")
    if options.sub != "none" and training.data.points is not None:
        said.append("A sub-branch together with byproducts is in neither paper; nothing is known of the combination.")
    if training.data.splits.val is not None:
        said.append(
            "The numbers are of the weights at the end. The best epoch was chosen on the validation images, so its"
            " number there flatters."
        )
    return said
