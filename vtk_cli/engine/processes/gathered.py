"""What several processes found of the samples that they shared, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def merged(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The per-sample records of several processes as one, in the order of `indices`.

    Args:
        parts: of each process; every array has its samples along the first axis.
    """
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(joined["indices"], kind="stable")
    return {name: values[order] for name, values in joined.items()}
