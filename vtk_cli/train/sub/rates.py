"""Rates that are raised while the sub-model runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import nn

from vtk_cli.train.sub.model import SubDraw, SubModel
from vtk_cli.train.sub.ratio import SubRatio


class RaisedRates(SubModel):
    """The dropping of modules that the network owns, at another rate.

    Args:
        ratio: the rate.
        modules: whose attribute is raised; held by reference, not as a part of this module.
        attribute: its name, e.g. `p`.
        name: of the way of dropping.
    """

    def __init__(self, ratio: SubRatio, modules: Sequence[nn.Module], attribute: str, name: str) -> None:
        super().__init__(ratio, 0, name)
        self._modules_raised, self._attribute = tuple(modules), attribute

    @contextmanager
    def applied(self, network: nn.Module, draw: SubDraw) -> Iterator[None]:  # noqa: ARG002
        """Inside, every rate is the draw's."""
        with replaced(self._modules_raised, {self._attribute: draw.ratio}):
            yield


@contextmanager
def replaced(modules: Sequence[nn.Module], values: Mapping[str, object]) -> Iterator[None]:
    """Inside, the modules' attributes have these values; afterwards each has its own again, whatever happened."""
    before = [{name: getattr(module, name) for name in values} for module in modules]
    try:
        for module in modules:
            for name, value in values.items():
                setattr(module, name, value)
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            for name, value in own.items():
                setattr(module, name, value)
