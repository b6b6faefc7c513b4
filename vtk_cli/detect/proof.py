"""`vtk proof detect`: at equal steps ViDT+ finds more than ViDT, and ViDT more than its backbone alone.

In direction the component table of ViDT+ (arXiv 2204.07962; ViDT: arXiv 2110.03921): a neck on the DET tokens, then
pyramid fusion, token labels and the predicted IoU. Small detectors learn 3,000 embedded scenes of digits and are
measured on 200 others, from several seeds. One longer run, with masks, shows what such a detector comes to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.results import read_results, write_results
from vtk_cli.data.embedded import Embedded, open_embedded
from vtk_cli.detect.inference import EvaluationBatches
from vtk_cli.detect.measuring import measured, measures_masks
from vtk_cli.detect.network import parameter_count
from vtk_cli.detect.options import SCENES, TrainOptions
from vtk_cli.detect.pictures import write_predictions
from vtk_cli.detect.preparation import Training, open_data, prepare
from vtk_cli.detect.recipes import RECIPES
from vtk_cli.detect.report import Measured
from vtk_cli.engine.loop import fit
from vtk_cli.engine.pieces.result_folders import ResultFolders
from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.engine.processes.distributed import World
from vtk_cli.files import cache_folder, content_key
from vtk_cli.reports.curves import Points, draw_points
from vtk_cli.reports.evidence import Claim, Proof
from vtk_cli.reports.page import Table

_VERSION = 1
"""Raised when what is measured changes, so that kept results are not taken for it."""
NECK_FREE, VIDT, PLUS = "vidt-neck-free-micro", "vidt-micro", "vidt-plus-micro"
ARMS = {NECK_FREE: "neck-free", VIDT: "ViDT", PLUS: "ViDT+"}
"""Detector -> its name in tables."""
LEAST_GAIN = 0.05
_FOUND = "results.json"


@dataclass(frozen=True)
class Scale:
    """How much is trained: updates of every arm and of the longer run, scenes to train on and to measure on."""

    steps: int
    long_steps: int
    train: int
    val: int


FULL, SMALLEST = Scale(900, 3500, 3000, 200), Scale(6, 8, 48, 12)


@dataclass(frozen=True)
class Result:
    """What a training came to, on the validation scenes.

    Args:
        ap, ap50: of boxes, in [0, 1].
        mask_ap: of masks; None where none were learned.
        updates: of the weights.
        parameters: how many numbers were learned.
        seconds: of training in the last sitting.
    """

    ap: float
    ap50: float
    mask_ap: float | None
    updates: int
    parameters: int
    seconds: float


def prove(seeds: Sequence[int], *, smallest: bool, plots: Path, device: torch.device, console: Console) -> Proof:
    """Train every arm from every seed, and the longer run from the first; the machinery alone if `smallest`."""
    scale = SMALLEST if smallest else FULL
    seeds = seeds[:1] if smallest else seeds
    results, longer, found = work(seeds, smallest=smallest, device=device, console=console)
    scenes = open_embedded(SCENES, console, train=scale.train, val=scale.val)
    long = options_of(scenes, PLUS, seeds[0], scale.long_steps, masks=True)
    warmup = RECIPES["digits"]["warmup_steps"]
    return Proof(
        name="detect",
        title="ViDT+ finds more than ViDT at equal steps (arXiv 2204.07962), ViDT more than its backbone alone",
        setting=(
            f"`vidt-micro` and its kin, {scale.steps:,} updates of 16 scenes of 128 pixels, AdamW 1e-3 with {warmup}"
            f" updates of warm-up, no augmentation; {scale.train:,} scenes of digits to train on, {scale.val} others"
            f" (other digits, the same two photos behind them) to measure on; seeds {', '.join(map(str, seeds))}."
        ),
        tables=[_table(results, seeds), _long_table(longer)],
        claims=_claims(results),
        not_claimed=(
            "That the gain is the fusion's, the token labels' or the predicted IoU's: they were not taken apart.",
            "That a step of ViDT+ costs what a step of ViDT does: the table has the seconds.",
            "That the neck-free detector cannot learn this: it was given one learning rate and few steps.",
        ),
        pictures=[
            _draw_arms(results, plots),
            _draw_found(found, open_data(long, Console(quiet=True)).val, plots),
        ],
        data={
            "results": {ARMS[name]: [asdict(one) for one in each] for name, each in results.items()},
            "longer": asdict(longer),
        },
    )


def work(
    seeds: Sequence[int], *, smallest: bool, device: torch.device, console: Console, share: Share = WHOLE
) -> tuple[dict[str, list[Result]], Result, Path]:
    """All trainings, those of `share` first: every arm by its detector, the longer run, and the file of what it found.

    The longer run is the first piece, for it takes as long as several others.
    """
    scale = SMALLEST if smallest else FULL
    scenes = open_embedded(SCENES, console, train=scale.train, val=scale.val)
    seeds = seeds[:1] if smallest else seeds
    arms = [(name, options_of(scenes, name, seed, scale.steps)) for seed in seeds for name in ARMS]
    long = options_of(scenes, PLUS, seeds[0], scale.long_steps, masks=True)
    folders = ResultFolders(cache_folder() / "proof-detect")

    def key(options: TrainOptions) -> str:
        about = {"data": scenes.fingerprint, "device": device.type, "version": _VERSION}
        return content_key({**options.as_config(), **about})

    longer, *found = folders.through(
        [long, *(options for _, options in arms)],
        key=key,
        compute=lambda options, folder: asdict(_train(options, folder, device, console)),
        share=share,
        name=lambda options: f"{options.model}, {options.steps} steps, from seed {options.seed}",
    )
    results: dict[str, list[Result]] = {name: [] for name in ARMS}
    for (name, _), result in zip(arms, found, strict=True):
        results[name].append(Result(**result))
    return results, Result(**longer), folders.place(key(long)) / _FOUND


def options_of(scenes: Embedded, model: str, seed: int, steps: int, *, masks: bool = False) -> TrainOptions:
    """The command line that trains an arm."""
    values: dict[str, Any] = {
        **RECIPES["digits"],
        "data": str(scenes.folder),
        "model": model,
        "masks": "on" if masks else "off",
        "steps": steps,
        "warmup_steps": min(int(RECIPES["digits"]["warmup_steps"]), steps // 2),
        "workers": 0,
        "seed": seed,
    }
    return TrainOptions(**values)


def _train(options: TrainOptions, folder: Path, device: torch.device, console: Console) -> Result:
    quiet = Console(quiet=True)
    training = prepare(options, open_data(options, quiet), World(0, 1, 0, device), quiet)
    validation = _validation(training)
    result = fit(
        training.network,
        training.objective,
        training.batches,
        training.optimizer,
        plan=training.plan,
        device=device,
        seed=options.seed,
        scheduler=training.scheduler,
        evaluate=None,
        checkpoints=folder / "checkpoints",
        metrics=folder / "metrics.jsonl",
        console=console,
        description=f"{training.name}, seed {options.seed}",
    )
    masks = measures_masks(training.network, validation.dataset)
    last = _measured(training, validation, masks=masks)
    write_results(folder / _FOUND, last.detections, validation.dataset.category_ids)
    scalars = last.scalars()
    return Result(
        ap=scalars["ap"],
        ap50=scalars["ap50"],
        mask_ap=scalars.get("mask_ap"),
        updates=result.steps,
        parameters=parameter_count(training.network),
        seconds=result.train_seconds,
    )


def _validation(training: Training) -> EvaluationBatches:
    if training.validation is None:
        raise ValueError("the scenes have a validation split")
    return training.validation


def _measured(training: Training, validation: EvaluationBatches, *, masks: bool) -> Measured:
    return measured(
        training.network,
        validation,
        world=training.world,
        precision="fp32",
        masks=masks,
        console=Console(quiet=True),
    )


def _table(results: Mapping[str, Sequence[Result]], seeds: Sequence[int]) -> Table:
    rows = []
    for name, each in results.items():
        ap = [100 * one.ap for one in each]
        spread = f" ({stdev(ap):.1f})" if len(ap) > 1 else ""
        rows.append(
            (
                ARMS[name],
                f"{each[0].parameters / 1e6:.3f}",
                *(f"{value:.1f}" for value in ap),
                f"{mean(ap):.1f}{spread}",
                f"{100 * mean(one.ap50 for one in each):.1f}",
                f"{mean(one.seconds for one in each):.0f}",
            )
        )
    columns = ("arm", "M weights", *(f"seed {seed}" for seed in seeds), "mean (sd)", "AP50", "s a run")
    return Table(columns, rows, caption="AP of boxes in %, COCO's, IoU .5:.95")


def _long_table(longer: Result) -> Table:
    masks = "-" if longer.mask_ap is None else f"{100 * longer.mask_ap:.1f}"
    row = (f"{longer.updates:,}", f"{100 * longer.ap:.1f}", f"{100 * longer.ap50:.1f}", masks, f"{longer.seconds:.0f}")
    return Table(
        ("updates", "AP", "AP50", "mask AP", "s"), [row], caption="ViDT+ with masks, trained longer, one seed, in %"
    )


def _claims(results: Mapping[str, Sequence[Result]]) -> list[Claim]:
    free, plain, plus = ([one.ap for one in results[name]] for name in (NECK_FREE, VIDT, PLUS))
    gain = mean(plus) - mean(plain)
    return [
        Claim(
            "ViDT+ finds more than ViDT after as many steps",
            f"more than {100 * LEAST_GAIN:g} points of AP, on average",
            f"{100 * gain:+.1f} points",
            gain > LEAST_GAIN,
        ),
        _every_seed("ViDT+ is above ViDT", plus, plain),
        _every_seed("ViDT is above the backbone with heads alone", plain, free),
    ]


def _every_seed(text: str, ours: Sequence[float], theirs: Sequence[float]) -> Claim:
    gains = [one - other for one, other in zip(ours, theirs, strict=True)]
    above = sum(gain > 0 for gain in gains)
    said = f"{above} of {len(gains)} seeds; smallest gain {100 * min(gains):+.1f} points"
    return Claim(text, "every seed", said, above == len(gains))


def _draw_arms(results: Mapping[str, Sequence[Result]], plots: Path) -> Path:
    rows = [
        Points(ARMS[name], np.array([100 * one.ap for one in each]), ours=name == PLUS)
        for name, each in results.items()
    ]
    return draw_points(plots / "arms", rows, title="AP on scenes of digits, equal steps", x_label="AP of boxes, %").png


def _draw_found(results: Path, val: DetectionSet | None, plots: Path) -> Path:
    if val is None:
        raise ValueError("the scenes have a validation split")
    write_predictions(plots / "found.png", val, read_results(results, val))
    return plots / "found.png"
