from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from vtk_cli.prune.counts import counts
from vtk_cli.prune.generators import create_generator
from vtk_cli.prune.mask_bits import encode
from vtk_cli.prune.masking import Selection, masked
from vtk_cli.prune.rebuilding import seeded, ticket_of
from vtk_cli.prune.ticket import Ticket
from vtk_cli.prune.ticket_file import write_ticket
from vtk_cli.prune.ticket_info import (
    LAYER_COLUMNS,
    SIZE_COLUMNS,
    kept_shares,
    layer_rows,
    size_rows,
    sizes,
    summary,
    ticket_counts,
)
from vtk_cli.prune.weights import WeightRule, initialise_scores, initialise_weights


def ticket(*, freeze_first: bool = False, bias: bool = False) -> Ticket:
    generator = create_generator("dcgan-tiny", image_size=16, channels=1, bias=bias)
    initialise_weights(generator, WeightRule())
    network = masked(generator, Selection(Fraction(1, 10), "global"), freeze_first=freeze_first)
    initialise_scores(network.layers.values(), "uniform", "global", seed=1)
    return ticket_of(network, seeded(WeightRule()), algorithm="edge-popup")


def test_the_rows_add_up() -> None:
    made = ticket()
    *rows, total = layer_rows(made)
    assert all(len(row) == len(LAYER_COLUMNS) for row in (*rows, total))
    assert total[2:4] == (141_528, 14_153) == (sum(row[2] for row in rows), sum(row[3] for row in rows))
    assert total[4] == "10.00"
    assert rows[0][:3] == ("body.layers.0", "32 x 96 x 4 x 4", 49_152)


def test_the_shares_count_frozen_layers_and_other_parameters() -> None:
    made = ticket(freeze_first=True, bias=True)
    pool, others = 141_528 - 49_152, 3 * (96 + 48 + 24) + 1
    shares = kept_shares(made)
    assert shares["pool"] == pytest.approx(0.1, abs=1e-5)
    assert shares["prunable"] == pytest.approx((49_152 + round(pool / 10)) / 141_528)
    assert shares["parameters"] == pytest.approx((49_152 + round(pool / 10) + others) / (141_528 + others))
    assert layer_rows(made)[0][0].endswith("(frozen)")


def test_the_sizes_are_those_of_the_parts() -> None:
    made = ticket()
    found = sizes(made, file=11_000)
    assert (found.weights, found.bits, found.stored) == (566_112, 17_691, 0)
    assert found.bound < found.rice < found.deflated < found.bits
    assert found.rest == 2 * 4 * (96 + 48 + 24)
    rows = {name: (size, ratio) for name, size, ratio in size_rows(found)}
    assert rows["weights, float32"] == (566_112, "1")
    assert rows["ticket file"] == (11_000, "1/51.5")
    assert all(len(row) == len(SIZE_COLUMNS) for row in size_rows(found))
    assert found.rice == len(encode([mask.numpy().ravel() for mask in made.masks.values()], "rice"))


def test_what_is_counted_is_what_the_network_counts() -> None:
    generator = create_generator("dcgan-tiny", image_size=16, channels=1, bias=True)
    network = masked(generator, Selection(Fraction(1, 10), "global"), freeze_first=True)
    initialise_scores(network.layers.values(), "uniform", "global", seed=1)
    network.refresh()
    assert ticket_counts(ticket(freeze_first=True, bias=True)) == counts(network.network)


def test_the_summary_is_json() -> None:
    made = replace(ticket(), metrics={"FD(digits-cnn)": 20.0})
    said = json.loads(json.dumps(summary(made, 12), allow_nan=False))
    assert (said["keep"], said["bytes"]["file"], said["theta"]["seed"]) == (0.1, 12, 0)
    assert sum(layer["kept"] for layer in said["layers"]) == 14_153


def test_a_file_has_the_parts_and_little_else(tmp_path: Path) -> None:
    made = ticket()
    found = sizes(made)
    size = write_ticket(tmp_path / "a.vtkt", made)
    assert found.rice + found.rest < size < found.rice + found.rest + 1_700
