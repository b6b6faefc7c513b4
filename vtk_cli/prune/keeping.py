"""The choices of a search by name, and how much is kept: the fraction that a user writes, the number it promises.

The number is exact. Floats round the wrong way at the edges: of ten weights, `int((1 - 0.9) * 10)` prunes none. Here
0.9 is nine tenths.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

from vtk_cli.errors import UserError

Scope = Literal["layer", "global"]
"""`layer`: each layer keeps its own share; `global`: one threshold over the weights of all layers."""
Structure = Literal["none", "2:4"]
"""`2:4`: two of every four consecutive weights that one output sums over."""
WeightInit = Literal["signed-constant", "kaiming-normal", "normal", "gaussian10"]
ScoreInit = Literal["uniform", "kaiming", "positive"]
MomentAverage = Literal["ama", "ema", "none"]
FeatureNorm = Literal["layer", "none"]
ExtractorMode = Literal["eval", "train"]
AlgorithmName = Literal["edge-popup", "gem-miner", "imp", "magnitude", "dense", "random", "sparse"]

_IN_RANGE = "give a fraction above 0 and at most 1"
_LONG_EXPONENT = re.compile(r"e[-+]?[\d_]{5,}", re.IGNORECASE)
"""As an exact fraction such a number would fill the memory."""


def parse_keep(value: str | float | Fraction, where: str = "--keep") -> Fraction:
    """The fraction of weights to keep, exactly as written: `0.1` is one tenth.

    Args:
        value: a number in (0, 1], or text that reads as one.
        where: the option or field it came from, for the error.

    Raises:
        UserError: it is no number, or not in (0, 1].
    """
    if _LONG_EXPONENT.search(str(value)):
        raise UserError(f"{value} is not a fraction of the weights", where, _IN_RANGE)
    try:
        keep = Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"{value!r} is no number", where, "give the fraction of weights to keep, e.g. 0.1") from error
    if 0 < keep <= 1:
        return keep
    fix = f"did you mean {float(keep / 100):.2f}?" if 1 < keep <= 100 else _IN_RANGE
    raise UserError(f"{value} is not a fraction of the weights", where, fix)


def kept_of(n: int, keep: Fraction, least: int = 1) -> int:
    """How many of `n` weights are kept: `keep * n` rounded to the nearest, halves up, at least `least`, at most n."""
    return min(n, max(least, (2 * keep * n + 1).__floor__() // 2))
