"""Batches of several kinds of images side by side, for stages that learn from them together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from torch import Tensor

from vtk_cli.engine.batches import Batches
from vtk_cli.engine.epochs import EqualEpochs, close
from vtk_cli.engine.sample_names import name_of


class Together(NamedTuple):
    """One batch of each kind; None where there is none.

    Args:
        images: (B, 3, S, S) uint8, those that the positions before them belong to.
        source, labelled: images of the other kinds, (B', 3, S, S).
        source_positions, labelled_positions: which ones they are, (B',).
        sizes, source_sizes, labelled_sizes: how many of each kind every process has; empty where each has all.
    """

    images: Tensor
    source: Tensor | None = None
    source_positions: Tensor | None = None
    labelled: Tensor | None = None
    labelled_positions: Tensor | None = None
    sizes: tuple[int, ...] = ()
    source_sizes: tuple[int, ...] = ()
    labelled_sizes: tuple[int, ...] = ()


class WholeBatches:
    """The whole batches of each pass: what is left over is left out, unless there is nothing else.

    Args:
        batches: in order, the short one last.
        samples: in a pass.
        batch_size: of a whole batch.
    """

    def __init__(self, batches: Batches, samples: int, batch_size: int) -> None:
        self._batches, self._steps = batches, max(1, min(samples // batch_size, batches.steps_per_epoch))

    @property
    def steps_per_epoch(self) -> int:
        """How many batches a pass has."""
        return self._steps

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Any, ...]]:
        """The batches of a pass from number `start` on."""
        return islice(self._batches.epoch(epoch, start), max(0, self._steps - start))

    def name_of(self, index: int) -> str:
        """What an image is called."""
        return name_of(self._batches, index)

    def close(self) -> None:
        """End what runs for the data."""
        close(self._batches)


class JoinedBatches:
    """`(positions, Together)` for a stage of a given length; each kind goes through its images again and again.

    Args:
        length: batches in the stage, which is one epoch.
        images: `(positions, images, sizes)`, the kind that the positions belong to.
        source, labelled: further kinds.
    """

    def __init__(
        self, length: int, images: Batches, *, source: Batches | None = None, labelled: Batches | None = None
    ) -> None:
        self._length = length
        self._kinds = [None if kind is None else EqualEpochs(kind, length) for kind in (images, source, labelled)]

    @property
    def steps_per_epoch(self) -> int:
        """How many batches the stage has."""
        return self._length

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Together]]:
        """The batches from number `start` on."""
        passing = [None if kind is None else kind.epoch(epoch, start) for kind in self._kinds]
        for _ in range(start, self._length):
            own, source, labelled = [(None, None, ()) if each is None else next(each) for each in passing]
            kinds = (own[1], source[1], source[0], labelled[1], labelled[0])
            yield own[0], Together(*kinds, own[2], source[2], labelled[2])

    def name_of(self, index: int) -> str:
        """What an image is called, of the kind that the positions belong to."""
        return name_of(self._kinds[0], index)

    def close(self) -> None:
        """End what runs for the data."""
        for kind in self._kinds:
            if kind is not None:
                kind.close()
