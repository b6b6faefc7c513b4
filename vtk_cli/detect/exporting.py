"""A detector for other programs, as ONNX: deformable attention as GridSample, the image-independent part computed once.

The file takes normalised images (B, 3, H, W) float32 of one size and gives logits (B, Q, K), boxes (B, Q, 4) as cx, cy,
w, h in [0, 1] of the input, and with masks their codes (B, Q, n). What to do with them is written into it.
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
from torch.nn import functional as F

from vtk_cli.detect.checkpoint import Detector
from vtk_cli.detect.configurations import Classes
from vtk_cli.detect.network import FoldedDetector
from vtk_cli.detect.predictions import PaddedImages
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

INPUT = "images"
LOGITS, BOXES, CODES = "logits", "boxes", "mask_codes"
_BATCHES = (1, 3, 2)
"""Images at a time in the comparison of a file for any number of them."""


@dataclass(frozen=True)
class Export:
    """A file that was written and found to answer as the detector does.

    Args:
        path: the file.
        bytes: its size, with that of its weights.
        batch: images at a time; None for any number.
        size: height and width.
        images: how many were compared.
        difference: the largest difference of a logit, a box or a code.
        share: the same as a share of the largest of all.
        same_answers: the share of queries whose likeliest class is the same.
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


class ExportedDetector(nn.Module):
    """A folded detector as a function of tensors: images without padding in, tensors out.

    Args:
        network: on the CPU, in fp32.
        codes: with the codes of the masks.
    """

    def __init__(self, network: Detector, *, codes: bool) -> None:
        super().__init__()
        self.folded = FoldedDetector(network)
        self._codes = codes

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, Q, K), boxes (B, Q, 4) and, if asked for, codes (B, Q, n) of images (B, 3, H, W)."""
        B, _, H, W = images.shape
        nowhere = torch.zeros(B, H, W, dtype=torch.bool, device=images.device)
        final = self.folded(PaddedImages(images, nowhere, torch.zeros(0, 2, dtype=torch.int64))).final
        if self._codes and final.vectors is not None:
            return final.logits, final.boxes, final.vectors
        return final.logits, final.boxes


def export_detector(
    network: Detector,
    path: Path,
    *,
    size: tuple[int, int],
    batch: int | None,
    classes: Classes,
    codes: bool = False,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Export:
    """Write a detector as ONNX, read the file back in onnxruntime and compare its answers on noise.

    Args:
        network: a copy of it on the CPU, in fp32 and eval mode, is what is written.
        path: the file, `.onnx`; beside it comes `NAME.json` that says what goes in and what comes out.
        size: height and width of the images.
        batch: images at a time; None for any number.
        classes: what the labels mean.
        codes: with the codes of masks.
        tolerance: the largest difference, as a share of the largest number of its output.
        seed: of the noise.

    Raises:
        UserError: a package is missing, the detector has no masks, or it cannot be written.
        JobError: what was read back answers otherwise, or the disk is full; no file is left then.
    """
    require_onnx()
    if codes and not network.config.mask_coefficients:
        raise UserError("the detector has learned no masks", "--mask", "leave it out")
    module = ExportedDetector(copy.deepcopy(network).cpu().float(), codes=codes).eval()
    outputs = (LOGITS, BOXES, *((CODES,) if codes else ()))
    about = description(network, classes, size, batch, outputs)
    with draft(path) as written, torch.no_grad():
        program = _program(module, size, batch, path)
        save_onnx(program, written, inputs=(INPUT,), outputs=outputs, metadata={"detector": json.dumps(about)})
        answer = read_back(lambda draft: read_onnx(draft, (INPUT,), outputs), written, path)
        compared = _compared(module, answer, _noise(size, batch, seed), path, tolerance)
        used = sum(part.stat().st_size for part in written.parent.iterdir())
    write_json(path.with_suffix(".json"), about)
    return Export(path, used, batch, size, *compared)


def description(
    network: Detector, classes: Classes, size: tuple[int, int], batch: int | None, outputs: Sequence[str]
) -> dict[str, Any]:
    """What goes in and what comes out; JSON values."""
    config = network.config
    rows = "batch" if batch is None else batch
    softmax = config.neck == "none"
    shapes = {
        LOGITS: [rows, config.queries, config.classes + softmax],
        BOXES: [rows, config.queries, 4],
        CODES: [rows, config.queries, config.mask_coefficients],
    }
    meanings = {
        LOGITS: "softmax over the classes and no object" if softmax else "a sigmoid a class",
        BOXES: "cx, cy, w, h in [0, 1] of the input",
        CODES: "the first coefficients, in zigzag order, of the orthonormal DCT-II of a mask of 128 x 128 in its box",
    }
    return {
        "input": {
            "name": INPUT,
            "shape": [rows, 3, *size],
            "type": "float32",
            "channels": "RGB",
            "values": "(pixel / 255 - mean) / std",
            "mean": list(IMAGENET_DEFAULT_MEAN),
            "std": list(IMAGENET_DEFAULT_STD),
            "resize": "to the input's height and width",
        },
        "outputs": [{"name": name, "shape": shapes[name], "meaning": meanings[name]} for name in outputs],
        "classes": list(classes.names),
        "category_ids": list(classes.category_ids),
    }


def _program(module: nn.Module, size: tuple[int, int], batch: int | None, path: Path) -> torch.export.ExportedProgram:
    """The detector as a graph of torch's own operators."""
    example = torch.zeros(batch or 2, 3, *size)
    shapes = None if batch is not None else ({0: torch.export.Dim("batch")},)
    table: dict[Any, Callable[..., Any]] = {torch.ops.vtk_kernels.deformable_attention.default: _plain_attention}
    with quiet_exporters():
        try:
            program: torch.export.ExportedProgram = torch.export.export(module, (example,), dynamic_shapes=shapes)
            decomposed: torch.export.ExportedProgram = program.run_decompositions(
                {**torch.export.default_decompositions(), **table}
            )
        except Exception as error:  # torch raises whatever the network's code makes of its symbols
            raise UserError(f"the detector cannot be written ({reason(error)})", str(path)) from error
    return decomposed


def _plain_attention(*arguments: Any) -> Tensor:
    """The fused operator of deformable attention by `grid_sample`, in operators that ONNX has.

    Args:
        arguments: value (B, S, M, D), heights and widths of the levels, reference (B, Q, L, 2 or 4), offsets
            (B, Q, M, L, P, 2), logits (B, Q, M, L * P), and whether it is to be deterministic, which it is.
    """
    value, sides, reference, offsets, logits, _ = arguments
    B, _, M, D = value.shape
    Q, P = offsets.shape[1], offsets.shape[4]
    weights = logits.softmax(-1).reshape(offsets.shape[:-1])
    shapes = list(zip(sides[::2], sides[1::2], strict=True))
    out: Tensor = value.new_zeros(())
    for level, cells in enumerate(torch.split(value, [H * W for H, W in shapes], dim=1)):
        H, W = shapes[level]
        around = reference[:, :, None, level, None]  # (B, Q, 1, 1, 2 or 4)
        moved = offsets[:, :, :, level]  # (B, Q, M, P, 2)
        if reference.shape[-1] == 2:
            at = around + torch.stack((moved[..., 0] / W, moved[..., 1] / H), -1)
        else:
            at = around[..., :2] + moved / P * around[..., 2:] * 0.5
        maps = cells.permute(0, 2, 3, 1).reshape(B * M, D, H, W)
        grid = (at * 2 - 1).transpose(1, 2).reshape(B * M, Q, P, 2)
        seen = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)  # (B * M, D, Q, P)
        out = out + (seen * weights[:, :, :, level].transpose(1, 2).reshape(B * M, 1, Q, P)).sum(-1)
    return out.reshape(B, M * D, Q).transpose(1, 2)


def _compared(
    module: nn.Module, answer: Callable[..., tuple[Tensor, ...]], images: Sequence[Tensor], path: Path, tolerance: float
) -> tuple[int, float, float, float]:
    """Images, largest difference, its share, share of same classes.

    Raises:
        JobError: the answers differ by more than the tolerance, or are not finite.
    """
    expected = [torch.cat(each) for each in zip(*(module(part) for part in images), strict=True)]
    found = [torch.cat(each) for each in zip(*(answer(part) for part in images), strict=True)]
    apart = [difference([one], [other]) for one, other in zip(expected, found, strict=True)]
    worst = max(apart, key=lambda one: one.share)
    if not worst.share <= tolerance:
        what = f"the file answers otherwise than the detector: numbers of up to {worst.scale:.3g} differ by"
        raise JobError(f"{path}: {what} {worst.largest:.3g}, more than {tolerance:g} of them; it was not kept")
    same = float((expected[0].argmax(-1) == found[0].argmax(-1)).double().mean())
    return len(expected[0]), worst.largest, worst.share, same


def _noise(size: tuple[int, int], batch: int | None, seed: int) -> list[Tensor]:
    """Batches to compare answers on; of several sizes where the file takes any."""
    with sample_rng(seed):
        return [torch.randn(count, 3, *size) for count in (_BATCHES if batch is None else (batch,))]
