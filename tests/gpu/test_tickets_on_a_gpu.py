"""Tickets of a search on a GPU: the masks and the images of the network that was there."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from vtk_cli.prune.generators import create_generator
from vtk_cli.prune.masking import Selection, masked
from vtk_cli.prune.rebuilding import rebuild, seeded, ticket_of
from vtk_cli.prune.samples import latents
from vtk_cli.prune.ticket_file import read_ticket, write_ticket
from vtk_cli.prune.weights import WeightRule, initialise_scores, initialise_weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def test_a_ticket_found_on_a_gpu_makes_the_same_images_there(tmp_path: Path) -> None:
    rule = WeightRule(seed=3)
    generator = create_generator("sngan", image_size=32, nz=8, ngf=32)
    initialise_weights(generator, rule)
    network = masked(generator, Selection(Fraction(1, 10), "global"))
    initialise_scores(network.layers.values(), "uniform", "global", seed=1)
    network.cuda().train()
    noise = latents(16, 8, seed=0).cuda()
    with torch.no_grad():
        network(noise)
        network.eval()
        write_ticket(tmp_path / "a.vtkt", ticket_of(network, seeded(rule), algorithm="edge-popup"))
        again = rebuild(read_ticket(tmp_path / "a.vtkt"))
        expected, on_gpu = network(noise), again.cuda()(noise)
    assert torch.equal(on_gpu, expected)
    for name, mask in read_ticket(tmp_path / "a.vtkt").masks.items():
        assert torch.equal(mask, network.layers[name].mask.cpu())
