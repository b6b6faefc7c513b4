"""NATS-Bench (arXiv 2009.00437) as a folder, `NATS-tss-v1_0-3ffb9-simple`: a file an architecture, read when asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vtk_cli.errors import UserError
from vtk_cli.search.benchmarks.benchmark import Benchmark, Row, Setting, unknown_architecture
from vtk_cli.search.benchmarks.inert_pickle import read_pickle
from vtk_cli.search.benchmarks.trainings import another_version, entry_rows, meta_archs

META = "meta.pickle.pbz2"


class NatsFolder(Benchmark):
    """The folder `NATS-tss-v1_0-3ffb9-simple`.

    Reading an architecture takes some 20 ms, all 15,625 some minutes.

    Args:
        folder: with `meta.pickle.pbz2` and `000000.pickle.pbz2` to `015624.pickle.pbz2`, or some of those.

    Raises:
        UserError: it is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        if not (folder / META).is_file():
            raise UserError("is no benchmark's folder", str(folder), f"that of NATS-Bench holds {META}")
        archs = meta_archs(read_pickle(folder / META), str(folder / META))
        self._folder = folder
        there = {path.name for path in folder.iterdir()}
        self._indexes = {arch: index for index, arch in enumerate(archs) if _file_name(index) in there}
        if not self._indexes:
            raise UserError("holds no architecture", str(folder), f"NATS-Bench has files such as {_file_name(0)}")
        self._read: dict[str, Sequence[Row]] = {}
        first = self.rows(next(iter(self._indexes)))
        if not first:
            raise another_version("the first architecture has no results", str(folder))
        self._settings = tuple(sorted({Setting(row.dataset, row.split, row.hp) for row in first}))

    def archs(self) -> tuple[str, ...]:
        """Those whose files are there."""
        return tuple(self._indexes)

    def settings(self) -> tuple[Setting, ...]:
        """Those of the first architecture; the others were trained alike."""
        return self._settings

    def rows(self, arch: str) -> Sequence[Row]:
        """See `Benchmark`; what was read once is kept."""
        if arch not in self._indexes:
            raise unknown_architecture(arch, self.name)
        if arch not in self._read:
            path = self._folder / _file_name(self._indexes[arch])
            self._read[arch] = entry_rows(arch, read_pickle(path), str(path))
        return self._read[arch]


def _file_name(index: int) -> str:
    return f"{index:06d}.pickle.pbz2"
