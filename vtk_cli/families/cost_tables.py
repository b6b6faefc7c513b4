"""Two large runs on paper: `python -m vtk_cli.families.cost_tables` in a clone counts them anew, into its README.

They are the comparison of the 69 networks of arXiv 2210.11407 and the training of DeiT-III's largest network
(arXiv 2204.07118), with the settings that `--preset paper` and the recipes have.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vtk_cli.families.costs import (
    ComparisonCost,
    PassCost,
    TrainingCost,
    attack_cost,
    gpu_hours,
    largest_part,
    training_cost,
)
from vtk_cli.families.marks import insert_in
from vtk_cli.files import atomic_path
from vtk_cli.models.names import PAPER69
from vtk_cli.reports.evidence import markdown_table
from vtk_cli.similarity.recipes import PRESETS
from vtk_cli.train.recipes import RECIPES

TRAIN_IMAGES, VALIDATION_IMAGES = 1_281_167, 50_000
"""Of ImageNet-1k."""
GPUS = 64
FULL_SIZE = "`deit3-h-800 --img-size 224`"
COUNTED = Path(__file__).with_name("paper69.csv")
"""What `count_networks` found."""


@dataclass(frozen=True)
class Peak:
    """FLOP a second of a GPU by its data sheet, without sparsity: bf16 on tensor cores, float32 without them."""

    name: str
    bf16: float
    fp32: float


PEAKS = (Peak("A100", 312e12, 19.5e12), Peak("H100", 989e12, 67e12))
TRAINING_SHARE, ATTACK_SHARE, FP32_SHARE = 0.35, 0.2, 0.5
"""Assumed shares of the peak: a large ViT in training; 69 networks of all kinds, 32 images at a time, in bf16; and
those in float32."""

_V100, _DEIT_HOURS, _DEIT_EPOCHS = 125e12, 53 * 8, 300
"""What DeiT-B took (arXiv 2012.12877, Section 5.6), and a V100's tensor cores by its data sheet."""


def count_networks() -> list[PassCost]:
    """What a step against each of the 69 networks costs; takes most of a minute."""
    return [attack_cost(network.timm, PRESETS["paper"]["batch_size"]) for network in PAPER69]


def comparison_markdown(networks: Sequence[PassCost]) -> str:
    """The cost of comparing `networks` as the paper did, and on all validation images."""
    steps, batch = PRESETS["paper"]["steps"], PRESETS["paper"]["batch_size"]
    costs = [ComparisonCost(networks, images, steps) for images in (PRESETS["paper"]["images"], VALIDATION_IMAGES)]
    largest, dearest = max(networks, key=lambda one: one.kept), max(networks, key=lambda one: one.both)
    rows = [
        (f"attacks, {steps} steps, EFLOP", *(_number(cost.attacks / 1e18) for cost in costs)),
        (
            f"evaluations, {len(networks)} x {len(networks)}, EFLOP",
            *(_number(cost.evaluations / 1e18) for cost in costs),
        ),
        ("clean and noisy images, EFLOP", *(_number(cost.before / 1e18) for cost in costs)),
        *(
            (f"GPU hours, {peak.name}, {words}", *(_hours(cost.total, flops, share) for cost in costs))
            for peak in PEAKS
            for words, flops, share in (
                (f"float32 at {FP32_SHARE:.0%} of {peak.fp32 / 1e12:g} TFLOP/s", peak.fp32, FP32_SHARE),
                (f"bf16 at {ATTACK_SHARE:.0%} of {peak.bf16 / 1e12:g} TFLOP/s", peak.bf16, ATTACK_SHARE),
            )
        ),
        (
            f"hours of the longest of {len(networks)} tasks ({_short(dearest)}), {PEAKS[0].name}, float32",
            *(_hours(cost.longest_row, PEAKS[0].fp32, FP32_SHARE) for cost in costs),
        ),
        ("attacked images kept, GB", *(f"{cost.attacked_bytes / 1e9:,.0f}" for cost in costs)),
        (
            f"weights read, {len(networks)} tasks of {costs[0].weight_bytes / 1e9:.1f} GB each, GB",
            *(f"{len(networks) * cost.weight_bytes / 1e9:,.0f}" for cost in costs),
        ),
        (
            f"memory of a GPU at most, all weights and an attack on {batch} images ({_short(largest)}), GB",
            *(f"{(cost.weight_bytes + largest.kept) / 1e9:.0f}" for cost in costs),
        ),
        ("answers left, MB", *(f"{cost.answer_bytes / 1e6:.0f}" for cost in costs)),
    ]
    columns = (f"{len(networks)} networks", *(f"{cost.images:,} images" for cost in costs))
    return "\n".join(markdown_table(columns, rows))


def deit3_trainings() -> dict[str, TrainingCost]:
    """DeiT-III's ViT-H on 64 GPUs: the two published lengths, the fine-tuning after, and one at full size."""
    sizes = {name: RECIPES[name]["img_size"] for name in ("deit3-h-400", "deit3-h-800", "deit3-h-800-ft")}
    found = {f"`{name}`": _training(name, size) for name, size in sizes.items()}
    return {**found, FULL_SIZE: _training("deit3-h-800", 224)}


def training_markdown(trainings: dict[str, TrainingCost]) -> str:
    """The cost of trainings, a column each."""
    costs = list(trainings.values())
    rows = [
        ("pixels, images an update and a GPU", *(f"{one.step.size}, {one.batch // one.gpus}" for one in costs)),
        ("GFLOP an image, forward", *(f"{one.step.forward / 1e9:.0f}" for one in costs)),
        ("GFLOP an image, forward and backward", *(f"{one.step.both / 1e9:,.0f}" for one in costs)),
        ("updates", *(f"{one.updates:,}" for one in costs)),
        ("EFLOP in all", *(_number(one.operations / 1e18) for one in costs)),
        *(
            (
                f"GPU hours, {peak.name} at {TRAINING_SHARE:.0%} of {peak.bf16 / 1e12:g} TFLOP/s",
                *(_hours(one.operations, peak.bf16, TRAINING_SHARE) for one in costs),
            )
            for peak in PEAKS
        ),
        (
            f"hours on {GPUS} {PEAKS[0].name}s",
            *(_hours(one.operations / GPUS, PEAKS[0].bf16, TRAINING_SHARE) for one in costs),
        ),
        ("GB sent by a GPU an update, DDP", *(f"{one.ddp_traffic / 1e9:.2f}" for one in costs)),
        ("GB sent by a GPU an update, FSDP2", *(f"{one.fsdp_traffic / 1e9:.2f}" for one in costs)),
        (
            f"GB/s a GPU that hide DDP's behind the computing of an {PEAKS[0].name}",
            *(f"{one.ddp_traffic / _step_seconds(one) / 1e9:.0f}" for one in costs),
        ),
        ("TB sent by all GPUs in all, DDP", *(f"{one.ddp_traffic * one.updates * GPUS / 1e12:,.0f}" for one in costs)),
        ("GB of memory a GPU, DDP", *(f"{one.ddp_memory / 1e9:.1f}" for one in costs)),
        ("GB of memory a GPU, FSDP2", *(f"{one.fsdp_memory / 1e9:.1f}" for one in costs)),
        ("of these kept for the backward pass", *(f"{one.step.kept / 1e9:.1f}" for one in costs)),
    ]
    return "\n".join(markdown_table((f"on {GPUS} GPUs", *trainings), rows))


def published_share() -> float:
    """The share of a V100's peak that DeiT-B's published hours come to by the same formula."""
    step = training_cost("deit_base_patch16_224", 1, 224)
    return gpu_hours(_DEIT_EPOCHS * TRAIN_IMAGES * step.both, _V100, 1.0) / _DEIT_HOURS


def as_markdown(networks: Sequence[PassCost]) -> str:
    """Both, and what they assume, in Markdown.

    Args:
        networks: the cost of a step against each of the 69, counted or read.
    """
    trainings = deit3_trainings()
    largest = trainings[FULL_SIZE].step
    counts = (
        f"ViT-H has {largest.parameters / 1e6:.1f} M weights and {largest.forward / 2e9:.1f} G multiply-adds at 224"
        f" pixels (its authors say 632.1 and 167.4)"
    )
    check = f"if they were 8 V100 of {_V100 / 1e12:g} TFLOP/s, {published_share():.0%} of their peak"
    paragraphs = (
        _COMPARISON,
        comparison_markdown(networks),
        _TRAINING,
        training_markdown(trainings),
        f"{_COUNTED} {counts}. {_ASSUMED} {check}.",
    )
    return "\n\n".join(paragraphs) + "\n"


_COMPARISON = (
    "**69 x 69 networks on ImageNet-val**, `--preset paper`: at most n K Σ aᵢ for the attacks, n N Σ fⱼ for the"
    " evaluations and 2 n Σ fⱼ before them, with n images, K steps, N networks, fⱼ FLOP of an image's forward pass and"
    " aᵢ of a forward pass and a backward pass to the image. Only images that the attacked network classifies"
    " correctly are attacked: with networks that are right four times in five, four fifths of the first two."
)
_TRAINING = (
    f"**DeiT-III-H on {GPUS} GPUs** (arXiv 2204.07118), `--sub none`: GPU hours are epochs x {TRAIN_IMAGES:,} images x"
    " FLOP of forward and backward / (peak x share). A GPU sends 2 (N - 1) / N x 4 bytes a weight an update with DDP"
    " (a ring all-reduce of the gradients), 3 (N - 1) / N x 4 with FSDP2 (weights gathered twice, gradients scattered)."
    " Memory is 4 bytes a weight each for weights, gradients, two moments, the averaged weights and DDP's buckets;"
    " FSDP2 has a share of all but the last, and three blocks at a time; and what the forward pass keeps, bf16 copies"
    " of the weights among it. AugSub's second pass (`--sub mask`) makes it 1.5 times the hours."
)
_COUNTED = "Operations (two a multiply-add) and what is kept are counted in timm's networks, with nothing computed:"
_ASSUMED = (
    "The shares of the peaks are assumed, and loading, evaluating and waiting are left out. To hold them against what"
    " is published: DeiT-B's 300 epochs took 53 hours on a node (arXiv 2012.12877, Section 5.6), which is,"
)


def read_networks(file: Path = COUNTED) -> list[PassCost]:
    """The costs that were counted last; timm's networks seldom change."""
    kinds = {one.name: {"str": str, "int": int, "float": float}[str(one.type)] for one in fields(PassCost)}
    with file.open(newline="", encoding="utf-8") as stream:
        return [PassCost(**{name: kinds[name](text) for name, text in row.items()}) for row in csv.DictReader(stream)]


def write_networks(networks: Sequence[PassCost], file: Path = COUNTED) -> None:
    """Write what `read_networks` reads."""
    with atomic_path(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.DictWriter(stream, [one.name for one in fields(PassCost)], lineterminator="\n")
        rows.writeheader()
        rows.writerows(asdict(network) for network in networks)


def _training(recipe: str, size: int) -> TrainingCost:
    network, batch = RECIPES[recipe]["model"], RECIPES[recipe]["batch_size"]
    step = training_cost(network, batch // GPUS, size)
    return TrainingCost(step, batch, GPUS, RECIPES[recipe]["epochs"], TRAIN_IMAGES, largest_part(network, size))


def _step_seconds(cost: TrainingCost) -> float:
    return cost.batch / cost.gpus * cost.step.both / (PEAKS[0].bf16 * TRAINING_SHARE)


def _hours(operations: float, peak: float, share: float) -> str:
    return _number(gpu_hours(operations, peak, share))


def _number(value: float) -> str:
    """Three digits, or the whole part where it has more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _short(network: PassCost) -> str:
    return network.network.partition(".")[0]


if __name__ == "__main__":
    counted = count_networks()
    write_networks(counted)
    insert_in(Path("README.md"), "costs", as_markdown(counted))
