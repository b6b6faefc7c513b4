"""A ticket held to all that it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.prune.generators import Generator
from vtk_cli.prune.keeping import kept_of
from vtk_cli.prune.masking import prunable
from vtk_cli.prune.rebuilding import rebuild
from vtk_cli.prune.selection import two_of_four_mask
from vtk_cli.prune.ticket import Ticket, some


@dataclass(frozen=True)
class Finding:
    """One thing that `verify` looked at.

    Args:
        claim: what has to hold.
        holds: whether it does.
        found: what was found, for people.
    """

    claim: str
    holds: bool
    found: str


def verify(ticket: Ticket, theta: Mapping[str, Tensor] | None = None) -> tuple[Finding, ...]:
    """Rebuild a ticket and hold it to all that it says of itself.

    Args:
        ticket: as `read_ticket` gave it, so that sums and counts in its file hold.
        theta: as in `rebuild`.

    Returns:
        The findings; all of them hold for a ticket that is whole.
    """
    network, weights = _rebuilt(ticket, theta)
    wrong = [
        f"{layer.name} keeps {int(ticket.masks[layer.name].sum())} for {layer.kept}"
        for layer in ticket.layers
        if int(ticket.masks[layer.name].sum()) != layer.kept
    ]
    counts = Finding("every mask keeps what the header says", not wrong, some(wrong) or f"{len(ticket.layers)} layers")
    bad = [name for name, tensor in ticket.rest.items() if not _is_statistic(name, tensor)]
    claim = "batch-norm statistics are finite, no variance is negative"
    statistics = Finding(claim, not bad, some(bad) or f"{len(ticket.rest)} tensors")
    return (weights, counts, _promise(ticket, network), statistics)


def _is_statistic(name: str, tensor: Tensor) -> bool:
    is_finite = bool(tensor.isfinite().all())
    return is_finite and not (name.endswith("running_var") and bool((tensor < 0).any()))


def _rebuilt(ticket: Ticket, theta: Mapping[str, Tensor] | None) -> tuple[Generator | None, Finding]:
    claim = "the rebuilt weights are those it was written from"
    try:
        network = rebuild(ticket, theta)
    except UserError as error:
        return None, Finding(claim, holds=False, found=str(error))
    return network, Finding(claim, holds=True, found=f"SHA-256 {ticket.weights_sha256}")


def _promise(ticket: Ticket, network: Generator | None) -> Finding:
    """Whether exactly the promised number of weights is kept."""
    pool = ticket.pool
    total, kept = sum(layer.n for layer in pool), sum(layer.kept for layer in pool)
    found = f"{kept} of {total} weights kept"
    if ticket.structure == "2:4":
        claim = "two of every four weights are kept"
        if network is None:
            return Finding(claim, holds=False, found="its layers are not known")
        wrong = [name for name, layer in _pool(ticket, network) if not _is_two_of_four(layer, ticket.masks[name])]
        return Finding(claim, not wrong, f"not in {some(wrong)}" if wrong else found)
    if ticket.scope == "global":
        promised = kept_of(total, ticket.keep, least=len(pool))
        return Finding(f"{ticket.keep} of all weights: {promised}", kept == promised, found)
    wrong = [f"{layer.name} keeps {layer.kept}" for layer in pool if layer.kept != kept_of(layer.n, ticket.keep)]
    return Finding(f"{ticket.keep} of every layer's weights", not wrong, some(wrong) or found)


def _pool(ticket: Ticket, network: Generator) -> list[tuple[str, nn.Module]]:
    pool = {layer.name for layer in ticket.pool}
    return [(name, layer) for name, layer in prunable(network).items() if name in pool]


def _is_two_of_four(layer: nn.Module, mask: Tensor) -> bool:
    """The two largest of each four numbers of a mask, counted as `select` does, are then the mask itself."""
    rows = (mask.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else mask).flatten(1)
    return rows.shape[1] % 4 == 0 and torch.equal(two_of_four_mask(rows.float()), rows)
