"""Other similarities on the networks and images of a comparison (`--measure`); the mathematics is in `measures.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.errors import UserError
from vtk_cli.similarity.decision_boundary import GRID, TRIPLETS, decision_boundary_similarity
from vtk_cli.similarity.ensembles import probabilities
from vtk_cli.similarity.measures import (
    agreement,
    error_consistency,
    gradient_cosine,
    jensen_shannon,
    unbiased_cka,
)
from vtk_cli.similarity.members import Member
from vtk_cli.similarity.networks import PixelModel, as_function
from vtk_cli.similarity.passes import Comparison, Passes, in_batches
from vtk_cli.similarity.sat import Floats

DISTANCES = frozenset({"jsd"})
"""Measures that are smaller, not larger, for alike networks."""

_GRADIENT_IMAGES = 256


def measure(name: str, passes: Passes, comparison: Comparison, *, seed: int, triplets: int = TRIPLETS) -> Floats:
    """The (N, N) matrix of one measure.

    Args:
        name: `agreement`, `error-consistency`, `jsd`, `grad-cos`, `cka` or `dbs`.
        passes: runs the networks.
        comparison: the networks, the images and the clean answers.
        seed: of the image triplets of `dbs`.
        triplets: how many of them.

    Raises:
        UserError: too few images for the measure.
    """
    measures: dict[str, Callable[[], Floats]] = {
        "agreement": lambda: agreement(comparison.logits.argmax(axis=2)),
        "error-consistency": lambda: error_consistency(comparison.correct),
        "jsd": lambda: jensen_shannon(probabilities(comparison.logits)),
        "grad-cos": lambda: gradient_cosine(_gradients(passes, comparison)),
        "cka": lambda: unbiased_cka([_features(passes, comparison, member) for member in comparison.members]),
        "dbs": lambda: _decision_boundaries(passes, comparison, seed, triplets),
    }
    return measures[name]()


def _gradients(passes: Passes, comparison: Comparison) -> Iterator[NDArray[np.float32]]:
    """Batches (N, b, D) of the gradients of the cross-entropy at images whose labels are known; at most 256 images.

    One crop for all networks whatever the protocol: gradients are compared pixel by pixel.
    """
    known = torch.nonzero(comparison.labels >= 0)[:_GRADIENT_IMAGES, 0]
    pixels = comparison.images.pixels(passes.canonical_view)[known]
    labels = comparison.labels[known]
    for batch in in_batches(len(known), passes.settings.batch_size):
        gradients = [_gradient(passes, member, pixels[batch], labels[batch]) for member in comparison.members]
        yield np.stack(gradients)


def _gradient(passes: Passes, member: Member, pixels: Tensor, labels: Tensor) -> NDArray[np.float32]:
    passes.check()
    with as_function(passes.pool.network(member)) as network:
        images = (pixels.to(passes.device).float() / 255).requires_grad_()
        loss = F.cross_entropy(network(images), labels.to(passes.device), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
    return gradient.flatten(1).cpu().numpy()


def _features(passes: Passes, comparison: Comparison, member: Member) -> NDArray[np.float32]:
    """(n, p) what the classifier of `member` gets: the pooled features before it."""
    pixels = comparison.images.pixels(passes.view(member))
    caught: list[Tensor] = []
    with ExitStack() as stack:
        network = stack.enter_context(as_function(passes.pool.network(member)))
        stack.enter_context(torch.no_grad())
        hook = _classifier(network.net, member.label).register_forward_pre_hook(
            lambda _, inputs: caught.append(inputs[0].detach().flatten(1).float().cpu())
        )
        stack.callback(hook.remove)
        for batch in in_batches(len(pixels), passes.settings.batch_size):
            passes.check()
            network(pixels[batch].to(passes.device).float() / 255)
    return torch.cat(caught).numpy()


def _classifier(net: nn.Module, label: str) -> nn.Module:
    """The layer that makes logits: what the network itself names so, else its last linear layer."""
    names_it: Callable[[], object] | None = getattr(net, "get_classifier", None)
    named = names_it() if names_it else None
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if isinstance(named, nn.Module) and not isinstance(named, nn.Identity):
        return named
    if not linear:
        raise UserError("no linear classifier whose input could be compared", f"--measure cka, {label}")
    return linear[-1]


def _decision_boundaries(passes: Passes, comparison: Comparison, seed: int, triplets: int) -> Floats:
    members: Sequence[Member] = comparison.members
    pixels = comparison.images.pixels(passes.canonical_view).to(passes.device).float() / 255
    with (
        ExitStack() as stack,
        passes.console.progress("decision boundaries", triplets * GRID**2 * len(members)) as progress,
    ):

        def counted(network: PixelModel) -> Callable[[Tensor], Tensor]:
            def answer(points: Tensor) -> Tensor:
                passes.check()
                progress.advance(len(points))
                logits: Tensor = network(points)
                return logits

            return answer

        networks = [counted(stack.enter_context(as_function(passes.pool.network(member)))) for member in members]
        return decision_boundary_similarity(networks, pixels, triplets=triplets, batch=GRID**2, seed=seed)
