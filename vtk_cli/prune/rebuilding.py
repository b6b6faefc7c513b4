"""From a generator whose weights were selected to its ticket, and back to the very same network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import torch
from torch import Tensor, nn

from vtk_cli import __version__
from vtk_cli.errors import UserError
from vtk_cli.models.weights import mismatch
from vtk_cli.prune.generators import Generator, create_generator
from vtk_cli.prune.keeping import kept_of
from vtk_cli.prune.masking import Masked, MaskedNetwork, Selection, prunable
from vtk_cli.prune.selection import two_of_four_mask
from vtk_cli.prune.ticket import Layer, Origin, Ticket
from vtk_cli.prune.weights import WeightRule, effective_sha256, initialise_weights, weights_sha256

_SAME_EVERYWHERE = "signed-constant"
_SHOWN = 3


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


def seeded(rule: WeightRule, *, allow_framework_rng: bool = False) -> Origin:
    """Weights that the seed alone gives back.

    Args:
        rule: how they were made.
        allow_framework_rng: accept weights from torch's generator, whose numbers may be others in another version.

    Raises:
        UserError: torch's generator drew them and that was not allowed.
    """
    if rule.init == _SAME_EVERYWHERE:
        return Origin("seed", rule.init, rule.seed, rule.scale)
    if allow_framework_rng:
        return Origin("seed", rule.init, rule.seed, rule.scale, torch=str(torch.__version__))
    what = f"{rule.init} weights are drawn by torch, whose numbers may change with its version"
    fix = "store the kept weights in it (--store-weights), or give --allow-framework-rng"
    raise UserError(what, "ticket", fix)


def of_checkpoint(network: MaskedNetwork) -> Origin:
    """Weights from a file that whoever rebuilds the network has as well; the ticket knows them by their sum."""
    return Origin("checkpoint", sha256=weights_sha256(network.network))


def stored(init: str = "") -> Origin:
    """Weights that the ticket holds itself, the kept ones as 4 bytes each; `init` is for information."""
    return Origin("stored", init)


@torch.no_grad()
def ticket_of(
    network: MaskedNetwork, origin: Origin, *, algorithm: str, metrics: Mapping[str, Any] | None = None
) -> Ticket:
    """The ticket of a generator with the masks that its scores ask for now.

    Args:
        network: of a `Generator`, on any device; layers that are not masked are taken for frozen, outside the pool.
        origin: where its weights come from; what it says is checked when the ticket is rebuilt.
        algorithm: what found the masks.
        metrics: what was measured; JSON values.
    """
    generator = cast("Generator", network.network)
    network.refresh()
    layers, masks = [], {}
    for name, module in prunable(generator).items():
        weight = cast("Tensor", module.weight)
        frozen = not isinstance(module, Masked)
        mask = module.mask if isinstance(module, Masked) else torch.ones_like(weight, dtype=torch.bool)
        masks[name] = mask.cpu().clone()
        layers.append(Layer(name, tuple(weight.shape), int(mask.sum()), frozen))
    kept = torch.cat([weight.float().cpu()[masks[name]] for name, weight in _effective(generator)])
    selection: Selection = network.selection
    return Ticket(
        generator=generator.arguments,
        keep=selection.keep,
        scope=selection.scope,
        structure=selection.structure,
        algorithm=algorithm,
        origin=origin,
        layers=tuple(layers),
        masks=masks,
        rest={name: tensor.float().cpu().clone() for name, tensor in _rest(generator)},
        weights_sha256=effective_sha256(generator),
        kept_weights=kept if origin.source == "stored" else None,
        metrics=dict(metrics or {}),
        made_with={"vtk-cli": __version__, "torch": str(torch.__version__), "numpy": _version_of("numpy")},
    )


@torch.no_grad()
def rebuild(ticket: Ticket, theta: Mapping[str, Tensor] | None = None) -> Generator:
    """The very network that the ticket was written from, as a plain generator in eval mode on the CPU.

    Its weights are compared with the sum in the ticket. No global generator of random numbers is touched.

    Args:
        ticket: of `ticket_of` or `read_ticket`.
        theta: the state dict of the checkpoint whose weights the ticket selects from, where it does.

    Raises:
        UserError: the ticket is of a generator that is not known, or of other layers; the checkpoint is missing or
            another; or the weights are not those that it was written from.
    """
    generator = _empty(ticket)
    fill_weights(generator, ticket, theta)
    for name, layer in prunable(generator).items():
        cast("Tensor", layer.weight).masked_fill_(~ticket.masks[name], 0.0)
    generator.load_state_dict(dict(ticket.rest), strict=False)
    if effective_sha256(generator) != ticket.weights_sha256:
        raise UserError("the rebuilt weights are not those that the ticket was written from", "ticket", _remedy(ticket))
    return generator.requires_grad_(requires_grad=False).eval()


@torch.no_grad()
def fill_weights(generator: Generator, ticket: Ticket, theta: Mapping[str, Tensor] | None = None) -> None:
    """Give a generator the frozen weights that a ticket selects from, before any mask.

    Where the ticket stores weights, those that are not kept are 0.

    Args:
        generator: plain, of the ticket's layers.
        ticket: says where they come from.
        theta: as in `rebuild`.

    Raises:
        UserError: the checkpoint is missing or another.
    """
    origin, layers = ticket.origin, prunable(generator)
    if origin.source == "seed":
        rule = WeightRule(cast("Any", origin.init), cast("int", origin.seed), origin.scale)
        initialise_weights(generator, rule)
        return
    if origin.source == "stored":
        parts = cast("Tensor", ticket.kept_weights).split([layer.kept for layer in ticket.layers])
        for layer, part in zip(ticket.layers, parts, strict=True):
            weight = cast("Tensor", layers[layer.name].weight)
            weight.zero_().masked_scatter_(ticket.masks[layer.name], part)
        return
    if theta is None:
        what = "the ticket selects from the weights of a checkpoint, which is not in it"
        raise UserError(what, "ticket", f"give that checkpoint with --theta (its weights have the sum {origin.sha256})")
    _load_weights(layers, theta)
    if (found := weights_sha256(generator)) != origin.sha256:
        what = f"the checkpoint holds other weights ({found[:12]}) than the ticket selects from ({origin.sha256[:12]})"
        raise UserError(what, "--theta", "give the checkpoint that the ticket was found on")


def verify(ticket: Ticket, theta: Mapping[str, Tensor] | None = None) -> tuple[Finding, ...]:
    """Rebuild a ticket and hold it to all that it says of itself.

    Args:
        ticket: as `read_ticket` gave it, so that sums and counts in its file hold.
        theta: as in `rebuild`.

    Returns:
        The findings; all of them hold for a ticket that is whole.
    """
    try:
        network: Generator | None = rebuild(ticket, theta)
        rebuilt = Finding("the weights are those it was written from", True, f"SHA-256 {ticket.weights_sha256}")
    except UserError as error:
        network, rebuilt = None, Finding("the weights are those it was written from", False, str(error))
    wrong = [
        f"{layer.name} keeps {int(ticket.masks[layer.name].sum())} for {layer.kept}"
        for layer in ticket.layers
        if int(ticket.masks[layer.name].sum()) != layer.kept
    ]
    counts = Finding(
        "every mask keeps what the header says", not wrong, _first(wrong) or f"{len(ticket.layers)} layers"
    )
    bad = [name for name, tensor in ticket.rest.items() if not bool(tensor.isfinite().all())]
    finite = Finding("the batch-norm statistics are finite", not bad, _first(bad) or f"{len(ticket.rest)} tensors")
    return (rebuilt, counts, _promise(ticket, network), finite)


def _promise(ticket: Ticket, network: Generator | None) -> Finding:
    """Whether exactly the promised number of weights is kept."""
    pool = ticket.pool
    total, kept = sum(layer.n for layer in pool), sum(layer.kept for layer in pool)
    found = f"{kept} of {total} weights kept"
    if ticket.structure == "2:4":
        claim = "two of every four weights are kept"
        return Finding(claim, network is not None and all(_is_two_of_four(ticket, layer) for layer in pool), found)
    if ticket.scope == "global":
        promised = kept_of(total, ticket.keep, least=len(pool))
        return Finding(f"{ticket.keep} of all weights: {promised}", kept == promised, found)
    wrong = [f"{layer.name} keeps {layer.kept}" for layer in pool if layer.kept != kept_of(layer.n, ticket.keep)]
    return Finding(f"{ticket.keep} of every layer's weights", not wrong, _first(wrong) or found)


def _is_two_of_four(ticket: Ticket, layer: Layer) -> bool:
    """By input, as `select` counts: of a mask itself the two largest of each four are those that are kept."""
    module = prunable(_on_meta(ticket))[layer.name]
    mask = ticket.masks[layer.name]
    rows = (mask.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else mask).flatten(1)
    return rows.shape[1] % 4 == 0 and torch.equal(two_of_four_mask(rows.float()), rows)


def _empty(ticket: Ticket) -> Generator:
    """The ticket's generator with room for everything that `rebuild` fills in; the counters of batches are 0.

    Raises:
        UserError: the ticket's layers or its other tensors are not the generator's.
    """
    generator = _on_meta(ticket)
    ours = {name: tuple(cast("Tensor", layer.weight).shape) for name, layer in prunable(generator).items()}
    theirs = {layer.name: layer.shape for layer in ticket.layers}
    differs = [
        f"{name} is {theirs.get(name, 'missing')} for {ours.get(name, 'none')}"
        for name in {**ours, **theirs}
        if ours.get(name) != theirs.get(name)
    ]
    if differs or list(ours) != list(theirs):
        what = (
            f"{len(differs)} layers are not those of {generator.name}: {_first(differs) or 'they are in another order'}"
        )
        raise UserError(what, "ticket", "it is of another architecture, or of another version of vtk-cli")
    weights = {f"{name}.weight": torch.empty(shape, device="meta") for name, shape in ours.items()}
    if fault := mismatch(generator, {**ticket.rest, **weights}):
        raise UserError(fault, "ticket", "it is of another architecture, or of another version of vtk-cli")
    generator.to_empty(device="cpu")
    for buffer in generator.buffers():
        buffer.zero_()
    return generator


def _on_meta(ticket: Ticket) -> Generator:
    """The ticket's generator without any memory for its weights.

    Raises:
        UserError: there is no such generator.
    """
    arguments = dict(ticket.generator)
    kinds = {"name": str, "image_size": int, "channels": int, "nz": int, "ngf": int, "bias": bool}
    if {name: type(value) for name, value in arguments.items()} != kinds:
        raise UserError(f"describes no generator: {str(arguments)[:200]}", "ticket", "write the ticket anew")
    with torch.device("meta"):
        return create_generator(**arguments)


def _load_weights(layers: Mapping[str, nn.Module], theta: Mapping[str, Tensor]) -> None:
    for name, layer in layers.items():
        weight, given = cast("Tensor", layer.weight), theta.get(f"{name}.weight")
        if given is None or given.shape != weight.shape:
            found = "missing" if given is None else str(tuple(given.shape))
            what = f"the checkpoint does not fit: {name}.weight is {found} for {tuple(weight.shape)}"
            raise UserError(what, "--theta", "give the checkpoint that the ticket was found on")
        weight.copy_(given)


def _remedy(ticket: Ticket) -> str:
    drawn, here = ticket.origin.torch, str(torch.__version__)
    if drawn and drawn != here:
        return f"torch {drawn} drew them, and this is torch {here}: install that version"
    return "the ticket was changed, or was not written by vtk prune"


def _effective(generator: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, layer in prunable(generator).items():
        yield name, layer.effective_weight() if isinstance(layer, Masked) else cast("Tensor", layer.weight)


def _rest(generator: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Everything that is no weight of a prunable layer and not only about masks: statistics, biases, gains."""
    parts = ("weight", "scores", "mask", "alive")
    apart = {f"{name}.{part}" for name in prunable(generator) for part in parts}
    for name, tensor in generator.state_dict().items():
        if name not in apart and tensor.is_floating_point():
            yield name, tensor


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
