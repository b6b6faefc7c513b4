"""AugPath: the sub-model drops whole residual branches, each for each sample, at one rate (arXiv 2306.11339).

Kept branches are scaled by 1 / (1 - rate), as in stochastic depth (arXiv 1603.09382).
"""

from __future__ import annotations

import re

from timm.layers import DropPath
from torch import nn

from vtk_cli.errors import UserError
from vtk_cli.train.sub.rates import RaisedRates
from vtk_cli.train.sub.ratio import SubRatio

_NAME = re.compile(r"drop_path\d*")


class DropPaths(RaisedRates):
    """For networks with timm's drop-path on their residual branches.

    Where the network stands at rate 0, timm puts an identity (or nothing, in ResNets) in its place: these become
    drop-paths of rate 0, which compute the same.

    Args:
        network: changed so.
        ratio: the drop-path rate.

    Raises:
        UserError: it has no such branches.
    """

    def __init__(self, network: nn.Module, ratio: SubRatio) -> None:
        found = [path for module in list(network.modules()) for path in _drop_paths(module)]
        if not found:
            what = f"a {type(network).__name__} has no drop-path on its residual branches"
            raise UserError(what, "--sub droppath", "use --sub mask")
        super().__init__(ratio, list(dict.fromkeys(found)), "drop_prob", "droppath")


def _drop_paths(module: nn.Module) -> list[nn.Module]:
    """The drop-paths that `module` owns, after putting them where only their place is."""
    names = [name for name, _ in module.named_children() if _NAME.fullmatch(name)]
    names += [name for name, value in vars(module).items() if value is None and _NAME.fullmatch(name)]
    for name in names:
        if getattr(module, name) is None or type(getattr(module, name)) is nn.Identity:
            setattr(module, name, DropPath(0.0).train(module.training))
    return [getattr(module, name) for name in names if isinstance(getattr(module, name), DropPath)]
