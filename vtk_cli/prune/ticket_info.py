"""What a ticket is, in tables: layer by layer how much is kept, and what it weighs in every form."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from vtk_cli.prune.counts import Counts, LayerCount
from vtk_cli.prune.mask_bits import encode, entropy_bytes
from vtk_cli.prune.ticket import Layer, Ticket

LAYER_COLUMNS = ("layer", "shape", "weights", "kept", "%")
SIZE_COLUMNS = ("form", "bytes", "of the weights")
NO_SPEED_UP = "Weights that are left out here and there make the file small, not the generator fast."
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Sizes:
    """What a ticket's parts weigh, in bytes.

    Args:
        weights: of the layers it selects from, float32, all of them.
        bits: one bit for each of those weights.
        deflated: the same, deflated.
        rice: the masks in Rice codes.
        bound: the entropy of masks that keep so much of each layer without a pattern.
        rest: the batch-norm statistics and whatever else, float32.
        stored: the kept weights, where the ticket holds them.
        file: the ticket file; None before it is written.
    """

    weights: int
    bits: int
    deflated: int
    rice: int
    bound: int
    rest: int
    stored: int
    file: int | None = None


def sizes(ticket: Ticket, file: int | None = None) -> Sizes:
    """What the ticket's parts weigh.

    Args:
        ticket: any.
        file: the size of its file in bytes.
    """
    masks = [mask.numpy().ravel() for mask in ticket.masks.values()]
    total = sum(layer.n for layer in ticket.layers)
    return Sizes(
        weights=4 * total,
        bits=ceil(total / 8),
        deflated=len(encode(masks, "zlib")),
        rice=len(encode(masks, "rice")),
        bound=entropy_bytes([(layer.n, layer.kept) for layer in ticket.layers]),
        rest=4 * sum(tensor.numel() for tensor in ticket.rest.values()),
        stored=0 if ticket.kept_weights is None else 4 * ticket.kept_weights.numel(),
        file=file,
    )


def ticket_counts(ticket: Ticket) -> Counts:
    """How many weights are kept, layer by layer, frozen layers in full."""
    layers = (LayerCount(layer.name, layer.shape, layer.n, layer.kept) for layer in ticket.layers)
    other = sum(tensor.numel() for name, tensor in ticket.rest.items() if not name.endswith(_STATISTICS))
    return Counts(tuple(layers), other)


def kept_shares(ticket: Ticket) -> dict[str, float]:
    """The kept fraction of the pool, of all prunable weights (frozen layers included), and of all parameters."""
    found, pool = ticket_counts(ticket), ticket.pool
    kept = sum(layer.kept for layer in pool) / sum(layer.n for layer in pool)
    return {"pool": kept, "prunable": found.kept_fraction, "parameters": found.kept_fraction_of_all}


def layer_rows(ticket: Ticket) -> list[tuple[str, str, int, int, str]]:
    """One row a layer, under `LAYER_COLUMNS`, and one for all of them."""
    rows = [_row(layer.name + (" (frozen)" if layer.frozen else ""), layer) for layer in ticket.layers]
    found = ticket_counts(ticket)
    return [*rows, ("all", "", found.n, found.kept, _percent(found.kept_fraction))]


def size_rows(found: Sizes) -> list[tuple[str, int, str]]:
    """One row a form, under `SIZE_COLUMNS`."""
    named = (
        ("weights, float32", found.weights),
        ("masks, one bit a weight", found.bits),
        ("masks, deflated", found.deflated),
        ("masks, Rice codes", found.rice),
        ("masks, their entropy", found.bound),
        ("batch-norm statistics", found.rest),
        ("stored weights", found.stored),
        ("ticket file", found.file or 0),
    )
    return [(name, size, _ratio(found.weights, size)) for name, size in named if size]


def summary(ticket: Ticket, file: int | None = None) -> dict[str, Any]:
    """Everything that is to be said of a ticket, as JSON can hold it.

    Args:
        ticket: any.
        file: the size of its file in bytes.
    """
    origin = {**vars(ticket.origin), "scale": str(ticket.origin.scale)}
    layers = [{**vars(layer), "shape": list(layer.shape), "n": layer.n} for layer in ticket.layers]
    return {
        "generator": dict(ticket.generator),
        "algorithm": ticket.algorithm,
        "keep": float(ticket.keep),
        "scope": ticket.scope,
        "structure": ticket.structure,
        "theta": origin,
        "kept": kept_shares(ticket),
        "layers": layers,
        "warnings": ticket_counts(ticket).warnings(),
        "bytes": dict(vars(sizes(ticket, file))),
        "metrics": dict(ticket.metrics),
        "made_with": dict(ticket.made_with),
        "weights_sha256": ticket.weights_sha256,
    }


def _row(name: str, layer: Layer) -> tuple[str, str, int, int, str]:
    return (name, " x ".join(map(str, layer.shape)), layer.n, layer.kept, _percent(layer.kept / layer.n))


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _ratio(whole: int, part: int) -> str:
    return "1" if whole == part else f"1/{whole / part:.1f}"
