from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from vtk_cli.console import Console
from vtk_cli.data.byproducts.marks import Byproducts
from vtk_cli.data.byproducts.reading import read_byproducts
from vtk_cli.files import CACHE_VARIABLE

Place = tuple[float, float]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    return cache


@dataclass
class Heard:
    """A console, and what it said."""

    stream: io.StringIO = field(default_factory=io.StringIO)

    @property
    def console(self) -> Console:
        return Console(_err=RichConsole(file=self.stream, width=500))

    @property
    def text(self) -> str:
        return self.stream.getvalue()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def read(heard: Heard) -> Callable[..., Byproducts]:
    def reading(path: Path, **options: Any) -> Byproducts:
        return read_byproducts(path, console=heard.console, **options)

    return reading


def block(clicks: Sequence[Place], *, selected: str = "True", trace: Sequence[Place] = ()) -> str:
    """What one annotator did, as ImageNet-AB has it."""
    records = "".join(
        f"<{tag}><time>{time}</time><x>{x}</x><y>{y}</y></{tag}>"
        for tag, places in (("selectedRecord", clicks), ("mouseTracking", trace))
        for time, (x, y) in enumerate(places)
    )
    return (
        "<metadata><hoveredCount>1</hoveredCount><hoveredRecord>None</hoveredRecord>"
        f"<selected>{selected}</selected>{records}<worker_id>W0RK3R</worker_id></metadata>"
    )


def write_xml(path: Path, blocks: Iterable[str], objects: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><filename>{path.stem}</filename>{objects}{''.join(blocks)}</annotation>", encoding="utf-8"
    )


def write_list(path: Path, entries: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path
