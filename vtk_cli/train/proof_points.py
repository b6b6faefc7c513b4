"""The part of `vtk proof train` on annotation byproducts (arXiv 2303.17595): a network learns where annotators clicked.

Single digits on strips of photos, the strip as a rule that of the class (a spurious cue); a click is the digit's centre
and a hand's tremble. With the point loss and without; measured where the cue holds and where it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from vtk_cli.console import Console
from vtk_cli.data.byproducts import PointTargets
from vtk_cli.data.classification import ImageSource, Splits
from vtk_cli.data.classification_named import ArrayReader
from vtk_cli.data.digits import SIDE, Split, load_glyphs
from vtk_cli.data.evaluation_batches import EvaluationBatches, evaluation_transform
from vtk_cli.data.painting import Bytes, contrasting_colour, draw_glyph, load_photos, paint, photo_crop
from vtk_cli.engine.loop import fit
from vtk_cli.engine.pieces.result_folders import ResultFolders
from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.engine.processes.distributed import World
from vtk_cli.files import cache_folder, content_key
from vtk_cli.models.accuracy import Evaluation
from vtk_cli.models.evaluation import evaluate
from vtk_cli.reports.evidence import Claim
from vtk_cli.reports.page import Table
from vtk_cli.train.options import TrainOptions
from vtk_cli.train.preparation import Data, Training, prepare
from vtk_cli.train.recipes import RECIPES

WEIGHTS = (0.0, 10.0)
"""Of the point loss: without it, and with the default."""
CUE = 0.9
"""How often a digit stands on the strip of its class; on a random one otherwise."""
TREMBLE = 2.0
"""Standard deviation of a click from the digit's centre, in pixels."""
RENDERS, EPOCHS, TESTS = 3000, 15, 2
_SMALLEST, _LARGEST = 14, 20
_STRIPS = 5  # of each photo
_STREAM = 4
_VERSION = 1


@dataclass(frozen=True)
class PointResult:
    """What a training came to.

    Args:
        top1: where the cue holds as in training.
        top1_random: where digits stand on random strips.
        error: mean distance between predicted point and click, in pixels of 32.
        centre_error: that of always pointing at the image's centre.
    """

    top1: float
    top1_random: float
    error: float
    centre_error: float


@dataclass(frozen=True)
class PointResults:
    """For each weight of the point loss the results of all seeds."""

    by_weight: dict[float, list[PointResult]]

    def as_json(self) -> dict[str, Any]:
        """For the proof's data."""
        return {f"{weight:g}": [asdict(one) for one in each] for weight, each in self.by_weight.items()}


def prove_points(
    seeds: Sequence[int], *, smallest: bool, device: torch.device, console: Console, share: Share = WHOLE
) -> PointResults:
    """Train with and without the point loss from every seed; finished trainings are kept in the cache."""
    renders, epochs = (100, 1) if smallest else (RENDERS, EPOCHS)
    pieces = [_Piece(weight, seed, renders, epochs) for seed in seeds for weight in WEIGHTS]
    found = ResultFolders(cache_folder() / "proof-train").through(
        pieces,
        key=lambda piece: piece.key(device),
        compute=lambda piece, folder: asdict(_train(piece, folder, device, console)),
        share=share,
        name=lambda piece: f"clicks x {piece.weight:g} from seed {piece.seed}",
    )
    by_weight: dict[float, list[PointResult]] = {weight: [] for weight in WEIGHTS}
    for piece, result in zip(pieces, found, strict=True):
        by_weight[piece.weight].append(PointResult(**result))
    return PointResults(by_weight)


@dataclass(frozen=True)
class _Piece:
    """One training."""

    weight: float
    seed: int
    renders: int
    epochs: int

    @property
    def options(self) -> TrainOptions:
        values: dict[str, Any] = {
            **RECIPES["digits"],
            "model": "test_resnet",
            "sub": "none",
            "epochs": self.epochs,
            "ab_weight": self.weight,
            "seed": self.seed,
        }
        return TrainOptions(**values)

    def key(self, device: torch.device) -> str:
        about = {"renders": self.renders, "device": str(device), "version": _VERSION}
        return content_key({**self.options.as_config(), **about})


def draw_clicked(split: Split, count: int, cue: float, seed: int) -> tuple[ImageSource, PointTargets]:
    """`count` renders of digits of a split, and where an annotator would have clicked.

    Args:
        split: whose digits; every one before any twice.
        count: how many.
        cue: how often the strip behind a digit is that of its class.
        seed: of everything drawn.
    """
    glyphs, photos = load_glyphs(split), load_photos()
    order = np.random.default_rng([_STREAM, seed]).permutation(len(glyphs.labels))
    images, labels, clicks = [], [], []
    for index in range(count):
        which = int(order[index % len(order)])
        rng = np.random.default_rng([_STREAM, seed, index])
        label = int(glyphs.labels[which])
        canvas = _strip(photos, label if rng.random() < cue else int(rng.integers(10)), rng)
        glyph = draw_glyph(glyphs.ink[which], int(rng.integers(_SMALLEST, _LARGEST + 1)))
        height, width = glyph.opacity.shape
        x, y = int(rng.integers(SIDE - width + 1)), int(rng.integers(SIDE - height + 1))
        paint(canvas, glyph, contrasting_colour(canvas[y : y + height, x : x + width], rng), x, y)
        click = np.array([x + width / 2, y + height / 2]) + rng.normal(0, TREMBLE, 2)
        images.append(canvas)
        labels.append(label)
        clicks.append(np.clip(click / SIDE, 0, 1))
    names = tuple(f"{split}/{index:06d}" for index in range(count))
    source = ImageSource(
        f"clicked digits ({split})",
        tuple(str(digit) for digit in range(10)),
        torch.tensor(labels),
        ArrayReader(np.stack(images).transpose(0, 3, 1, 2)),
        names,
    )
    points = torch.tensor(np.stack(clicks), dtype=torch.float32)[:, None]
    return source, PointTargets(points, torch.ones(count, 1, dtype=torch.bool))


def point_table(results: PointResults, seeds: Sequence[int]) -> Table:
    """Every seed with and without the point loss."""
    rows = []
    for weight, each in results.by_weight.items():
        name = f"point loss x {weight:g}" if weight else "no point loss"
        for label, values in (
            ("top-1, %", [100 * one.top1 for one in each]),
            ("top-1 on random strips, %", [100 * one.top1_random for one in each]),
            ("distance to the click, px", [one.error for one in each]),
        ):
            rows.append((name, label, *(f"{value:.1f}" for value in values), f"{mean(values):.1f}"))
    centre = [one.centre_error for one in results.by_weight[WEIGHTS[0]]]
    rows.append(
        ("always the centre", "distance to the click, px", *(f"{value:.1f}" for value in centre), f"{mean(centre):.1f}")
    )
    columns = ("training", "measured", *(f"seed {seed}" for seed in seeds), "mean")
    caption = f"Clicks as a second target, {RENDERS:,} digits on strips of photos, 0.5 M weights, {EPOCHS} epochs"
    return Table(columns, rows, caption=caption)


def point_claims(results: PointResults) -> list[Claim]:
    """What is claimed of byproducts."""
    without, with_points = (results.by_weight[weight] for weight in WEIGHTS)
    shares = [one.error / one.centre_error for one in with_points]
    cost = 100 * (mean(one.top1 for one in without) - mean(one.top1 for one in with_points))
    return [
        Claim(
            "the network learns where annotators clicked (LUAB, arXiv 2303.17595)",
            "below half the distance of always pointing at the centre, every seed",
            f"at most {max(shares):.0%} of it",
            max(shares) < 0.5,
        ),
        Claim("that costs no accuracy", "at most 1 point lost, on average", f"{-cost:+.1f} points", cost <= 1),
    ]


def robustness_not_claimed(results: PointResults) -> str:
    """The sentence on what was not seen, with its numbers."""
    without, with_points = (mean(one.top1_random for one in results.by_weight[weight]) for weight in WEIGHTS)
    return (
        "That clicks make the classes more robust: on random strips the mean accuracy is"
        f" {with_points:.1%} with the point loss and {without:.1%} without."
    )


def _strip(photos: tuple[Bytes, Bytes], number: int, rng: np.random.Generator) -> Bytes:
    """A crop of one of ten strips: five of each photo."""
    photo = photos[number % 2]
    width = photo.shape[1] // _STRIPS
    start = number // 2 * width
    return photo_crop(photo[:, start : start + width], SIDE, rng, smallest=width // 2, largest=width).copy()


def _train(piece: _Piece, folder: Path, device: torch.device, console: Console) -> PointResult:
    train, points = draw_clicked("train", piece.renders, CUE, piece.seed)
    val, val_points = draw_clicked("val", max(10, piece.renders * 360 * TESTS // RENDERS), CUE, 1000 + piece.seed)
    data = Data(Splits(train, val), None, points, val_points)
    training = prepare(piece.options, data, World(0, 1, 0, device), console)
    fit(
        training.classifier,
        training.objective,
        training.batches,
        training.optimizer,
        plan=training.plan,
        device=device,
        seed=piece.seed,
        scheduler=training.scheduler,
        evaluate=None,
        checkpoints=folder / "checkpoints",
        metrics=folder / "metrics.jsonl",
        console=console,
        description=f"clicks x {piece.weight:g}, seed {piece.seed}",
    )
    return _measured(training, piece.seed, len(val), val_points)


def _measured(training: Training, seed: int, count: int, clicks: PointTargets) -> PointResult:
    held = _evaluated(training, *draw_clicked("val", count, CUE, 1000 + seed))
    random = _evaluated(training, *draw_clicked("val", count, 0.0, 2000 + seed))
    if held.points is None:
        raise ValueError("the clicks were not measured")
    centre = float((clicks.points - 0.5).norm(dim=-1).mean()) * SIDE
    return PointResult(held.top1, random.top1, held.points.click_error_px, centre)


def _evaluated(training: Training, source: ImageSource, points: PointTargets) -> Evaluation:
    batches = EvaluationBatches(
        source,
        evaluation_transform(training.eval_pixels),
        batch_size=100,
        workers=0,
        console=Console(quiet=True),
        points=points,
    )
    found = evaluate(training.classifier, batches, pixels=training.eval_pixels, device=training.world.device)
    if not isinstance(found, Evaluation):
        raise TypeError("digits have one label each")
    return found
