"""AugDrop: the sub-model has more dropout (arXiv 2306.11339).

The dropout after a block's attention projection and the two of its MLP are raised; that of the attention matrix, of
the position embedding and of the head is not.
"""

from __future__ import annotations

from torch import nn

from vtk_cli.errors import UserError
from vtk_cli.train.sub.rates import RaisedRates
from vtk_cli.train.sub.ratio import SubRatio

_NAMES = frozenset({"proj_drop", "drop1", "drop2", "mlp_drop"})
"""timm's names: of attention, of its MLPs, and of blocks with both in parallel."""


class Dropouts(RaisedRates):
    """For networks whose blocks own dropout modules, at rate 0 too: timm's transformers.

    Args:
        network: whose modules are found.
        ratio: the dropout rate.

    Raises:
        UserError: it has none.
    """

    def __init__(self, network: nn.Module, ratio: SubRatio) -> None:
        found = [
            module
            for name, module in network.named_modules()
            if isinstance(module, nn.Dropout) and name.rpartition(".")[2] in _NAMES
        ]
        if not found:
            what = f"a {type(network).__name__} has no dropout in its blocks"
            raise UserError(what, "--sub dropout", "use --sub mask")
        super().__init__(ratio, found, "p", "dropout")
