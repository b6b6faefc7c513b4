"""The networks of a comparison: from the names a user types to functions of pixels.

A member comes with published or given weights (through the zoo), or trained here on the embedded digits.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.files import content_key
from vtk_cli.models.names import NetworkName, distinct_labels, file_metadata, parse_networks
from vtk_cli.models.zoo import Network, PixelConfig, create_network
from vtk_cli.similarity import digits_networks
from vtk_cli.similarity.digits_networks import DigitsNetwork
from vtk_cli.similarity.networks import PixelModel

_WITH_SEED = re.compile(r"(.+)@([0-9]+)")
_LARGEST_SEED = 2**32 - 1
_RESIDENT_SHARE = 0.5
"""How much of the memory loaded networks may take."""


@dataclass(frozen=True)
class Member:
    """One network of a comparison.

    Args:
        label: its name in results, different from every other member's.
        name: what the user's words mean.
        origin: where its weights come from, in words.
        weights_sha256: of its weights.
        pixels: its preprocessing: size, mean and std, and its own evaluation crop (`--protocol paper`).
        classes: how many classes it tells apart.
        parameters: how many weights it has.
        is_trained_here: whether its weights were made by us, on the digits.
        load: makes the function of pixels, on the device of the comparison.
    """

    label: str
    name: NetworkName
    origin: str
    weights_sha256: str
    pixels: PixelConfig
    classes: int
    parameters: int
    is_trained_here: bool
    load: Callable[[], PixelModel]

    @property
    def key(self) -> str:
        """A key of what the network computes: its weights and what is done to pixels before them."""
        architecture, pixels = f"{self.name.name}{self.name.factory}", self.pixels
        seen = [pixels.input_size, pixels.mean, pixels.std, pixels.interpolation]
        return content_key([architecture, self.weights_sha256, *seen])


class Pool:
    """Hands out loaded networks; keeps the last used in memory as far as there is room.

    Args:
        members: the networks of the comparison.
        device: where they are loaded.
    """

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        self.largest = max(member.pixels.input_size for member in members)
        self._room = _RESIDENT_SHARE * _memory(device)
        self._loaded: OrderedDict[str, tuple[PixelModel, int]] = OrderedDict()

    def network(self, member: Member) -> PixelModel:
        """The function of pixels of `member`, loaded if it is not in memory."""
        if member.key not in self._loaded:
            size = 4 * member.parameters
            while self._loaded and size + sum(held for _, held in self._loaded.values()) > self._room:
                self._loaded.popitem(last=False)
            self._loaded[member.key] = (member.load(), size)
        self._loaded.move_to_end(member.key)
        return self._loaded[member.key][0]


def parse_members(specs: Sequence[str]) -> list[tuple[NetworkName, int | None]]:
    """Names with their training seeds: `resnet50@1` is resnet50 trained here from seed 1; None without `@`.

    Two members may be the same network (its similarity with itself is a check), but one member is no comparison.

    Raises:
        UserError: an unknown name, a seed out of range, or fewer than two.
    """
    parsed: list[tuple[NetworkName, int | None]] = []
    for spec in specs:
        match = _WITH_SEED.fullmatch(spec)
        plain, seed = (match[1], int(match[2])) if match else (spec, None)
        if seed is not None and seed > _LARGEST_SEED:
            raise UserError(f"{seed} is no seed", spec, f"give NAME@SEED with a seed of at most {_LARGEST_SEED}")
        parsed += [
            (replace(name, label=f"{name.label}@{seed}") if match else name, seed) for name in parse_networks([plain])
        ]
    if len(parsed) < 2:
        given = f"only {parsed[0][0].spec} was given" if parsed else "no network was given"
        raise UserError(given, fix="a similarity is between two networks: vtk similarity resnet50 vit_b")
    labels = distinct_labels([name for name, _ in parsed])
    return [(replace(name, label=label), seed) for (name, seed), label in zip(parsed, labels, strict=True)]


def planned_digits_network(
    name: NetworkName, seed: int, *, quick: bool = False, epochs: int | None = None
) -> DigitsNetwork:
    """What would be trained on the digits for `name`: the real graph, or with `quick` its stand-in.

    Raises:
        UserError: only timm architectures are trained here.
    """
    if name.kind != "timm":
        raise UserError(
            f"only timm architectures are trained here, not {name.spec}", fix="give a weight file: NAME=FILE"
        )
    make = digits_networks.stand_in if quick else digits_networks.full_size
    network = make(name.label, name.name, seed)
    recipe = replace(network.recipe, epochs=epochs or network.recipe.epochs)
    return replace(network, recipe=recipe)


def trained_member(
    name: NetworkName,
    network: DigitsNetwork,
    device: torch.device,
    console: Console,
    checkpoint_seconds: float = 120.0,
    *,
    wait: bool = True,
) -> Member:
    """A member trained here, or found trained in the cache.

    Raises:
        Busy: without `wait`, another process is training it.
        JobError, Preempted: from the training.
    """
    return Member(
        label=name.label,
        name=name,
        origin=f"digits, seed {network.seed}",
        weights_sha256=digits_networks.ensure_trained(network, device, console, checkpoint_seconds, wait=wait),
        pixels=digits_networks.PIXELS,
        classes=digits_networks.CLASSES,
        parameters=digits_networks.parameter_count(network),
        is_trained_here=True,
        load=partial(digits_networks.trained, network, device, console),
    )


def zoo_member(
    name: NetworkName,
    *,
    weights: str,
    offline: bool,
    device: torch.device,
    pixels: PixelConfig | None = None,
    **model_args: Any,
) -> Member:
    """A member with published weights or those of a file.

    Args:
        name: what to load.
        weights: `auto` or `pretrained`.
        offline: whether to look on this machine only.
        device: where the function of pixels runs.
        pixels: preprocessing in place of the one that comes with the weights.
        model_args: for the network's constructor.

    Raises:
        UserError: there are no such weights here and none can be fetched, or they do not fit.
    """

    def load() -> PixelModel:
        return _pixel_model(create_network(name, weights=weights, offline=offline, **model_args), pixels, device)

    network = create_network(name, weights=weights, offline=offline, **model_args)
    return Member(
        label=name.label,
        name=name,
        origin=network.weights_source,
        weights_sha256=network.weights_sha256,
        pixels=pixels or network.config,
        classes=network.num_classes,
        parameters=sum(parameter.numel() for parameter in network.module.parameters()),
        is_trained_here=False,
        load=load,
    )


def _pixel_model(network: Network, pixels: PixelConfig | None, device: torch.device) -> PixelModel:
    config = pixels or network.config
    model = PixelModel(network.module, config.input_size, config.mean, config.std, config.interpolation)
    return model.eval().to(device)


def file_member_for_digits(name: NetworkName, device: torch.device) -> Member:
    """A weight file for digits; one that does not describe its preprocessing is taken to have that of our training."""
    if "pixels" in file_metadata(Path(str(name.path))):
        return zoo_member(name, weights="auto", offline=True, device=device)
    model_args = digits_networks.full_size(name.label, name.name, seed=0).model_args
    return zoo_member(name, weights="auto", offline=True, device=device, pixels=digits_networks.PIXELS, **model_args)


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
