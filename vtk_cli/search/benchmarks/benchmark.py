"""What a tabular benchmark offers, whatever its file looks like: accuracies by architecture and setting."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vtk_cli.errors import UserError, nearest

_DATASETS = ("cifar10", "cifar10-valid")
_SPLITS = ("test", "x-test", "ori-test", "eval", "valid", "x-valid")
"""What is compared to unless the user says otherwise, the best first: images that no search has seen.

On NAS-Bench-201 these are the truths that RLNAS (arXiv 2101.11834) ranks by: `ori-test` of cifar10, `x-test` of
cifar100 and of ImageNet16-120."""


@dataclass(frozen=True, slots=True)
class Row:
    """One training of one architecture.

    Args:
        arch: the architecture, as the benchmark writes it.
        dataset: trained on.
        split: the images that the accuracy is of.
        hp: the training's hyper-parameters; in NAS-Bench-201 and NATS-Bench the number of epochs.
        seed: of the training; None where the benchmark holds a mean.
        accuracy: in percent.
        loss: mean cross-entropy on the same images.
        flops: multiply-accumulates of one image.
        params: parameters.

    Raises:
        ValueError: the accuracy is no percentage.
    """

    arch: str
    dataset: str
    split: str
    hp: str
    seed: int | None
    accuracy: float
    loss: float | None = None
    flops: float | None = None
    params: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.accuracy <= 100.0:  # neither is NaN
            raise ValueError(f"an accuracy of {self.accuracy} is no percentage")


@dataclass(frozen=True, order=True)
class Setting:
    """Which of a benchmark's accuracies of an architecture is meant; see `Row`."""

    dataset: str
    split: str
    hp: str

    def __str__(self) -> str:
        return f"{self.dataset}, {self.split}, {self.hp}"


@dataclass(frozen=True)
class BenchmarkCost:
    """What an architecture costs, as the benchmark says; None where it does not.

    Args:
        flops: multiply-accumulates of one image.
        params: parameters.
    """

    flops: float | None = None
    params: float | None = None


class Benchmark(ABC):
    """A tabular benchmark.

    Args:
        name: of the file or folder, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def archs(self) -> tuple[str, ...]:
        """The architectures that it holds, as it writes them, in its own order."""

    @abstractmethod
    def settings(self) -> tuple[Setting, ...]:
        """What it holds accuracies for, ascending. An architecture may lack some of them."""

    @abstractmethod
    def rows(self, arch: str) -> Sequence[Row]:
        """Everything it holds of an architecture.

        Raises:
            UserError: it does not know the architecture, or the entry cannot be read.
        """

    def value(self, arch: str, dataset: str, split: str, hp: str, seed: int | None = None) -> float:
        """The accuracy of an architecture in percent: of one training, or the mean over all.

        Raises:
            UserError: the benchmark holds no such training.
        """
        setting = Setting(dataset, split, hp)
        found = {row.seed: row.accuracy for row in self.rows(arch) if _setting_of(row) == setting}
        if not found:
            held = sorted({_setting_of(row) for row in self.rows(arch)})
            raise UserError(f"holds nothing for {setting} of {arch}", self.name, f"it holds {_listed(held)}")
        if seed is None:
            return math.fsum(found.values()) / len(found)
        if seed not in found:
            seeds = ", ".join(str(known) for known in sorted(found, key=str))
            raise UserError(f"holds no seed {seed} for {setting} of {arch}", self.name, f"its seeds are {seeds}")
        return found[seed]

    def cost(self, arch: str, dataset: str) -> BenchmarkCost:
        """What an architecture costs on a dataset; trainings with different seeds cost the same.

        Raises:
            UserError: the benchmark does not know the architecture.
        """
        of_dataset = [row for row in self.rows(arch) if row.dataset == dataset]
        flops = next((row.flops for row in of_dataset if row.flops is not None), None)
        params = next((row.params for row in of_dataset if row.params is not None), None)
        return BenchmarkCost(flops, params)

    def choose(self, dataset: str | None = None, split: str | None = None, hp: str | None = None) -> Setting:
        """The setting that a user means; what they left open is the usual truth: a test split, the longest training.

        Raises:
            UserError: there is no such setting, or several datasets and none of them is CIFAR-10.
        """
        left = self.settings()
        dataset = self._one("dataset", dataset, [each.dataset for each in left], _DATASETS)
        left = tuple(each for each in left if each.dataset == dataset)
        split = self._one("split", split, [each.split for each in left], _SPLITS)
        left = tuple(each for each in left if each.split == split)
        epochs = {each.hp for each in left if each.hp.isdecimal() and len(each.hp) < 10}
        longest = sorted(epochs, key=int, reverse=True)
        return Setting(dataset, split, self._one("hp", hp, [each.hp for each in left], longest))

    def _one(self, what: str, given: str | None, known: Iterable[str], usual: Iterable[str]) -> str:
        known = list(dict.fromkeys(known))
        if given is not None and given not in known:
            fix = nearest(given, known) or f"it holds {', '.join(known)}"
            raise UserError(f"holds no {what} {given!r}", self.name, fix)
        choice = given or next((name for name in (*usual, *known[: len(known) == 1]) if name in known), None)
        if choice is None:
            raise UserError(f"holds more than one {what}", self.name, f"choose --{what} from {', '.join(known)}")
        return choice


class Table(Benchmark):
    """A benchmark whose rows are all in memory.

    Args:
        name: of the file, for messages.
        rows: of every architecture.

    Raises:
        UserError: there are none, or a training is there twice.
    """

    def __init__(self, name: str, rows: Iterable[Row]) -> None:
        super().__init__(name)
        self._rows: dict[str, list[Row]] = {}
        seen: set[tuple[str, Setting, int | None]] = set()
        for row in rows:
            key = (row.arch, _setting_of(row), row.seed)
            if key in seen:
                seed = "no seed" if row.seed is None else f"seed {row.seed}"
                what = f"holds {row.arch} twice ({_setting_of(row)}, {seed})"
                raise UserError(what, name, "leave one of the rows out")
            seen.add(key)
            self._rows.setdefault(row.arch, []).append(row)
        if not seen:
            raise UserError("holds no architecture", name, "give a file with results")
        self._settings = tuple(sorted({setting for _, setting, _ in seen}))

    def archs(self) -> tuple[str, ...]:
        """See `Benchmark`."""
        return tuple(self._rows)

    def settings(self) -> tuple[Setting, ...]:
        """See `Benchmark`."""
        return self._settings

    def rows(self, arch: str) -> Sequence[Row]:
        """See `Benchmark`."""
        if arch not in self._rows:
            raise unknown_architecture(arch, self.name)
        return self._rows[arch]

    def all_rows(self) -> Iterable[Row]:
        """Every row, architecture by architecture."""
        return (row for rows in self._rows.values() for row in rows)


def unknown_architecture(arch: str, name: str) -> UserError:
    """What is said of an architecture that the benchmark `name` does not hold."""
    return UserError(f"does not hold the architecture {arch}", name, "leave it out, or bring a file that holds it")


def _setting_of(row: Row) -> Setting:
    return Setting(row.dataset, row.split, row.hp)


def _listed(settings: Sequence[Setting]) -> str:
    return "; ".join(str(setting) for setting in settings)
