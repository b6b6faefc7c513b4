from __future__ import annotations

import torch

from vtk_cli.console import Console
from vtk_cli.segment.bench import CLICKS, measure


def test_both_rows_are_measured_and_say_what_the_clicks_gave() -> None:
    clicks, masks = measure(smallest=True, device=torch.device("cpu"), console=Console(quiet=True))
    assert min(clicks.ours, clicks.theirs, masks.ours, masks.theirs) > 0
    assert clicks.target == 1 / 1.5
    found, unresolved = (int(part.split()[0]) for part in clicks.note.split(", "))
    assert found + unresolved == CLICKS
    assert found > 10
    assert clicks.note == masks.note
