"""Epochs of other lengths and kinds than passes over one data set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from vtk_cli.engine.batches import Batches
from vtk_cli.engine.sample_names import name_of


class EqualEpochs:
    """Epochs of a given length, cut out of the endless row of passes over the data.

    Args:
        batches: the passes.
        length: batches an epoch.
    """

    def __init__(self, batches: Batches, length: int) -> None:
        self._batches, self._length = batches, length

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return self._length

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Any, ...]]:
        """The batches of epoch `epoch` from number `start` on."""
        at, end = epoch * self._length + start, (epoch + 1) * self._length
        while at < end:
            passed, position = divmod(at, self._batches.steps_per_epoch)
            taken = min(self._batches.steps_per_epoch - position, end - at)
            yield from islice(self._batches.epoch(passed, position), taken)
            at += taken

    def name_of(self, index: int) -> str:
        """What a sample is called."""
        return name_of(self._batches, index)

    def close(self) -> None:
        """End what runs for the data."""
        close(self._batches)


class PlainAtLast:
    """One kind of batches, and another in the last epochs.

    Args:
        batches: at first.
        plain: from `switch` on; an epoch of theirs is as long.
        switch: the first epoch of `plain`.
    """

    def __init__(self, batches: Batches, plain: Batches, switch: int) -> None:
        if batches.steps_per_epoch != plain.steps_per_epoch:
            raise ValueError(f"epochs of {batches.steps_per_epoch} and {plain.steps_per_epoch} batches")
        self._kinds, self._switch = (batches, plain), switch

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return self._kinds[0].steps_per_epoch

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Any, ...]]:
        """The batches of epoch `epoch` from number `start` on."""
        late = epoch >= self._switch
        if late:
            close(self._kinds[0])  # its processes are not needed again
        yield from self._kinds[late].epoch(epoch, start)

    def name_of(self, index: int) -> str:
        """What a sample is called, in both kinds."""
        return name_of(self._kinds[0], index)

    def close(self) -> None:
        """End what runs for the data."""
        for batches in self._kinds:
            close(batches)


def close(batches: Batches) -> None:
    """End what runs for `batches`, if anything does."""
    ending = getattr(batches, "close", None)
    if ending is not None:
        ending()


def equal_epochs(steps: int, longest: int) -> tuple[int, int]:
    """Epochs and their length for at least `steps` updates, no epoch longer than `longest`: (epochs, length)."""
    epochs = -(-steps // longest)
    return epochs, -(-steps // epochs)
