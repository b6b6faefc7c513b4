"""Strategies that give every image a score of its own and take the highest."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vtk_cli.adapt.query.catalog import QuerySettings
from vtk_cli.adapt.query.outputs import Picks, PoolOutputs
from vtk_cli.errors import JobError, UserError

AADA_SHARE = 0.02
"""The share of the pool, at least, that `aada` draws from."""


def highest(outputs: PoolOutputs, scores: Tensor, count: int) -> Picks:
    """The `count` images with the highest scores (N,); of equals those whose id comes first.

    Raises:
        JobError: a score is not finite.
        ValueError: there are not so many images.
    """
    if not 0 <= count <= len(outputs):
        raise ValueError(f"{count} of {len(outputs)} images")
    values = scores.double().tolist()
    if not all(map(math.isfinite, values)):
        raise JobError("what the model says of the pool is not finite: it has diverged; go back with a lower rate")
    order = sorted(range(len(outputs)), key=lambda index: (-values[index], outputs.ids[index]))[:count]
    return Picks(tuple(outputs.ids[index] for index in order), tuple(values[index] for index in order))


def entropy(logits: Tensor) -> Tensor:
    """-sum p log p of logits (N, C), in nats: (N,), 0 to log C."""
    log_p = logits.double().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def probability_gap(logits: Tensor) -> Tensor:
    """p1 - p2, the best two probabilities' difference: (N,) in 0..1; 1 of a single class."""
    return _gap(logits.double().softmax(1), alone=1.0)


def free_energy(logits: Tensor) -> Tensor:
    """-log sum exp of the logits (N, C): (N,), high far from what was trained on (EADA, arXiv 2112.01406)."""
    return -logits.double().logsumexp(1)


def loss_query(outputs: PoolOutputs, count: int, settings: QuerySettings) -> Picks:
    """The highest predicted losses (arXiv 1905.03677), or with `order="low"` the lowest.

    Raises:
        UserError: the model has no loss predictor.
    """
    predicted = predicted_losses(outputs)
    picks = highest(outputs, predicted if settings.order == "high" else -predicted, count)
    return picks if settings.order == "high" else Picks(picks.ids, tuple(-score for score in picks.scores))


def entropy_query(outputs: PoolOutputs, count: int) -> Picks:
    """The highest entropies."""
    return highest(outputs, entropy(outputs.logits), count)


def margin_query(outputs: PoolOutputs, count: int) -> Picks:
    """The smallest gaps between the best two probabilities; the score is the gap, negative."""
    return highest(outputs, -probability_gap(outputs.logits), count)


def confidence_query(outputs: PoolOutputs, count: int) -> Picks:
    """The smallest of the best probabilities; the score is 1 - p1."""
    return highest(outputs, 1 - outputs.probabilities.amax(1), count)


def energy_query(outputs: PoolOutputs, count: int, settings: QuerySettings) -> Picks:
    """Of the share with the highest free energy those with the smallest gap of the best two logits (EADA)."""
    kept = max(math.ceil(settings.energy_share * len(outputs)), count)
    far = outputs.of(highest(outputs, free_energy(outputs.logits), kept).ids)
    return highest(far, -_gap(far.logits.double(), alone=0.0), count)


def aada_query(outputs: PoolOutputs, count: int, rng: np.random.Generator) -> Picks:
    """Drawn from the top of odds(target) x entropy (AADA, arXiv 1904.07848): its best 2 %, or `count`.

    Raises:
        UserError: the model has no discriminator.
    """
    if outputs.domain_logits is None:
        raise UserError("aada asks a discriminator, which this model has not", fix="train with --recipe tl-ada")
    scores = outputs.domain_logits.double().exp() * entropy(outputs.logits)
    top = highest(outputs, scores, max(count, math.ceil(AADA_SHARE * len(outputs))))
    drawn = sorted(rng.choice(len(top), count, replace=False).tolist())
    return Picks(tuple(top.ids[index] for index in drawn), tuple(top.scores[index] for index in drawn))


def random_query(ids: tuple[str, ...], count: int, rng: np.random.Generator) -> Picks:
    """A blind draw: the same for the same ids, in whatever order, and the same generator."""
    order = sorted(ids)
    drawn = rng.permutation(len(order))[:count].tolist()
    return Picks(tuple(order[index] for index in drawn), (math.nan,) * len(drawn))


def predicted_losses(outputs: PoolOutputs) -> Tensor:
    """What the loss predictor says (N,).

    Raises:
        UserError: the model has none.
    """
    if outputs.predicted_losses is None:
        raise UserError(
            "the model has no loss predictor to ask", fix="train with --recipe sequential or choose another --query"
        )
    return outputs.predicted_losses


def _gap(values: Tensor, *, alone: float) -> Tensor:
    if values.shape[1] < 2:
        return torch.full((len(values),), alone, dtype=values.dtype)
    best = values.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]
