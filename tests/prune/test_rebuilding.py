from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file
from vtk_cli.prune.generators import GENERATORS, create_generator
from vtk_cli.prune.keeping import Scope, Structure, WeightInit, kept_of
from vtk_cli.prune.masking import MaskedNetwork, Selection, folded, masked, prunable
from vtk_cli.prune.rebuilding import of_checkpoint, rebuild, seeded, stored, ticket_of
from vtk_cli.prune.samples import latents
from vtk_cli.prune.ticket import Ticket
from vtk_cli.prune.ticket_file import read_ticket, write_ticket
from vtk_cli.prune.verification import verify
from vtk_cli.prune.weights import WeightRule, initialise_scores, initialise_weights, weights_sha256

TENTH = Fraction(1, 10)
RULE = WeightRule(seed=7)
SIZES = {name: {"image_size": 32, "nz": 8, "ngf": 16 if name == "dcgan-tiny" else 8} for name in GENERATORS}


def found(
    name: str = "dcgan-tiny",
    keep: Fraction = TENTH,
    scope: Scope = "global",
    structure: Structure = "none",
    *,
    rule: WeightRule = RULE,
    freeze_first: bool = False,
    bias: bool = False,
) -> MaskedNetwork:
    """A generator with masks and batch-norm statistics as a search leaves them."""
    torch.manual_seed(3)
    generator = create_generator(name, channels=1, bias=bias, **SIZES[name])
    initialise_weights(generator, rule)
    if bias:
        for module in generator.modules():
            if isinstance(getattr(module, "bias", None), nn.Parameter):
                nn.init.normal_(module.bias, 0.0, 0.1)
    network = masked(generator, Selection(keep, scope, structure), freeze_first=freeze_first)
    initialise_scores(network.layers.values(), "uniform", scope, seed=5)
    network.train()
    for _ in range(3):
        network(torch.randn(8, generator.nz))
    return network.eval()


def ticket(network: MaskedNetwork, rule: WeightRule = RULE) -> Ticket:
    return ticket_of(network, seeded(rule), algorithm="edge-popup")


def images(network: nn.Module, nz: int) -> torch.Tensor:
    with torch.no_grad():
        return network(latents(4, nz, seed=1))


def round_trip(made: Ticket, folder: Path) -> Ticket:
    write_ticket(folder / "a.vtkt", made)
    return read_ticket(folder / "a.vtkt")


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("bias", [False, True])
def test_a_ticket_rebuilds_the_images_bit_for_bit(name: str, bias: bool, tmp_path: Path) -> None:
    network = found(name, Fraction(1, 2), bias=bias)
    again = rebuild(round_trip(ticket(network), tmp_path))
    assert not again.training
    assert torch.equal(images(again, again.nz), images(network, again.nz))
    assert images(again, again.nz).std() > 0.01


@pytest.mark.parametrize("keep", [Fraction(1, 1000), Fraction(1, 2), Fraction(1)])
def test_whatever_is_kept_the_images_are_the_same(keep: Fraction, tmp_path: Path) -> None:
    network = found(keep=keep, scope="layer")
    again = rebuild(round_trip(ticket(network), tmp_path))
    assert torch.equal(images(again, 8), images(network, 8))


def test_the_header_says_exactly_what_the_masks_keep(tmp_path: Path) -> None:
    made = round_trip(ticket(found(freeze_first=True)), tmp_path)
    assert [layer.kept for layer in made.layers] == [int(mask.sum()) for mask in made.masks.values()]
    assert [layer.frozen for layer in made.layers] == [True, *[False] * (len(made.layers) - 1)]
    assert made.layers[0].kept == made.layers[0].n
    total = sum(layer.n for layer in made.pool)
    assert sum(layer.kept for layer in made.pool) == kept_of(total, TENTH)
    assert all(finding.holds for finding in verify(made))
    assert torch.equal(images(rebuild(made), 8), images(found(freeze_first=True), 8))


@pytest.mark.parametrize(
    ("keep", "scope", "structure"),
    [(TENTH, "layer", "none"), (TENTH, "global", "none"), (Fraction(1, 2), "layer", "2:4")],
)
def test_a_whole_ticket_passes_every_check(keep: Fraction, scope: Scope, structure: Structure, tmp_path: Path) -> None:
    made = round_trip(ticket(found("sngan", keep, scope, structure)), tmp_path)
    findings = verify(made)
    assert len(findings) == 4
    assert all(finding.holds for finding in findings)


def moved_bit(made: Ticket) -> Ticket:
    """The same number kept, of other weights."""
    name = made.layers[-1].name
    mask = made.masks[name].clone().flatten()
    mask[int(mask.int().argmax())], mask[int((~mask).int().argmax())] = False, True
    return replace(made, masks={**made.masks, name: mask.view_as(made.masks[name])})


def flipped_bit(made: Ticket) -> Ticket:
    name = made.layers[0].name
    mask = made.masks[name].clone()
    mask.view(-1)[0] ^= True
    return replace(made, masks={**made.masks, name: mask})


def other_seed(made: Ticket) -> Ticket:
    return replace(made, origin=replace(made.origin, seed=8))


def other_scale(made: Ticket) -> Ticket:
    return replace(made, origin=replace(made.origin, scale=Fraction(1, 3)))


def other_generator(made: Ticket) -> Ticket:
    return replace(made, generator={**made.generator, "ngf": 9})


@pytest.mark.parametrize("change", [moved_bit, flipped_bit, other_seed, other_scale, other_generator])
def test_a_ticket_with_one_thing_changed_fails(change: Callable[[Ticket], Ticket]) -> None:
    made = change(ticket(found()))
    assert not verify(made)[0].holds
    with pytest.raises(UserError):
        rebuild(made)


def test_too_many_or_unordered_kept_weights_break_the_promise() -> None:
    made = flipped_bit(ticket(found(scope="layer")))
    counted = replace(
        made, layers=tuple(replace(layer, kept=int(made.masks[layer.name].sum())) for layer in made.layers)
    )
    assert [finding.holds for finding in verify(made)] == [False, False, True, True]
    assert [finding.holds for finding in verify(counted)] == [False, True, False, True]
    halves = ticket(found("sngan", Fraction(1, 2), "layer", "2:4"))
    assert "not in body.last" in verify(moved_bit(halves))[2].found or not verify(moved_bit(halves))[0].holds


def test_statistics_that_are_not_finite_are_found() -> None:
    made = ticket(found())
    name = next(iter(made.rest))
    broken = replace(made, rest={**made.rest, name: made.rest[name] / 0})
    assert [finding.holds for finding in verify(broken)] == [True, True, True, False]
    assert name in verify(broken)[3].found


def test_a_negative_variance_is_found() -> None:
    made = ticket(found())
    name = next(name for name in made.rest if name.endswith("running_var"))
    broken = replace(made, rest={**made.rest, name: -made.rest[name]})
    assert [finding.holds for finding in verify(broken)] == [True, True, True, False]
    assert verify(broken)[3].found == name


def test_another_architecture_is_refused_with_what_differs() -> None:
    made = ticket(found())
    with pytest.raises(UserError, match=r"layers are not those of dcgan-tiny: body.layers.0 is \(8, 32, 4, 4\) for"):
        rebuild(other_generator(made))
    with pytest.raises(UserError, match="unknown generator 'dcgan-tyni'; did you mean dcgan-tiny"):
        rebuild(replace(made, generator={**made.generator, "name": "dcgan-tyni"}))
    with pytest.raises(UserError, match="another order"):
        rebuild(replace(made, layers=made.layers[::-1]))
    with pytest.raises(UserError, match="1 missing"):
        rebuild(replace(made, rest=dict(list(made.rest.items())[1:])))
    for wrong in ({"name": "dcgan"}, {**made.generator, "ngf": 2.5}, {**made.generator, "ngf": 2**62}):
        with pytest.raises(UserError, match="describes no generator"):
            rebuild(replace(made, generator=wrong))


@pytest.mark.parametrize("init", ["kaiming-normal", "normal", "gaussian10"])
def test_weights_that_torch_draws_are_refused_stored_or_allowed(init: WeightInit, tmp_path: Path) -> None:
    rule = WeightRule(init, seed=7)
    network = found(rule=rule)
    with pytest.raises(UserError, match="--store-weights"):
        seeded(rule)
    allowed = round_trip(ticket_of(network, seeded(rule, allow_framework_rng=True), algorithm="edge-popup"), tmp_path)
    assert allowed.origin.torch == torch.__version__
    assert torch.equal(images(rebuild(allowed), 8), images(network, 8))
    held = round_trip(ticket_of(network, stored(init), algorithm="edge-popup"), tmp_path)
    assert torch.equal(images(rebuild(held), 8), images(network, 8))
    other = replace(allowed, origin=replace(allowed.origin, seed=1, torch="1.0"))
    with pytest.raises(UserError, match=r"torch 1.0 drew them, and this is torch .*: install that version"):
        rebuild(other)


def test_a_ticket_on_a_checkpoint_needs_that_checkpoint(tmp_path: Path) -> None:
    network = found(rule=WeightRule("kaiming-normal", seed=11))
    weights = {f"{name}.weight": layer.weight.clone() for name, layer in prunable(network.network).items()}
    made = round_trip(ticket_of(network, of_checkpoint(network), algorithm="edge-popup"), tmp_path)
    assert made.origin.sha256 == weights_sha256(network.network)
    assert torch.equal(images(rebuild(made, weights), 8), images(network, 8))
    assert all(finding.holds for finding in verify(made, weights))
    with pytest.raises(UserError, match="--theta"):
        rebuild(made)
    name = next(iter(weights))
    with pytest.raises(UserError, match="holds other weights"):
        rebuild(made, {**weights, name: weights[name] + 1})
    with pytest.raises(UserError, match="is missing for"):
        rebuild(made, {})


def test_rebuilding_leaves_the_global_random_numbers_alone() -> None:
    made = ticket(found())
    before = torch.get_rng_state()
    rebuild(made)
    assert torch.equal(before, torch.get_rng_state())


def test_a_ticket_of_ten_percent_is_a_fiftieth_of_the_weights(tmp_path: Path) -> None:
    generator = create_generator("dcgan-tiny", image_size=16, channels=1)
    initialise_weights(generator, WeightRule())
    network = masked(generator, Selection(TENTH, "global"))
    initialise_scores(network.layers.values(), "uniform", "global", seed=1)
    made = ticket_of(network, seeded(WeightRule()), algorithm="edge-popup")
    total = sum(layer.n for layer in made.layers)
    assert total == 141_528
    assert write_ticket(tmp_path / "a.vtkt", made) < 4 * total / 45
    assert write_ticket(tmp_path / "b.vtkt", made, "raw") < 4 * total / 25


def test_the_sum_is_that_of_the_plain_weights_in_forward_order() -> None:
    network = found()
    made = ticket(network)
    plain = folded(network.network)
    data = b"".join(layer.weight.detach().numpy().tobytes() for layer in prunable(plain).values())
    assert made.weights_sha256 == hashlib.sha256(data).hexdigest()


def test_another_process_makes_the_same_images(tmp_path: Path) -> None:
    network = found("sngan")
    write_ticket(tmp_path / "a.vtkt", ticket(network))
    code = (
        "import sys, pathlib, torch\n"
        "from vtk_cli.prune.ticket_file import read_ticket\n"
        "from vtk_cli.prune.rebuilding import rebuild\n"
        "from vtk_cli.prune.samples import latents\n"
        "network = rebuild(read_ticket(pathlib.Path(sys.argv[1], 'a.vtkt')))\n"
        "with torch.no_grad():\n"
        "    images = network(latents(4, 8, seed=1)).numpy()\n"
        "pathlib.Path(sys.argv[1], 'images').write_bytes(images.tobytes())\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    ours = tmp_path / "ours"
    ours.write_bytes(images(network, 8).numpy().tobytes())
    assert sha256_file(tmp_path / "images") == sha256_file(ours)
