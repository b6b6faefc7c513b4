"""The bits of SAT from networks in memory: the whole method on one page, for use from Python.

The command does the same with a store, locks and sharding (`rows.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vtk_cli.similarity.attack import Attack, adversarial, noisy, to_bytes
from vtk_cli.similarity.networks import as_function
from vtk_cli.similarity.sat import TransferBits


def transfer_bits(
    networks: Mapping[str, nn.Module], pixels: Tensor, labels: Tensor, attack: Attack, batch_size: int = 64
) -> TransferBits:
    """Attack every network once and let all networks answer.

    Args:
        networks: name -> a function of pixels in [0, 1], (B, 3, H, W) -> logits (B, C); a network that wants normalised
            input is wrapped in `PixelModel`. They are used in eval mode and left as they were.
        pixels: (n, 3, H, W) uint8, on the networks' device.
        labels: (n,) int64, on the same device.
        attack: what is done to an image; image k is keyed by k.
        batch_size: images at a time.

    Returns:
        `TransferBits`, from which `sat_matrix`, `bootstrap_interval` and `controls` follow.
    """
    numbers = torch.arange(len(pixels), device=pixels.device)
    names, count = tuple(networks), len(networks)
    wrong = np.zeros((count, count, len(pixels)), dtype=np.bool_)
    keyed = list(zip(torch.split(pixels, batch_size), torch.split(numbers, batch_size), strict=True))
    right = np.stack([_right(networks[name], (part.float() / 255 for part, _ in keyed), labels) for name in names])
    noisy_wrong = np.zeros_like(right)
    for index, name in enumerate(names):
        noise = (noisy(part.float() / 255, attack.eps, attack.seed, number) for part, number in keyed)
        noisy_wrong[index] = ~_right(networks[name], noise, labels)
    for source, name in enumerate(names):
        chosen = torch.from_numpy(np.flatnonzero(right[source])).to(pixels.device)
        made = []
        with as_function(networks[name]) as network:
            for part in torch.split(chosen, batch_size):
                images, _ = adversarial(network, pixels[part].float() / 255, labels[part], attack, numbers[part])
                made.append(to_bytes(images, pixels[part], attack.eps))
        for target, other in enumerate(names):
            if made:
                answers = _right(networks[other], (part.float() / 255 for part in made), labels[chosen])
                wrong[source, target, chosen.cpu().numpy()] = ~answers
    return TransferBits(names, right, wrong, noisy_wrong)


def _right(network: nn.Module, batches: Iterable[Tensor], labels: Tensor) -> NDArray[np.bool_]:
    """(n,) whether `network` is right on the images of all batches."""
    with as_function(network) as function, torch.no_grad():
        answers = [function(batch).argmax(dim=1) for batch in batches]
    return (torch.cat(answers) == labels).cpu().numpy()
