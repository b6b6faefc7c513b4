"""What an attack looks like: a few images, clean and attacked, with what two networks say of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vtk_cli.reports.contact_sheet import Tile, write_contact_sheet
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.section import Section

_SHOWN = 8
_FOOLED = "#D55E00"


def example_section(rows: Rows) -> Section:
    """The first images that the first two networks both classify correctly: clean, and attacked against each."""

    def draw(folder: Path) -> Path:
        path = folder / "examples.png"
        one, other = rows.comparison.names[:2]
        title = f"Clean; attacked against {one}; attacked against {other} (framed: the other network is fooled)"
        tiles = _tiles(rows)
        write_contact_sheet(path, tiles, columns=len(tiles) // 3, cell=112, title=title)
        return path

    note = "Below each image: what the two networks say it is."
    return Section("examples", "Attacked images", note=note, draw=draw)


def _tiles(rows: Rows) -> list[Tile]:
    comparison, passes = rows.comparison, rows.passes
    pair = comparison.members[:2]
    common = np.flatnonzero(comparison.correct[0] & comparison.correct[1])
    # Spread over the set: the first images of a sorted folder are all of one class.
    shown = common[np.linspace(0, len(common) - 1, min(_SHOWN, len(common))).astype(int)]
    clean = comparison.images.pixels(passes.view(pair[0]))[torch.from_numpy(shown)]
    truth = comparison.labels.numpy()[shown]
    tiles = [Tile(image.permute(1, 2, 0).numpy(), f"label {label}") for image, label in zip(clean, truth, strict=True)]
    for source in (0, 1):
        chosen = rows.attacked_examples(source, shown)
        said = [passes.logits(member, chosen).argmax(axis=1) for member in pair]
        for index, image in enumerate(chosen):
            fooled = said[1 - source][index] != truth[index]
            caption = f"{pair[0].label}: {said[0][index]}\n{pair[1].label}: {said[1][index]}"
            tiles.append(Tile(image.permute(1, 2, 0).numpy(), caption, _FOOLED if fooled else None))
    return tiles
