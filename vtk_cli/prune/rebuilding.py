"""From a generator whose weights were selected to its ticket, and back to the very same network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vtk_cli import __version__
from vtk_cli.errors import UserError
from vtk_cli.models.weights import mismatch
from vtk_cli.prune.generators import Generator, create_generator
from vtk_cli.prune.masking import Masked, MaskedNetwork, Selection, prunable
from vtk_cli.prune.ticket import Layer, Origin, Ticket, some
from vtk_cli.prune.weights import WeightRule, effective_sha256, initialise_weights, weights_sha256

_SAME_EVERYWHERE = "signed-constant"
_ANOTHER = "it is of another architecture, or of another version of vtk-cli"


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
        made_with={"vtk-cli": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
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
    if differs:
        what = f"{len(differs)} layers are not those of {generator.name}: {some(differs)}"
        raise UserError(what, "ticket", _ANOTHER)
    if list(ours) != list(theirs):
        raise UserError(f"its layers are in another order than those of {generator.name}", "ticket", _ANOTHER)
    weights = {f"{name}.weight": torch.empty(shape, device="meta") for name, shape in ours.items()}
    if fault := mismatch(generator, {**ticket.rest, **weights}):
        raise UserError(fault, "ticket", _ANOTHER)
    generator.to_empty(device="cpu")
    for buffer in generator.buffers():
        buffer.zero_()
    return generator


def _on_meta(ticket: Ticket) -> Generator:
    """The ticket's generator, without memory for its weights.

    Raises:
        UserError: there is no such generator.
    """
    arguments = dict(ticket.generator)
    kinds = {"name": str, "image_size": int, "channels": int, "nz": int, "ngf": int, "bias": bool}
    if {name: type(value) for name, value in arguments.items()} != kinds:
        raise UserError(f"describes no generator: {str(arguments)[:200]}", "ticket", "write the ticket anew")
    try:
        with torch.device("meta"):
            return create_generator(**arguments)
    except (RuntimeError, OverflowError, TypeError) as error:  # sides whose product no tensor can have
        raise UserError(f"describes no generator: {str(arguments)[:200]}", "ticket", "write the ticket anew") from error


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
