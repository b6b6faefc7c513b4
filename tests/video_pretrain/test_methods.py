"""MoCo, BYOL, SimCLR and SwAV against slow references, and what may not change or learn."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.engine.two_processes import run_world
from tests.video_pretrain.tiny_methods import DIM, PROTOTYPES, QUEUE, byol, moco, simclr, swav, views
from vtk_cli.engine.update import Clock
from vtk_cli.video_pretrain.freqaug import FreqAug
from vtk_cli.video_pretrain.objective import PretrainedVideo, SSLObjective
from vtk_cli.video_pretrain.simclr import nt_xent
from vtk_cli.video_pretrain.ssl_method import annealed_momentum
from vtk_cli.video_pretrain.swav import sinkhorn


def unit(rows: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, dtype=torch.float64, generator=generator), dim=1)


def slow_nt_xent(one: Tensor, other: Tensor, temperature: float) -> float:
    """Eq. 1 of arXiv 2002.05709, term by term."""
    z = [row.tolist() for row in torch.cat((one, other))]
    b = len(one)
    similar = [[sum(p * q for p, q in zip(a, c, strict=True)) / temperature for c in z] for a in z]
    total = 0.0
    for i in range(2 * b):
        right = (i + b) % (2 * b)
        total -= similar[i][right] - math.log(sum(math.exp(similar[i][k]) for k in range(2 * b) if k != i))
    return total / (2 * b)


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_nt_xent_is_the_papers_sum_term_by_term(batch, temperature):
    one, other = unit(batch, 5), unit(batch, 5, 1)
    assert nt_xent(one, other, temperature).item() == pytest.approx(slow_nt_xent(one, other, temperature), rel=1e-12)


def test_nt_xent_of_rows_that_are_all_alike_is_the_log_of_their_number():
    rows = torch.ones(6, 1, dtype=torch.float64)
    assert nt_xent(rows, rows, 0.3).item() == pytest.approx(math.log(11))


def test_simclr_is_nt_xent_of_its_heads_unit_vectors():
    method, (one, other) = simclr(), views(2, 6)
    z = [F.normalize(method.head(method.backbone(view)), dim=1) for view in (one, other)]
    assert method.passes(2) == 1
    assert method.loss([one, other], 0, 0.0, 0).item() == pytest.approx(slow_nt_xent(*z, 0.2), rel=1e-5)


@pytest.mark.parametrize("make", [simclr, swav])
@pytest.mark.parametrize("count", [3, 4])
def test_the_loss_of_more_views_is_the_mean_of_all_pairs(make, count):
    method, seen = make(), views(count, 6)
    pairs = [method.loss(pair, 0, 0.5, 0) for pair in combinations(seen, 2)]
    torch.testing.assert_close(method.loss(seen, 0, 0.5, 0), sum(pairs) / len(pairs))


def test_mocos_loss_is_the_cross_entropy_of_the_other_views_key_against_the_queue():
    method, seen = moco(momentum=1.0), views(3, 4)
    queue = method.queue.clone()
    keys = [F.normalize(method.key_networks[1](method.key_networks[0](view)), dim=1) for view in seen]
    for number in range(3):
        query = F.normalize(method.head(method.backbone(seen[number])), dim=1)
        terms = []
        for at, own in enumerate(keys):
            for row in range(4) if at != number else ():
                right = math.exp((query[row] @ own[row]).item() / 0.2)
                wrong = sum(math.exp((query[row] @ old).item() / 0.2) for old in queue)
                terms.append(-math.log(right / (right + wrong)))
        assert len(terms) == 8
        assert method.loss(seen, number, 0.0, 0).item() == pytest.approx(np.mean(terms), rel=1e-5)
    torch.testing.assert_close(method.queue[:12], torch.cat(keys))
    assert torch.equal(method.queue[12:], queue[12:])


def test_the_queue_loses_its_oldest_keys_and_no_others():
    method = moco()
    start = method.queue.clone()
    given = [unit(8, DIM, seed).float() for seed in range(5)]
    for number, keys in enumerate(given[:2]):
        method.enqueue(keys)
        assert int(method.place) == 8 * (number + 1)
    assert torch.equal(method.queue, torch.cat((given[0], given[1], start[16:])))
    for keys in given[2:]:
        method.enqueue(keys)
    assert torch.equal(method.queue, torch.cat((given[3], given[4], given[2])))
    assert int(method.place) == 40 % QUEUE


def test_a_short_last_batch_takes_the_places_of_the_oldest_keys_round_the_end():
    method = moco()
    given = unit(29, DIM).float()
    for keys in given.split((8, 8, 5, 8)):
        method.enqueue(keys)
    assert torch.equal(method.queue, torch.cat((given[24:], given[5:24])))
    assert int(method.place) == 5


def test_the_queue_starts_within_the_published_bounds():
    queue = moco(queue=2000).queue
    bound = (3 / DIM) ** 0.5
    assert queue.abs().max() <= bound
    assert queue.abs().max() > 0.99 * bound
    assert abs(queue.pow(2).sum(dim=1).mean() - 1) < 0.05  # of unit length in the mean


@pytest.mark.parametrize("make", [moco, byol])
def test_an_average_of_momentum_1_is_frozen_and_of_0_a_copy(make):
    for momentum in (1.0, 0.0, 0.75):
        method = make(momentum)
        averaged = method.key_networks if make is moco else method.target_networks
        slow = [weight.clone() for weight in averaged.parameters()]
        with torch.no_grad():
            for weight in (*method.backbone.parameters(), *method.head.parameters()):
                weight.add_(1.0)
        method.advance(0.0)
        fast = [*method.backbone.parameters(), *method.head.parameters()]
        for before, now, trained in zip(slow, averaged.parameters(), fast, strict=True):
            torch.testing.assert_close(now, momentum * before + (1 - momentum) * trained)


@pytest.mark.parametrize("make", [moco, byol])
def test_losses_do_not_move_the_average_and_the_objective_moves_it_before_them(make):
    method = make(0.0)
    averaged = method.key_networks if make is moco else method.target_networks
    with torch.no_grad():
        method.backbone.layer.weight.add_(1.0)
    for number in range(2):
        method.loss(views(2, 4), number, 0.0, 0)
    assert (averaged[0].layer.weight != method.backbone.layer.weight).all()
    batch = (None, torch.stack(views(2, 4), dim=1), torch.zeros(4, 2, dtype=torch.bool), None)
    losses = SSLObjective(FreqAug("none"), 10)(PretrainedVideo(method, None), batch, Clock(0, 0, 0))
    next(losses)
    assert torch.equal(averaged[0].layer.weight, method.backbone.layer.weight)


@pytest.mark.parametrize("make", [moco, byol])
def test_batches_that_make_one_update_move_the_average_once(make):
    method = make(0.9)
    averaged = method.key_networks if make is moco else method.target_networks
    with torch.no_grad():
        method.backbone.layer.weight.add_(1.0)
    moved = []
    for progress in (0.0, 0.0, 0.5):
        method.advance(progress)
        moved.append(averaged[0].layer.weight.clone())
    assert torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[1], moved[2])


@pytest.mark.parametrize("make", [moco, simclr, swav])
def test_cosines_are_not_rounded_by_autocast(make):
    """Of unit vectors; divided by the temperature, their rounding to bf16 would show in the loss."""
    torch.manual_seed(0)
    seen = [F.normalize(view.flatten(1)).view_as(view) for view in views(2, 6)]
    exact = make()
    # Layers that autocast leaves alone, so that nothing but the cosines could be rounded.
    exact.backbone.forward = lambda clips: clips.flatten(1)[:, :DIM]
    exact.head = torch.nn.Identity()
    if make is moco:
        exact.key_networks = torch.nn.ModuleList([torch.nn.Flatten(), torch.nn.Identity()])
        exact.key_networks[0].forward = exact.backbone.forward
        exact._followed = 0.0
    expected = exact.loss(seen, 0, 0.0, 0)
    with torch.autocast("cpu", torch.bfloat16):
        found = exact.loss(seen, 0, 0.0, 0)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("make", [moco, byol])
def test_no_gradient_reaches_keys_or_queue_and_one_reaches_everything_else(make):
    method = make()
    seen = views(2, 4)
    for number in range(method.passes(2)):
        method.loss(seen, number, 0.0, 0).backward()
    averaged = method.key_networks if make is moco else method.target_networks
    assert all(weight.grad is None and not weight.requires_grad for weight in averaged.parameters())
    assert not any(buffer.requires_grad for buffer in method.buffers())
    for name, weight in method.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None and weight.grad.abs().sum() > 0, name  # noqa: PT018


def test_momentum_rises_from_its_start_to_1_along_a_cosine():
    assert annealed_momentum(0.9, 0.0) == pytest.approx(0.9)
    assert annealed_momentum(0.9, 0.5) == pytest.approx(0.95)
    assert annealed_momentum(0.9, 1.0) == pytest.approx(1.0)
    assert annealed_momentum(0.9, 0.7, anneal=False) == 0.9


def test_byol_at_its_papers_temperature_is_2_minus_2_cos_less_2():
    method, seen = byol(momentum=1.0), views(3, 4)
    targets = [method.target_networks[1](method.target_networks[0](view)) for view in seen]
    assert method.passes(3) == 3
    for number in range(3):
        prediction = method.predictor(method.head(method.backbone(seen[number])))
        others = [target for at, target in enumerate(targets) if at != number]
        distances = [(F.normalize(prediction) - F.normalize(target)).pow(2).sum(dim=1) for target in others]
        expected = torch.stack(distances).mean() - 2
        torch.testing.assert_close(method.loss(seen, number, 0.0, 0), expected, atol=1e-5, rtol=1e-5)


def test_sinkhorn_gives_every_sample_1_and_every_prototype_its_share():
    scores = unit(60, 7).float()
    codes = sinkhorn(scores, 0.05, 3)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(60))
    codes = sinkhorn(scores, 0.5, 200)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(60))
    torch.testing.assert_close(codes.sum(dim=0), torch.full((7,), 60 / 7), atol=1e-4, rtol=1e-4)
    assert torch.isfinite(sinkhorn(torch.tensor([[1.0, -1.0], [1.0, -1.0]]), 0.005, 3)).all()


def test_sinkhorn_is_the_papers_loop():
    scores = unit(6, 4)
    Q = np.exp(scores.numpy().T / 0.05)
    Q /= Q.sum()
    for _ in range(3):
        for k in range(4):
            Q[k] /= Q[k].sum() * 4
        for b in range(6):
            Q[:, b] /= Q[:, b].sum() * 6
    np.testing.assert_allclose(sinkhorn(scores, 0.05, 3).numpy(), (Q * 6).T, rtol=1e-10)


def test_swav_swaps_codes_and_predictions():
    method, (one, other) = swav(), views(2, 9)
    method.advance(0.5)
    weight = F.normalize(method.prototypes.weight, dim=1).detach()
    scores = [F.normalize(method.head(method.backbone(view)), dim=1) @ weight.T for view in (one, other)]
    codes = [sinkhorn(score.detach(), 0.05, 3) for score in scores]
    expected = sum(F.cross_entropy(scores[there] / 0.1, codes[here]) for here, there in ((0, 1), (1, 0)))
    torch.testing.assert_close(method.loss([one, other], 0, 0.5, 0), expected / 2)


def test_prototypes_have_unit_length_and_no_gradient_at_first():
    method, seen = swav(frozen=0.1), views(2, 9)
    with torch.no_grad():
        method.prototypes.weight.mul_(3)
    method.advance(0.05)
    method.loss(seen, 0, 0.05, 0).backward()
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(PROTOTYPES))
    assert (method.prototypes.weight.grad == 0).all()
    assert method.head.weight.grad.abs().sum() > 0
    method.loss(seen, 0, 0.1, 0).backward()
    assert method.prototypes.weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_two_processes_make_the_gradient_of_one_with_their_batches_together(tmp_path):
    script = Path(__file__).with_name("ranks.py")
    assert run_world(script, tmp_path) == [0, 0]
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for name, one in found["one"].items():
        two = found["two"][name]
        assert set(one) == set(two)
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, atol=1e-6, rtol=1e-4, msg=f"{name}: {key} differs")
            assert tensor.abs().sum() > 0, key
