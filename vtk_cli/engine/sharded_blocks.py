"""Which parts of a network are put together on their own where its weights are shared out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn


def blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that repeat in a network: layers of a transformer, residual blocks.

    They are modules of one class that sit in `nn.Sequential`s or `nn.ModuleList`s, are made of other modules, and hold
    no such blocks themselves. The rest (stem, classifier, heads) is not among them, nor are blocks that share a
    parameter with anything else.

    Args:
        model: whose blocks are called as modules are, not by another name than `forward`.

    Returns:
        Each once, in the order of the network.
    """
    kinds = Counter(type(module) for module in dict.fromkeys(_in_sequences(model)))
    found = [module for module in dict.fromkeys(_in_sequences(model)) if kinds[type(module)] > 1]
    repeated = set(found)
    deepest = [block for block in found if not any(one in repeated for one in block.modules() if one is not block)]
    owners = Counter(id(parameter) for block in deepest for parameter in block.parameters())
    inside = {id(module) for block in deepest for module in block.modules()}
    for module in model.modules():
        if id(module) not in inside:
            owners.update(id(parameter) for parameter in module.parameters(recurse=False))
    return [block for block in deepest if all(owners[id(parameter)] == 1 for parameter in block.parameters())]


def _in_sequences(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if isinstance(module, (nn.Sequential, nn.ModuleList)):
            for child in module.children():
                is_container = isinstance(child, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
                if not is_container and _has(child.children()) and _has(child.parameters()):
                    yield child


def _has(found: Iterator[object]) -> bool:
    return next(found, None) is not None
