"""Which weights are kept, from an amount for each: exact counts, ties included.

Higher amounts come first, and among equal ones the lower flat index, on every device. Edge-popup (arXiv 1911.13299)
takes |score| for the amount, magnitude pruning |weight|, a random mask random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.prune.keeping import Scope, Structure, kept_of

_GROUP, _KEPT_OF_GROUP = 4, 2


def top_k_mask(amounts: Tensor, kept: int) -> Tensor:
    """The mask of the `kept` largest amounts; among equal ones the lower flat index is kept.

    Args:
        amounts: any shape, not NaN.
        kept: 0 to the number of amounts.

    Returns:
        bool, of the shape of `amounts`, with exactly `kept` true.

    Raises:
        ValueError: `kept` is out of range.
    """
    flat = amounts.detach().reshape(-1)
    if not 0 <= kept <= len(flat):
        raise ValueError(f"kept: expected 0 to {len(flat)}, got {kept}")
    if kept in (0, len(flat)):
        return torch.full_like(amounts, kept > 0, dtype=torch.bool)
    threshold = _kth_largest(flat, kept)
    if flat.device.type == "cpu":
        mask = flat >= threshold
        if int(mask.count_nonzero()) == kept:
            return mask.view(amounts.shape)
    # On a GPU numbering the ties costs less than waiting to learn whether they must be.
    mask, ties = flat > threshold, flat == threshold
    mask |= ties & (ties.cumsum(0, dtype=torch.int32) <= kept - mask.sum())
    return mask.view(amounts.shape)


def two_of_four_mask(rows: Tensor) -> Tensor:
    """The two largest of every four consecutive amounts of a row; among equal ones the earlier is kept.

    Args:
        rows: (R, L) amounts, L a multiple of 4.

    Returns:
        bool (R, L), half of it true.
    """
    groups = rows.detach().reshape(-1, _GROUP)
    first = groups.argsort(dim=1, descending=True, stable=True)[:, :_KEPT_OF_GROUP]
    return torch.zeros_like(groups, dtype=torch.bool).scatter(1, first, value=True).view(rows.shape)


def select(
    layers: Mapping[str, nn.Module],
    amounts: Mapping[str, Tensor],
    keep: Fraction,
    scope: Scope,
    structure: Structure = "none",
) -> dict[str, Tensor]:
    """The masks of all layers.

    Args:
        layers: the prunable layers by name.
        amounts: of each layer's weights, in the shape of its weight.
        keep: the fraction of weights to keep.
        scope: `layer`: `kept_of(n, keep)` of each; `global`: `kept_of(N, keep)` of all together, the largest one of
            every layer first, so that no layer dies and the total still holds.
        structure: with `2:4` exactly half of the weights stay, whatever the scope.

    Returns:
        bool masks by name, in the order of `layers`.

    Raises:
        UserError: a layer does not divide into groups of four, or `keep` is not one half with `2:4`.
    """
    if structure == "2:4":
        require_two_of_four(layers, keep)
        return {name: _two_of_four(layer, amounts[name]) for name, layer in layers.items()}
    if scope == "layer":
        return {name: top_k_mask(amounts[name], kept_of(amounts[name].numel(), keep)) for name in layers}
    total = sum(amounts[name].numel() for name in layers)
    return select_globally({name: amounts[name] for name in layers}, kept_of(total, keep, least=len(layers)))


def require_two_of_four(layers: Mapping[str, nn.Module], keep: Fraction) -> None:
    """Refuse what `2:4` cannot be.

    Raises:
        UserError: as `select`.
    """
    if keep != Fraction(1, 2):
        raise UserError(f"2:4 keeps one half of the weights, not {float(keep):g}", "--structure", "give --keep 0.5")
    for name, layer in layers.items():
        length = _rows(layer, _weight(layer)).shape[1]
        if length % _GROUP:
            what = f"layer {name} sums over {length} weights, which do not divide into fours"
            raise UserError(what, "--structure", "choose another --ngf or --nz, or --structure none")


def select_globally(amounts: Mapping[str, Tensor], kept: int) -> dict[str, Tensor]:
    """The masks of the `kept` largest amounts of all layers, the largest one of every layer among them.

    Args:
        amounts: by name.
        kept: at least one a layer, at most all.
    """
    sizes = [amount.numel() for amount in amounts.values()]
    if kept < len(sizes):
        raise ValueError(f"{kept} weights cannot be shared by {len(sizes)} layers")
    pool = torch.cat([amount.detach().reshape(-1) for amount in amounts.values()])
    start = 0
    for size in sizes:
        best = pool[start : start + size].argmax()  # the first of equal ones
        pool.index_fill_(0, best + start, torch.inf)
        start += size
    parts = top_k_mask(pool, kept).split(sizes)
    return {name: part.view(amount.shape) for (name, amount), part in zip(amounts.items(), parts, strict=True)}


def _kth_largest(flat: Tensor, k: int) -> Tensor:
    if flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64):
        place = len(flat) - k  # NumPy's selection is vectorised, and several times as fast as `kthvalue`
        return flat.new_tensor(np.partition(flat.numpy(), place)[place])
    # `kthvalue` works in a single block of a GPU; `topk` spreads a long row over the card.
    return flat.topk(k, sorted=False).values.amin()


def _two_of_four(layer: nn.Module, amounts: Tensor) -> Tensor:
    mask = two_of_four_mask(_rows(layer, amounts))
    if isinstance(layer, nn.ConvTranspose2d):
        return mask.view(amounts.transpose(0, 1).shape).transpose(0, 1).contiguous()
    return mask.view(amounts.shape)


def _rows(layer: nn.Module, values: Tensor) -> Tensor:
    """(outputs, weights that one output sums over)."""
    return (values.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else values).flatten(1)


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)  # noqa: S101
    return weight
