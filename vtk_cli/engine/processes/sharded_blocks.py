"""Which parts of a network are put together on their own where its weights are shared out.

A network, or a part of one, may need all its weights at once: one that compares the scores of all layers, or takes
another path through its blocks in every pass. It says so with an attribute,

    needs_all_weights = True

and there are no blocks in it. Its forward pass then sees whole weights. What that costs: of N fp32 weights among W
processes each still keeps N / W weights, gradients, optimiser state and average from one update to the next, but from
the beginning of a forward pass to the end of the backward pass it has 4 N bytes of whole weights besides, and 4 N of
the gradients of those that learn and take part, where blocks would need those of a few of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn


def blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that repeat in a network: layers of a transformer, residual blocks.

    They are modules of one class that sit in `nn.Sequential`s or `nn.ModuleList`s, are made of other modules, and hold
    no such blocks themselves. The rest (stem, classifier, heads) is not among them, nor are blocks that share a
    parameter with anything else, nor those of what needs all its weights at once.

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
    together = {id(one) for module in model.modules() if needs_all_weights(module) for one in module.modules()}
    return [
        block
        for block in deepest
        if id(block) not in together and all(owners[id(parameter)] == 1 for parameter in block.parameters())
    ]


def needs_all_weights(module: nn.Module) -> bool:
    """Whether the module says that its forward pass needs all its weights at once."""
    return bool(getattr(module, "needs_all_weights", False))


def _in_sequences(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if isinstance(module, (nn.Sequential, nn.ModuleList)):
            for child in module.children():
                is_container = isinstance(child, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
                if not is_container and _has(child.children()) and _has(child.parameters()):
                    yield child


def _has(found: Iterator[object]) -> bool:
    return next(found, None) is not None
