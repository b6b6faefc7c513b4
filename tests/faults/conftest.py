"""A server of forks for all tests of a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.forks import Forks
from tests.faults.trainings import TRAININGS


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Commands run in an empty folder, with a cache of their own."""
    root = tmp_path_factory.mktemp("faults")
    server = Forks(root, root / "cache")
    yield server
    server.close()


@pytest.fixture(scope="session")
def data_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder with the data of a training, drawn when first asked for."""
    root = tmp_path_factory.mktemp("data")

    def drawn(name: str) -> Path:
        folder = root / name.replace(" ", "-")
        if not folder.exists():
            TRAININGS[name].draw(folder)
        return folder

    return drawn
