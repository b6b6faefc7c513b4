"""A classifier for other programs: ONNX and `torch.export`, each read back and compared with the network itself.

Both take normalised images (B, 3, S, S) float32, any B, and give logits (B, C). How an image becomes such a tensor is
written beside the file and into it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.data.digits import load_digits_split
from vtk_cli.engine.seeds import sample_rng
from vtk_cli.errors import JobError, UserError
from vtk_cli.files import write_json
from vtk_cli.models.evaluation import normalised
from vtk_cli.models.export import draft, quiet_exporters, read_back, read_onnx, reason, require_onnx, save_program
from vtk_cli.models.zoo import PixelConfig

Format = Literal["onnx", "torch-export"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
PREPROCESSING = "preprocessing.json"
"""The member of a `.pt2` file, and the end of the name of the file beside each export, that holds the preprocessing."""
INPUT, OUTPUT = "images", "logits"

_BATCHES = (1, 3, 8)
"""Numbers of images at a time in the comparison: an export that is fixed to one of them fails."""


@dataclass(frozen=True)
class Export:
    """A file that was written and found to answer as the network does.

    Args:
        format: `onnx` or `torch-export`.
        path: the file; weights beyond 2 GB of an ONNX file lie beside it in `NAME.onnx.data`.
        bytes: its size, with that of its weights.
        images: how many were compared.
        difference: the largest difference of a logit.
        scale: the largest logit, by absolute value.
        same_answers: the share of images whose best class is the same.
    """

    format: Format
    path: Path
    bytes: int
    images: int
    difference: float
    scale: float
    same_answers: float

    def summary(self) -> dict[str, object]:
        """The fields as JSON can hold them."""
        return {**asdict(self), "path": str(self.path)}


def export_network(
    network: nn.Module,
    path: Path,
    form: Format,
    *,
    pixels: PixelConfig,
    class_names: Sequence[str],
    multi_label: bool = False,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Export:
    """Write a network in a format, read the file back and compare its answers on noise and on digits.

    Args:
        network: maps normalised images (B, 3, S, S) to logits (B, C); a copy of it on the CPU, in fp32 and in eval
            mode, is what is written.
        path: the file; its suffix becomes the format's, and `NAME.preprocessing.json` is written beside it.
        form: `onnx` or `torch-export`.
        pixels: the preprocessing.
        class_names: C, by label.
        multi_label: whether an image may show many classes (the file says so; logits are logits).
        tolerance: the largest difference of a logit, as a share of the largest logit's absolute value.
        seed: of the noise.

    Raises:
        UserError: a package is missing, or the network cannot be written in this format.
        JobError: what was read back answers otherwise, or the disk is full; no file is left then.
    """
    write, read = {"onnx": (_write_onnx, _read_onnx), "torch-export": (_write_program, _read_program)}[form]
    if form == "onnx":
        require_onnx()
    module = copy.deepcopy(network).cpu().float().eval()
    target = path.with_suffix(SUFFIXES[form])
    about = preprocessing(pixels, class_names, multi_label=multi_label)
    with draft(target) as written, torch.no_grad():
        example = torch.zeros(2, 3, pixels.input_size, pixels.input_size)
        with quiet_exporters():
            _written(write, module, example, written, about)
        answer = read_back(read, written, target)
        export = _compared(module, answer, form, target, images=probe_images(pixels, seed), tolerance=tolerance)
        size = sum(part.stat().st_size for part in written.parent.iterdir())
    write_json(target.with_suffix(f".{PREPROCESSING}"), about)
    return Export(**{**vars(export), "bytes": size})


def preprocessing(pixels: PixelConfig, class_names: Sequence[str], *, multi_label: bool) -> dict[str, Any]:
    """How an image becomes the input, and what the output means; JSON values."""
    size = pixels.input_size
    return {
        "input": {
            "name": INPUT,
            "shape": ["batch", 3, size, size],
            "type": "float32",
            "channels": "RGB",
            "values": "(pixel / 255 - mean) / std",
            "mean": list(pixels.mean),
            "std": list(pixels.std),
        },
        "resize": {
            "shorter_side": int(size / pixels.crop_pct),
            "interpolation": pixels.interpolation,
            "centre_crop": size,
        },
        "output": {
            "name": OUTPUT,
            "shape": ["batch", len(class_names)],
            "probabilities": "sigmoid" if multi_label else "softmax",
            "classes": list(class_names),
        },
    }


def probe_images(pixels: PixelConfig, seed: int = 0, count: int = 8) -> Tensor:
    """Normalised images to compare answers on: `count` of noise, `count` digits; (2 count, 3, S, S) float32."""
    side = pixels.input_size
    with sample_rng(seed):
        noise = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    digits = torch.from_numpy(load_digits_split("val").images[:count]).float()
    scaled = F.interpolate(digits, size=(side, side), mode="bilinear", align_corners=False).round().to(torch.uint8)
    return normalised(torch.cat([noise, scaled]), pixels)


Write = Callable[[nn.Module, Tensor, Path, dict[str, Any]], None]
Answer = Callable[[Tensor], Tensor]


def _written(write: Write, module: nn.Module, example: Tensor, path: Path, about: dict[str, Any]) -> None:
    try:
        write(module, example, path, about)
    except (OSError, UserError):
        raise
    except Exception as error:  # torch's exporters raise whatever the network's code makes of their symbols
        what = f"{type(module).__name__} cannot be written as {path.suffix} ({reason(error)})"
        raise UserError(what, fix="choose another --format or another network") from error


def _write_onnx(module: nn.Module, example: Tensor, path: Path, about: dict[str, Any]) -> None:
    program = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )
    if program is None:
        raise UserError("torch gave no ONNX program", str(path))
    save_program(program, path, {"preprocessing": json.dumps(about)})


def _read_onnx(path: Path) -> Answer:
    answer = read_onnx(path, (INPUT,), (OUTPUT,))
    return lambda images: answer(images)[0]


def _write_program(module: nn.Module, example: Tensor, path: Path, about: dict[str, Any]) -> None:
    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path, extra_files={PREPROCESSING: json.dumps(about)})


def _read_program(path: Path) -> Answer:
    return torch.export.load(path).module()


def _compared(
    module: nn.Module, answer: Answer, form: Format, path: Path, *, images: Tensor, tolerance: float
) -> Export:
    """Compare the answers of `module` and of what was read back, in batches of several sizes.

    Raises:
        JobError: they differ by more than the tolerance, or are not finite.
    """
    expected = module(images)
    scale = float(expected.abs().max())
    parts = torch.split(images, [*_BATCHES, len(images) - sum(_BATCHES)])
    found = torch.cat([answer(part) for part in parts])
    difference = float((found - expected).abs().max())
    if not difference <= tolerance * scale:  # also where it is NaN
        what = f"the file answers otherwise than the network: logits of up to {scale:.3g} differ by {difference:.3g}"
        raise JobError(f"{path}: {what}, more than {tolerance:g} of them; it was not kept")
    same = float((found.argmax(dim=1) == expected.argmax(dim=1)).double().mean())
    return Export(form, path, 0, len(images), difference, scale, same)
