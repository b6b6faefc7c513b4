"""An adapted network as a plain one: the normalisation of one domain, one linear classifier, no loss predictor.

Between the feature and the logits there are only affine maps, bottleneck, batch normalisation and classifier; together
they are one linear layer, and so the plain network is the backbone's own architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vtk_cli.adapt.backbones import DIGITS, DigitsBackbone, DigitsClassifier
from vtk_cli.adapt.domain_norm import TARGET, norm_layers
from vtk_cli.adapt.networks import DomainNetwork
from vtk_cli.engine.seeds import preserved_rng
from vtk_cli.errors import UserError
from vtk_cli.models.trained_weights import save_trained
from vtk_cli.models.weights import load_exactly
from vtk_cli.models.zoo import SCRATCH, create_network

PLAIN_DIGITS = "py:vtk_cli.adapt.backbones:digits_classifier"
"""The name under which `create_network` makes a plain network of digits: this, `=` and its file."""
_DOUBLED = re.compile(r"\.bns\.(\d)\.")


def plain_network(network: DomainNetwork, domain: int = TARGET) -> nn.Module:
    """The network of one domain: in eval mode the same logits as `network` gives, but for rounding.

    Args:
        network: left as it is; on any device.
        domain: whose batch normalisation is taken.

    Returns:
        In eval mode, on the CPU: normalised images (B, 3, S, S) to logits (B, C).

    Raises:
        UserError: the architecture has no single linear classifier.
    """
    plain = _empty(network)
    weight, bias = folded_classifier(network, domain)
    classifier = plain.get_classifier()  # type: ignore[operator]
    if not isinstance(classifier, (nn.Linear, nn.Conv2d)) or classifier.weight[0].numel() != weight.shape[1]:
        fix = "take another, e.g. resnet50, convnext_t, vit_s"
        raise UserError("has no single linear classifier to export to", network.origin.architecture, fix)
    prefix = next(name for name, module in plain.named_modules() if module is classifier)
    inner = cast("nn.Module", network.backbone if network.origin.architecture == DIGITS else network.backbone.network)
    state = {name: value.cpu() for name, value in plain_state(inner.state_dict(), domain).items()}
    if network.origin.architecture == DIGITS:
        state = {f"network.{name}": value for name, value in state.items()}
    state |= {f"{prefix}.weight": weight.reshape(classifier.weight.shape), f"{prefix}.bias": bias}
    load_exactly(plain, state, network.origin.architecture)
    return plain.eval()


def save_plain(
    path: Path, network: DomainNetwork, class_names: tuple[str, ...], note: Mapping[str, str], domain: int = TARGET
) -> None:
    """Write the plain network, so that `create_network` and timm can read it.

    Args:
        path: `.safetensors`.
        network: adapted.
        class_names: by label.
        note: what else the file says of itself.
        domain: whose batch normalisation is taken.

    Raises:
        UserError: as `plain_network`.
        JobError: the disk is full.
    """
    digits = network.origin.architecture == DIGITS
    save_trained(
        path,
        plain_network(network, domain).state_dict(),
        architecture=PLAIN_DIGITS if digits else network.origin.architecture,
        config=network.pixels,
        model_args={"side": network.pixels.input_size} if digits else network.origin.model_args,
        class_names=class_names,
        multi_label=False,
        note=note,
    )


@torch.no_grad()
def folded_classifier(network: DomainNetwork, domain: int) -> tuple[Tensor, Tensor]:
    """Bottleneck, batch normalisation in eval mode and classifier as weight (C, D) and bias (C,), on the CPU."""
    (norm,) = norm_layers(nn.ModuleList([network.norm]), domain)
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("the normalisation keeps no statistics")
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    first, last = network.bottleneck, network.head
    weight = (cast("Tensor", last.weight).double() * scale) @ first.weight.double()
    shift = (first.bias.double() - norm.running_mean.double()) * scale + norm.bias.double()
    bias = cast("Tensor", last.weight).double() @ shift + cast("Tensor", last.bias).double()
    return weight.float().cpu(), bias.float().cpu()


def plain_state(state: Mapping[str, Tensor], domain: int) -> dict[str, Tensor]:
    """A state dict with the batch normalisation of one domain alone, under the names of a plain network."""
    kept = {}
    for name, value in state.items():
        found = _DOUBLED.search(f".{name}")
        if found is None:
            kept[name] = value
        elif int(found[1]) == domain:
            kept[_DOUBLED.sub(".", f".{name}").removeprefix(".")] = value
    return kept


def _empty(network: DomainNetwork) -> nn.Module:
    """A plain network of the same architecture, with weights that do not matter."""
    with preserved_rng():
        if network.origin.architecture == DIGITS:
            return DigitsClassifier(network.classes, network.pixels.input_size)
        name, arguments = network.origin.architecture, network.origin.model_args
        return create_network(name, weights=SCRATCH, num_classes=network.classes, **arguments).module


def backbone_state(network: DomainNetwork) -> dict[str, Tensor]:
    """The backbone's tensors under the names of its own architecture, both domains' batch normalisation."""
    backbone = network.backbone
    inner = backbone if isinstance(backbone, DigitsBackbone) else cast("nn.Module", backbone.network)
    return dict(inner.state_dict())
