from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from vtk_cli.errors import UserError
from vtk_cli.prune.exports import export_generator
from vtk_cli.prune.generator_source import open_generator
from vtk_cli.prune.generators import Generator, create_generator
from vtk_cli.prune.masking import MaskedNetwork, Selection, masked
from vtk_cli.prune.rebuilding import of_checkpoint, seeded, ticket_of
from vtk_cli.prune.samples import latents
from vtk_cli.prune.ticket_file import write_ticket
from vtk_cli.prune.weights import WeightRule, initialise_scores, initialise_weights


def generator(rule: WeightRule) -> Generator:
    made = create_generator("dcgan-tiny", image_size=16, channels=1, nz=8, ngf=16)
    initialise_weights(made, rule)
    return made.eval()


def search(plain: Generator) -> MaskedNetwork:
    network = masked(plain, Selection(Fraction(1, 2), "layer"))
    initialise_scores(network.layers.values(), "uniform", "layer", seed=1)
    return network.eval()


def images(network: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        made: torch.Tensor = network(latents(3, 8, seed=1))
    return made


def test_a_ticket_an_export_and_a_run_folder_give_the_same_generator(tmp_path: Path) -> None:
    rule = WeightRule(seed=4)
    network = search(generator(rule))
    write_ticket(tmp_path / "ticket.vtkt", ticket_of(network, seeded(rule), algorithm="edge-popup"))
    opened = open_generator(tmp_path / "ticket.vtkt")
    assert torch.equal(images(opened), images(network))
    assert torch.equal(images(open_generator(tmp_path)), images(network))
    for form in ("safetensors", "csr", "ternary"):
        done = export_generator(opened, form, tmp_path / "g")  # type: ignore[arg-type]
        assert torch.equal(images(open_generator(done.path)), images(network))
    export_generator(generator(rule), "safetensors", tmp_path / "run" / "model")
    assert torch.equal(images(open_generator(tmp_path / "run")), images(generator(rule)))


def test_a_ticket_on_a_pretrained_generator_opens_with_its_file(tmp_path: Path) -> None:
    plain = generator(WeightRule("kaiming-normal", seed=9))
    pretrained = export_generator(plain, "safetensors", tmp_path / "pretrained").path
    network = search(plain)
    write_ticket(tmp_path / "a.vtkt", ticket_of(network, of_checkpoint(network), algorithm="edge-popup"))
    assert torch.equal(images(open_generator(tmp_path / "a.vtkt", pretrained)), images(network))
    with pytest.raises(UserError, match="--theta"):
        open_generator(tmp_path / "a.vtkt")
    with pytest.raises(UserError, match="only a ticket selects"):
        open_generator(pretrained, pretrained)


def test_paths_that_hold_no_generator_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds neither ticket.vtkt nor model.safetensors"):
        open_generator(tmp_path)
    for name in ("a.vtkt", "a.safetensors", "a.pt"):
        with pytest.raises(UserError, match="no such"):
            open_generator(tmp_path / name)
