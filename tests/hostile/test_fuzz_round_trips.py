"""What is written is read back as it was, whatever it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.cases import held
from tests.hostile.mutations import fuzzed
from vtk_cli.console import Console
from vtk_cli.data.detection.opening import open_detection
from vtk_cli.data.detection.outlines import outline_of_mask
from vtk_cli.data.detection.results import Detections, read_results, write_results
from vtk_cli.data.points.opening import open_points
from vtk_cli.data.points.records import Classes, PointImage, PointSet
from vtk_cli.data.rle import run_lengths
from vtk_cli.files import CACHE_VARIABLE
from vtk_cli.models.spaces.architecture import Architecture, parse_architecture, read_architecture, write_architecture
from vtk_cli.models.spaces.catalog import SPACES
from vtk_cli.prune.mask_bits import CODECS
from vtk_cli.prune.ticket import Layer, Origin, Ticket
from vtk_cli.prune.ticket_file import read_ticket, write_ticket
from vtk_cli.search.benchmarks.benchmark import Row, Table
from vtk_cli.search.benchmarks.table_file import read_table, write_table
from vtk_cli.segment.labels.points import write_points
from vtk_cli.similarity.matrix_file import MIN_SAT, read_matrix_csv, write_matrix_csv
from vtk_cli.similarity.sat import MAX_SAT

QUIET = Console(quiet=True)
WIDTH, HEIGHT = 9, 7
SUITE, OUTCOME = "hostile", "read back as it was written"
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12).filter(
    lambda name: name == name.strip() and name
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    here = tmp_path_factory.mktemp("trips")
    Image.new("RGB", (WIDTH, HEIGHT)).save(here / "a.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield here


def test_tickets(folder: Path):
    @fuzzed
    @given(
        st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1)), min_size=1, max_size=4),
        st.fractions(Fraction(1, 10**6), 1),
        st.sampled_from(CODECS),
        NAMES,
    )
    def each(sizes: list[tuple[int, int, int]], keep: Fraction, codec: Any, name: str) -> None:
        masks = {
            f"{name}{at}": torch.rand(high, wide, generator=torch.Generator().manual_seed(seed)) < 0.3
            for at, (high, wide, seed) in enumerate(sizes)
        }
        made = Ticket(
            generator={"name": name},
            keep=keep,
            scope="layer",
            structure="none",
            algorithm="edge-popup",
            origin=Origin("seed", "signed-constant", 2**64 - 1),
            layers=tuple(Layer(key, tuple(mask.shape), int(mask.sum())) for key, mask in masks.items()),
            masks=masks,
            rest={name: torch.tensor([0.1, -1e30])},
            weights_sha256="0" * 64,
            metrics={name: 0.1},
        )
        write_ticket(folder / "a.vtkt", made, codec)
        found = read_ticket(folder / "a.vtkt")
        assert (found.keep, found.layers, found.origin) == (made.keep, made.layers, made.origin)
        assert (dict(found.generator), dict(found.metrics)) == (dict(made.generator), dict(made.metrics))
        assert all(torch.equal(found.masks[key], mask) for key, mask in masks.items())
        assert torch.equal(found.rest[name], made.rest[name])

    each()
    held(SUITE, "round trip: tickets", OUTCOME)


@pytest.mark.parametrize("name", SPACES)
def test_architectures(folder: Path, name: str):
    space = SPACES[name]

    @fuzzed
    @given(st.integers(0, 2**32 - 1))
    def each(seed: int) -> None:
        genes = space.sample(np.random.default_rng(seed))
        assert space.parse(space.format(genes)) == genes
        made = Architecture(space, genes)
        write_architecture(folder / "arch.json", made, made.shape())
        assert read_architecture(folder / "arch.json").genes == genes
        assert parse_architecture(space.format(genes), name).genes == genes

    each()
    held(SUITE, "round trip: architectures and genotypes", OUTCOME)


def _dataset(folder: Path, names: list[str]) -> Any:
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [],
        "categories": [{"id": 3 * at + 1, "name": name} for at, name in enumerate(names)],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    return open_detection(folder / "truth.json", "train", console=QUIET)


def test_results(folder: Path):
    dataset = _dataset(folder, ["cat", "dog"])

    @fuzzed
    @given(st.integers(0, 6), st.integers(0, 2**32 - 1), st.floats(0, 1))
    def each(count: int, seed: int, share: float) -> None:
        rng = np.random.default_rng(seed)
        corners = rng.random((count, 4)) * (WIDTH / 2, HEIGHT / 2, WIDTH / 2, HEIGHT / 2)
        boxes = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)
        masks = tuple(outline_of_mask(rng.random((HEIGHT, WIDTH)) < share) for _ in range(count))
        made = Detections(5, boxes, rng.random(count), rng.integers(0, 2, count), masks)
        write_results(folder / "results.json", [made], dataset.category_ids)
        found = read_results(folder / "results.json", dataset)
        assert len(found) == (count > 0)
        for one in found:
            np.testing.assert_allclose(one.boxes, boxes, rtol=1e-12, atol=1e-12)
            assert one.scores.tolist() == made.scores.tolist()
            assert one.labels.tolist() == made.labels.tolist()
            assert one.masks is not None
            assert [_runs(mask) for mask in one.masks] == [_runs(mask) for mask in masks]

    each()
    held(SUITE, "round trip: results with masks", OUTCOME)


def _runs(mask: Any) -> list[int]:
    return run_lengths({"size": [HEIGHT, WIDTH], "counts": mask.counts}, HEIGHT, WIDTH)


@pytest.mark.parametrize("file", ["points.csv", "points.json"])
def test_points(folder: Path, file: str):
    @fuzzed
    @given(st.lists(NAMES, min_size=1, max_size=3, unique=True), st.integers(0, 5), st.integers(0, 2**32 - 1))
    def each(names: list[str], count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        classes = Classes(tuple(names), tuple(range(1, len(names) + 1)))
        apart = rng.permutation(WIDTH // 2 * (HEIGHT // 2))[:count]  # clicks within a pixel of one another are one
        places = np.stack([apart % (WIDTH // 2), apart // (WIDTH // 2)], axis=1) * 2 + rng.random((count, 2)) * 0.25
        labels = rng.integers(0, len(names), count)
        image = PointImage(folder / "a.png", 1, WIDTH, HEIGHT, places, labels, np.arange(count), ("point",) * count)
        write_points(folder / file, PointSet("made", (image,), classes), folder)
        (found,) = open_points(folder / file, classes=classes, console=QUIET).images
        np.testing.assert_allclose(found.points, places, rtol=1e-9)
        assert found.labels.tolist() == labels.tolist()

    each()
    held(SUITE, "round trip: clicks as COCO and as a table", OUTCOME)


@pytest.mark.parametrize("file", ["bench.csv", "bench.json"])
def test_benchmarks(folder: Path, file: str):
    row = st.builds(
        Row,
        arch=NAMES,
        dataset=NAMES,
        split=NAMES,
        hp=NAMES,
        seed=st.one_of(st.none(), st.integers(0, 10**6)),
        accuracy=st.floats(0, 100),
        loss=st.one_of(st.none(), st.floats(-1e9, 1e9)),
        flops=st.one_of(st.none(), st.floats(0, 1e15)),
        params=st.one_of(st.none(), st.floats(0, 1e15)),
    )

    @fuzzed
    @given(
        st.lists(
            row, min_size=1, max_size=4, unique_by=lambda one: (one.arch, one.dataset, one.split, one.hp, one.seed)
        )
    )
    def each(rows: list[Row]) -> None:
        write_table(folder / file, rows)
        assert sorted(map(repr, read_table(folder / file).all_rows())) == sorted(
            map(repr, Table("made", rows).all_rows())
        )

    each()
    held(SUITE, "round trip: benchmark tables", OUTCOME)


def test_matrices(folder: Path):
    @fuzzed
    @given(st.lists(NAMES, min_size=2, max_size=5, unique=True), st.integers(0, 2**32 - 1))
    def each(names: list[str], seed: int) -> None:
        upper = np.triu(np.random.default_rng(seed).uniform(MIN_SAT, MAX_SAT, (len(names), len(names))))
        matrix = upper + np.triu(upper, 1).T
        write_matrix_csv(folder / "matrix.csv", names, matrix)
        found, values = read_matrix_csv(folder / "matrix.csv")
        assert found == tuple(names)
        assert np.array_equal(values, matrix)

    each()
    held(SUITE, "round trip: similarity matrices", OUTCOME)
