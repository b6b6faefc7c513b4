"""A SOLOv2 for other programs, as ONNX: normal inference up to the masks, and what inference at clicks needs.

The file takes normalised, padded images (B, 3, H, W) float32 of one size and the least class probability of a
candidate. It gives the best N instances of each image: scores (B, N), labels (B, N) and the probabilities of their
masks (B, N, h, w); and before these, what they are made of: class logits (B, n, K) and kernels (B, n, E) of the n cells
of all levels, and the mask features (B, E, h, w). A runtime computes only the outputs that it is asked for.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from vtk_cli.data.points import Classes
from vtk_cli.engine.seeds import sample_rng
from vtk_cli.errors import JobError, UserError
from vtk_cli.files import write_json
from vtk_cli.models.export import (
    difference,
    draft,
    quiet_exporters,
    read_back,
    read_onnx,
    reason,
    require_onnx,
    save_onnx,
)
from vtk_cli.segment.solov2.inference import InferenceSettings
from vtk_cli.segment.solov2.masks import HALF
from vtk_cli.segment.solov2.network import SOLOv2
from vtk_cli.segment.solov2.predictions import Outputs
from vtk_cli.segment.solov2.suppression import matrix_factors, point_nms

INPUTS = ("images", "least_probability")
FOUND, SEEN = ("scores", "labels", "masks"), ("logits", "kernels", "mask_features")
_BATCHES = (1, 3, 2)
"""Images at a time in the comparison of a file for any number of them."""
_LEAST_SAME = 0.95
"""The share of instances that must be the same; rounding may swap two of almost equal scores."""


@dataclass(frozen=True)
class Export:
    """A file that was written and found to answer as the network does.

    Args:
        path: the file.
        bytes: its size, with that of its weights.
        batch: images at a time; None for any number.
        size: height and width.
        images: how many were compared.
        difference: the largest difference of a logit, a kernel or a mask feature.
        share: the same as a share of the largest of all.
        same_answers: the share of instances that have the same class, score and mask.
    """

    path: Path
    bytes: int
    batch: int | None
    size: tuple[int, int]
    images: int
    difference: float
    share: float
    same_answers: float

    def summary(self) -> dict[str, object]:
        """The fields as JSON can hold them."""
        return {**asdict(self), "path": str(self.path), "size": list(self.size)}


class ExportedSegmenter(nn.Module):
    """A network with its normal inference, as a function of tensors whose sizes do not depend on what is seen.

    Of more cells and classes above the least probability than `settings.candidates` the most probable are compared;
    otherwise the instances are those of `find_instances`, with scores of 0 after the last.

    Args:
        network: on the CPU, in fp32 and eval mode.
        settings: of inference; its `least_category` is an input instead, and it always is matrix NMS.
    """

    strides: Tensor

    def __init__(self, network: SOLOv2, settings: InferenceSettings | None = None) -> None:
        super().__init__()
        self.network = network
        self.settings = settings or InferenceSettings()
        levels = network.config.levels
        strides = [float(level.stride) for level in levels for _ in range(level.grid**2)]
        self.register_buffer("strides", torch.tensor(strides), persistent=False)

    def forward(self, images: Tensor, least: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) and a probability (1,) to `FOUND` and `SEEN`."""
        seen = _in_rows(self.network(images))
        return *self.found(*seen, least), *seen

    def found(self, logits: Tensor, kernels: Tensor, features: Tensor, least: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The instances of a batch, the best of each image first.

        Args:
            logits: (B, n, K) of the classes of all cells.
            kernels: (B, n, E).
            features: (B, E, h, w).
            least: (1,): a cell's class is a candidate above this probability.

        Returns:
            Scores (B, N), 0 after the last instance, labels (B, N) int64, and probabilities (B, N, h, w).
        """
        K, (h, w) = logits.shape[2], features.shape[2:]
        likely = self._unrivalled(logits).flatten(1)  # (B, n K)
        count = min(self.settings.candidates, likely.shape[1])
        probable, index = likely.masked_fill(likely <= least, 0).topk(count)
        cells, labels = index // K, index % K
        masks = (_rows(kernels, cells) @ features.flatten(2)).sigmoid()  # (B, count, h w)
        inside = (masks > HALF).float()
        areas = inside.sum(2)
        scores = probable * (masks * inside).sum(2) / areas.clamp(min=1)
        scores, order = (scores * (areas > self.strides[cells])).topk(count)
        labels, inside = labels.gather(1, order), _rows(inside, order)
        shared, areas = inside @ inside.transpose(1, 2), inside.sum(2)
        union = areas[:, :, None] + areas[:, None] - shared
        same = labels[:, :, None] == labels[:, None]
        scores = scores * matrix_factors(shared / union.clamp(min=1) * same)
        scores, best = (scores * (scores >= self.settings.least_score)).topk(min(self.settings.most, count))
        chosen = _rows(masks, order.gather(1, best)).unflatten(2, (h, w))
        return scores, labels.gather(1, best), chosen

    def _unrivalled(self, logits: Tensor) -> Tensor:
        """(B, n, K): the probabilities that point NMS leaves on each level, 0 elsewhere."""
        grids = self.network.config.grids
        parts = torch.split(logits.sigmoid(), [grid**2 for grid in grids], dim=1)
        kept = [
            point_nms(part.transpose(1, 2).unflatten(2, (grid, grid))).flatten(2).transpose(1, 2)
            for part, grid in zip(parts, grids, strict=True)
        ]
        return torch.cat(kept, 1)


def export_segmenter(
    network: SOLOv2,
    path: Path,
    *,
    size: tuple[int, int],
    short: int,
    batch: int | None,
    classes: Classes,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Export:
    """Write a network as ONNX, read the file back in onnxruntime and compare its answers on noise.

    Args:
        network: a copy of it on the CPU, in fp32 and eval mode, is what is written.
        path: the file, `.onnx`; beside it comes `NAME.json` that says what goes in and what comes out.
        size: height and width of the padded images.
        short: the shorter side of the images it was trained on.
        batch: images at a time; None for any number.
        classes: what the labels mean.
        tolerance: the largest difference, as a share of the largest number of its output.
        seed: of the noise.

    Raises:
        UserError: a package is missing, the size does not suit the network, or it cannot be written.
        JobError: what was read back answers otherwise, or the disk is full; no file is left then.
    """
    require_onnx()
    multiple = network.config.padding_multiple
    if any(side % multiple for side in size):
        what = f"{size[0]} x {size[1]} are not multiples of {multiple}"
        raise UserError(what, "--size", "give the sides of the padded image")
    module = ExportedSegmenter(copy.deepcopy(network).cpu().float().eval()).eval()
    about = description(network, classes, size, short, batch)
    outputs = (*FOUND, *SEEN)
    with draft(path) as written, torch.no_grad():
        program = _program(module, size, batch, path)
        save_onnx(program, written, inputs=INPUTS, outputs=outputs, metadata={"segmenter": json.dumps(about)})
        answer = read_back(lambda draft: read_onnx(draft, INPUTS, outputs), written, path)
        compared = _compared(module, answer, _noise(size, batch, seed), path, tolerance)
        used = sum(part.stat().st_size for part in written.parent.iterdir())
    write_json(path.with_suffix(".json"), about)
    return Export(path, used, batch, size, *compared)


def description(
    network: SOLOv2, classes: Classes, size: tuple[int, int], short: int, batch: int | None
) -> dict[str, Any]:
    """What goes in and what comes out; JSON values."""
    config, settings = network.config, InferenceSettings()
    rows = "batch" if batch is None else batch
    cells = sum(grid**2 for grid in config.grids)
    most = min(settings.most, cells * config.classes)
    sides = [side // config.mask_stride for side in size]
    shapes: dict[str, tuple[list[object], str]] = {
        "scores": ([rows, most], "the best first, 0 after the last instance"),
        "labels": ([rows, most], "index into classes"),
        "masks": (
            [rows, most, *sides],
            "probabilities: enlarge to the input's size, crop the image's part, resize to the image, take > 0.5",
        ),
        "logits": ([rows, cells, config.classes], "a sigmoid a class, of the cells of all grids, row by row"),
        "kernels": ([rows, cells, config.embedding], "the mask of a cell is sigmoid(kernel . mask_features)"),
        "mask_features": ([rows, config.embedding, *sides], "see kernels"),
    }
    return {
        "inputs": [
            {
                "name": INPUTS[0],
                "shape": [rows, 3, *size],
                "type": "float32",
                "channels": "RGB",
                "values": "(pixel / 255 - mean) / std, then zeros at the right and the bottom",
                "mean": list(IMAGENET_DEFAULT_MEAN),
                "std": list(IMAGENET_DEFAULT_STD),
                "resize": f"to fit, its shape kept; the network was trained with a shorter side of {short}",
            },
            {
                "name": INPUTS[1],
                "shape": [1],
                "type": "float32",
                "values": f"a cell's class is a candidate above this probability; published: {settings.least_category}",
            },
        ],
        "outputs": [{"name": name, "shape": shape, "meaning": text} for name, (shape, text) in shapes.items()],
        "grids": list(config.grids),
        "classes": list(classes.names),
        "category_ids": list(classes.ids),
    }


def _in_rows(outputs: Outputs) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, n, K), kernels (B, n, E) and mask features of what the network gives."""
    logits = [level.category.flatten(2).transpose(1, 2) for level in outputs.levels]
    kernels = [level.kernels.flatten(2).transpose(1, 2) for level in outputs.levels]
    return torch.cat(logits, 1), torch.cat(kernels, 1), outputs.mask_features


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """(B, m, D): the rows `index` (B, m) of each table (B, n, D)."""
    return table.gather(1, index[:, :, None].expand(-1, -1, table.shape[2]))


def _program(module: nn.Module, size: tuple[int, int], batch: int | None, path: Path) -> torch.export.ExportedProgram:
    example = (torch.zeros(batch or 2, 3, *size), torch.zeros(1))
    shapes = None if batch is not None else ({0: torch.export.Dim("batch")}, None)
    with quiet_exporters():
        try:
            program: torch.export.ExportedProgram = torch.export.export(module, example, dynamic_shapes=shapes)
            decomposed: torch.export.ExportedProgram = program.run_decompositions()
        except Exception as error:  # torch raises whatever the network's code makes of its symbols
            raise UserError(f"the network cannot be written ({reason(error)})", str(path)) from error
    return decomposed


def _compared(
    module: ExportedSegmenter,
    answer: Callable[..., tuple[Tensor, ...]],
    images: Sequence[Tensor],
    path: Path,
    tolerance: float,
) -> tuple[int, float, float, float]:
    """Images, largest difference, its share, share of same instances.

    Every cell is a candidate, so that noise has instances; these are compared with what the same cells come to in
    torch.

    Raises:
        JobError: the answers differ by more than the tolerance, or are not finite.
    """
    least, worst, same = torch.zeros(1), [], []
    for part in images:
        expected, found = module(part, least), answer(part, least)
        seen = found[len(FOUND) :]
        worst += [difference([one], [other]) for one, other in zip(expected[len(FOUND) :], seen, strict=True)]
        logits, kernels, features = seen
        same.append(_same_instances(module.found(logits, kernels, features, least), found[: len(FOUND)]))
    apart, share = max(worst, key=lambda one: one.share), float(torch.cat(same).double().mean())
    if not apart.share <= tolerance:
        what = f"the file answers otherwise than the network: numbers of up to {apart.scale:.3g} differ by"
        raise JobError(f"{path}: {what} {apart.largest:.3g}, more than {tolerance:g} of them; it was not kept")
    if share < _LEAST_SAME:
        raise JobError(f"{path}: only {share:.0%} of its instances are those of the network; it was not kept")
    return sum(map(len, images)), apart.largest, apart.share, share


def _same_instances(expected: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
    """(B N,) bool: same score and, unless it is 0, same label and mask."""
    scores = (expected[0] - found[0]).abs() < 1e-3
    labels = expected[1] == found[1]
    masks = (expected[2] - found[2]).abs().amax((2, 3)) < 1e-3
    return (scores & (labels & masks | (expected[0] == 0))).flatten()


def _noise(size: tuple[int, int], batch: int | None, seed: int) -> list[Tensor]:
    """Batches to compare answers on; of several sizes where the file takes any."""
    with sample_rng(seed):
        return [torch.randn(count, 3, *size) for count in (_BATCHES if batch is None else (batch,))]
