"""Mean and variance of features: of the real images once and exactly, of a batch of fakes with gradients.

Feature matching networks (arXiv 1904.02762) ask no more of fakes than that every feature has the mean and the variance
that it has over the real images. Features come layer by layer and are never concatenated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.whole_batch import summed
from vtk_cli.errors import UserError
from vtk_cli.files import cache_folder, content_key, lock
from vtk_cli.models.described_weights import save_described
from vtk_cli.prune.extractors import Extractor

_FOLDER = "prune-moments"
_FORMAT = 1
_MEAN, _VARIANCE, _CHECKSUM = "mean", "variance", "checksum"


@dataclass(frozen=True)
class Moments:
    """Mean and unbiased variance of every feature.

    Args:
        means: (D_l,) for each layer l.
        variances: (D_l,) for each layer.
        count: over how many images.
    """

    means: tuple[Tensor, ...]
    variances: tuple[Tensor, ...]
    count: int

    @property
    def features(self) -> int:
        """D: features of all layers together."""
        return sum(len(mean) for mean in self.means)

    def to(self, device: torch.device) -> Moments:
        """The same moments on `device`."""
        means, variances = ([value.to(device) for value in values] for values in (self.means, self.variances))
        return Moments(tuple(means), tuple(variances), self.count)


class MomentAccumulator:
    """Moments of features that come in chunks.

    Each chunk's mean and sum of squared deviations are merged into the whole's (Chan, Golub and LeVeque, 1983) in
    float64, so that nothing cancels and the chunking does not matter.
    """

    def __init__(self) -> None:
        self.count = 0
        self._means: list[Tensor] = []
        self._squares: list[Tensor] = []

    @torch.no_grad()
    def add(self, features: Sequence[Tensor]) -> None:
        """Take in a chunk.

        Args:
            features: (B, ...) for each layer.
        """
        chunk = [layer.detach().flatten(1).to(_exact_device(layer), torch.float64) for layer in features]
        size = len(chunk[0])
        if size == 0:
            return
        means = [layer.mean(dim=0) for layer in chunk]
        squares = [(layer - mean).square().sum(dim=0) for layer, mean in zip(chunk, means, strict=True)]
        if self.count == 0:
            self._means, self._squares = means, squares
        else:
            share = size / (self.count + size)
            for index, (mean, square) in enumerate(zip(means, squares, strict=True)):
                shift = mean - self._means[index]
                self._means[index] += share * shift
                self._squares[index] += square + shift.square() * (self.count * share)
        self.count += size

    def result(self) -> Moments:
        """Means and unbiased variances so far, float32.

        Raises:
            UserError: of fewer than two images.
        """
        if self.count < 2:
            what = f"the statistics of real images need at least 2 images, there are {self.count}"
            raise UserError(what, "--data", "give more images")
        variances = tuple((square / (self.count - 1)).float() for square in self._squares)
        return Moments(tuple(mean.float() for mean in self._means), variances, self.count)


def batch_moments(features: Sequence[Tensor], world: World | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """Mean and unbiased variance of every feature over a batch, with gradients, in float32.

    Among several processes they are those of the whole batch: not the means of the processes' own.

    Args:
        features: (B, ...) for each layer, B at least 2 over all processes.
        world: this process among those that share the batch; None: it is alone.

    Returns:
        means and variances, (D_l,) for each layer.

    Raises:
        ValueError: a batch of one, which has no variance.
    """
    if world is not None and world.size > 1:
        return _shared_moments(features, world)
    if len(features[0]) < 2:
        raise ValueError("the variance of a batch needs at least 2 images")
    variances, means = zip(*(torch.var_mean(layer.flatten(1).float(), dim=0) for layer in features), strict=True)
    return list(means), list(variances)


def _shared_moments(features: Sequence[Tensor], world: World) -> tuple[list[Tensor], list[Tensor]]:
    """`batch_moments` over all processes: their means and squared deviations merged (Chan, Golub and LeVeque, 1983)."""
    count, flat = len(features[0]), [layer.flatten(1).float() for layer in features]
    variances, means = zip(*(torch.var_mean(layer, dim=0, correction=0) for layer in flat), strict=True)
    sizes = [len(mean) for mean in means]
    own = torch.cat(means)
    sums = summed(torch.cat((count * own, own.new_tensor([count]))), world)
    total = sums[-1].detach()
    whole = sums[:-1] / total
    # The whole's squared deviations have no gradient by its mean.
    squares = summed(count * (torch.cat(variances) + (own - whole.detach()).square()), world)
    return list(whole.split(sizes)), list((squares / (total - 1)).split(sizes))


def measure(extractor: Extractor, batches: Iterable[Tensor], device: torch.device) -> Moments:
    """The moments of an extractor's features over all images.

    Args:
        extractor: on `device`.
        batches: (B, C, R, R) in [-1, 1], any sizes in eval mode; in train mode the features depend on them.
        device: where.

    Returns:
        The moments, on `device`.

    Raises:
        UserError: fewer than two images.
    """
    seen = MomentAccumulator()
    with torch.no_grad():
        for images in batches:
            seen.add(extractor(images.to(device)))
    return seen.result().to(device)


def cached_moments(
    extractor: Extractor, batches: Iterable[Tensor], identity: dict[str, Any], device: torch.device
) -> Moments:
    """As `measure`, from the cache if it has been measured before.

    Args:
        extractor: on `device`; its `identity` (weights, layers, mode) is part of the key.
        batches: as in `measure`; not read if the moments are cached.
        identity: what else shapes the features, JSON values: the data's fingerprint, image size, channels, and the
            size of batches with an extractor in train mode.
        device: where.

    Raises:
        UserError: fewer than two images.
    """
    key = content_key({"format": _FORMAT, "extractor": extractor.identity, **identity})
    path = cache_folder() / _FOLDER / f"{key}.safetensors"
    with lock(path.with_suffix(".lock")):
        found = _read(path)
        if found is None:
            found = measure(extractor, batches, device)
            _write(found, path)
    return found.to(device)


def _read(path: Path) -> Moments | None:
    """The moments of a file; None where there is none, or it is torn or was changed."""
    try:
        stored = load_file(path)
        if stored.pop(_CHECKSUM).tolist() != _checksum(stored).tolist():
            return None
        layers = (len(stored) - 1) // 2
        means, variances = (tuple(stored[f"{name}{n}"] for n in range(layers)) for name in (_MEAN, _VARIANCE))
        return Moments(means, variances, int(stored["count"]))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _write(moments: Moments, path: Path) -> None:
    tensors = {"count": torch.tensor(moments.count)}
    for name, values in ((_MEAN, moments.means), (_VARIANCE, moments.variances)):
        tensors |= {f"{name}{n}": value for n, value in enumerate(values)}
    save_described(path, {**tensors, _CHECKSUM: _checksum(tensors)}, {})


def _checksum(tensors: Mapping[str, Tensor]) -> Tensor:
    """(32,) uint8: SHA-256 of all of them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _exact_device(layer: Tensor) -> torch.device:
    """Where float64 sums are made: there, or on the CPU where the device has no float64."""
    return torch.device("cpu") if layer.device.type == "mps" else layer.device
