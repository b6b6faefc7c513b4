"""What a model says of the images of a pool."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PoolOutputs:
    """What a model says of N images, in eval mode and under the target domain; on the CPU.

    Args:
        ids: sample ids, all different.
        logits: float32 (N, C).
        embeddings: float32 (N, D), what the classifier sees.
        predicted_losses: float32 (N,), of the loss predictor; None without one.
        domain_logits: float32 (N,), positive: of the target; of the discriminator; None without one.
        classifier: float32 (C, D), the classifier's weight as it is applied; None where no strategy needs it.
    """

    ids: tuple[str, ...]
    logits: Tensor
    embeddings: Tensor
    predicted_losses: Tensor | None = None
    domain_logits: Tensor | None = None
    classifier: Tensor | None = None

    def __post_init__(self) -> None:
        rows = [self.logits, self.embeddings, self.predicted_losses, self.domain_logits]
        if any(value is not None and len(value) != len(self.ids) for value in rows):
            raise ValueError(f"outputs of other images than the {len(self.ids)} ids")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("an id is there twice")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def probabilities(self) -> Tensor:
        """Softmax of the logits, float64 (N, C)."""
        return self.logits.double().softmax(1)

    def rows(self, indices: Sequence[int]) -> PoolOutputs:
        """The images at `indices`, in that order."""
        at = torch.tensor(list(indices), dtype=torch.int64)
        return PoolOutputs(
            tuple(self.ids[index] for index in at.tolist()),
            self.logits[at],
            self.embeddings[at],
            None if self.predicted_losses is None else self.predicted_losses[at],
            None if self.domain_logits is None else self.domain_logits[at],
            self.classifier,
        )

    def in_order(self) -> PoolOutputs:
        """The images by id: whatever order they came in, a strategy sees this one."""
        return self.rows(sorted(range(len(self)), key=self.ids.__getitem__))

    def of(self, ids: Collection[str]) -> PoolOutputs:
        """The images among `ids`, in the order of these outputs."""
        wanted = frozenset(ids)
        return self.rows([index for index, name in enumerate(self.ids) if name in wanted])


@dataclass(frozen=True)
class Picks:
    """What a strategy chose: sample ids in order, and the score of each (NaN: it has none)."""

    ids: tuple[str, ...]
    scores: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.ids)
