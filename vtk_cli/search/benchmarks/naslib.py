"""NASLib's extracts of NAS-Bench-201, `nb201_cifar10_full_training.pickle` and its like: means over seeds.

{architecture: {dataset: {train_acc1es, eval_acc1es, train_losses, eval_losses, cost_info: {flops, params, ...}}}}; the
first four are lists over epochs, the costs are in millions. CIFAR-10 is there as `cifar10-valid`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vtk_cli.errors import UserError
from vtk_cli.search.benchmarks.benchmark import Row

_MILLION = 1e6


def naslib_rows(content: Mapping[Any, Any], name: str) -> Iterator[Row]:
    """The rows of a file: the accuracy after the last epoch on the training images and on the others (`eval`).

    Args:
        content: of the pickle.
        name: of the file, for messages.

    Raises:
        UserError: it is not laid out as described above.
    """
    for arch, by_dataset in content.items():
        try:
            for dataset, curves in by_dataset.items():
                yield from _curve_rows(str(arch), str(dataset), curves)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            lacking = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read: {error}"
            what = f"is of another version or damaged: the entry of {arch} {lacking}"
            raise UserError(what, name, "known are NASLib's nb201_*_full_training.pickle") from error


def _curve_rows(arch: str, dataset: str, curves: Mapping[str, Any]) -> Iterator[Row]:
    cost = curves["cost_info"]
    flops, params = _MILLION * float(cost["flops"]), _MILLION * float(cost["params"])
    for split in ("train", "eval"):
        accuracies = curves[f"{split}_acc1es"]
        loss = float(curves[f"{split}_losses"][-1])
        finite = loss if math.isfinite(loss) else None
        yield Row(arch, dataset, split, str(len(accuracies)), None, float(accuracies[-1]), finite, flops, params)
