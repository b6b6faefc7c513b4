"""What a step of a supernet's training changes, and what it leaves alone."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from tests.models.spaces.small_spaces import randomise, small_shape
from tests.search.analytic_supernet import CHAIN
from vtk_cli.console import Console
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.loop import Plan, fit
from vtk_cli.engine.update import Clock
from vtk_cli.models.spaces.catalog import SPACES
from vtk_cli.search.samplers import FairSampler, Path, UniformSampler
from vtk_cli.search.supernet_training import PathObjective, sgd

CPU = torch.device("cpu")


class Fixed:
    """Runs the given paths, step by step; notes the seeds."""

    def __init__(self, *steps):
        self.steps, self.seeds = [[Path(genes) for genes in step] for step in steps], []

    def paths(self, seed):
        self.seeds.append(seed)
        return self.steps[(len(self.seeds) - 1) % len(self.steps)]


def supernet_of(name="chain-a"):
    space = SPACES[name]
    return randomise(space.supernet(small_shape(space))).train()


def data(space, count=24, classes=7):
    generator = torch.Generator().manual_seed(2)
    resolution = small_shape(space).resolution
    images = torch.randn(count, space.input_channels, resolution, resolution, generator=generator)
    return images, torch.randint(classes, (count,), generator=generator)


def train(supernet, objective, epochs=1, *, optimizer=None, folder=None, clip_norm=5.0, images=None):
    random, targets = data(supernet.space)
    images = random if images is None else images
    optimizer = optimizer or sgd(supernet, lr=0.1, weight_decay=0.1)
    batches = TensorBatches(images, targets, batch_size=12, seed=0)
    plan = Plan(epochs=epochs, clip_norm=clip_norm)
    return fit(
        supernet, objective, batches, optimizer, plan=plan, device=CPU, seed=4, evaluate=None,
        checkpoints=folder, metrics=None, console=Console(quiet=True),
    )  # fmt: skip


def state_of(supernet):
    return {name: value.detach().clone() for name, value in supernet.named_parameters()}


@pytest.mark.parametrize("name", ["chain-a", "darts", "nasbench201"])
def test_a_step_changes_the_weights_of_its_path_and_no_others(name, rng) -> None:
    """Also of those that have momentum and would decay: first all steps run one path, then another."""
    supernet = supernet_of(name)
    space = supernet.space
    first, second = space.sample(rng), space.sample(rng)
    optimizer = sgd(supernet, lr=0.1, weight_decay=0.1)
    train(supernet, PathObjective(Fixed([first]), seed=0), optimizer=optimizer)
    before = state_of(supernet)
    train(supernet, PathObjective(Fixed([second]), seed=0), optimizer=optimizer)
    changed = {name for name, value in supernet.named_parameters() if not torch.equal(value, before[name])}
    assert changed == set(supernet.active_parameters(second))


def test_gradients_of_what_is_not_on_the_path_are_none() -> None:
    supernet, (images, targets) = supernet_of(), data(CHAIN)
    for loss in PathObjective(Fixed([(0, 1, 2)]), seed=0)(supernet, (None, images, targets), Clock(0, 0, 0)):
        loss.backward()
    having = {name for name, one in supernet.named_parameters() if one.grad is not None}
    assert having == set(supernet.active_parameters((0, 1, 2)))


@pytest.mark.parametrize("name", ["chain-a", "mobilenet"])
def test_a_fair_step_gives_every_choice_of_every_layer_one_gradient(name) -> None:
    supernet = supernet_of(name)
    images, targets = data(supernet.space, 4)
    counts = Counter()
    for weight_name, one in supernet.named_parameters():
        if supernet.choice_of(weight_name) is not None:
            one.register_hook(lambda _, weight_name=weight_name: counts.update([weight_name]))
    objective = PathObjective(FairSampler(supernet.space), seed=0)
    losses = 0
    for loss in objective(supernet, (None, images, targets), Clock(0, 0, 11)):
        loss.backward()
        losses += 1
    owned = [name for name, _ in supernet.named_parameters() if supernet.choice_of(name) is not None]
    assert counts == Counter(owned)
    assert losses == max(map(len, supernet.space.choices))
    assert all(one.requires_grad for one in supernet.parameters())


def test_gradients_of_a_step_of_several_paths_are_the_sum_of_theirs() -> None:
    paths, (images, targets) = [(0, 1, 2), (3, 1, 0)], data(CHAIN)
    together, summed = supernet_of(), supernet_of()
    for loss in PathObjective(Fixed(paths), smoothing=0.1, seed=0)(together, (None, images, targets), Clock(0, 0, 0)):
        loss.backward()
    total = sum(F.cross_entropy(summed(images, genes), targets, label_smoothing=0.1) for genes in paths)
    total.backward()
    for one, other in zip(together.parameters(), summed.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad)


def test_paths_follow_from_seed_and_step_and_not_from_the_process() -> None:
    """The clock's own seed is another in every process, and in every batch of an update."""
    supernet, (images, targets) = supernet_of(), data(CHAIN, 4)
    seeds = {}
    for seed, step, clock_seed in ((0, 5, 1), (0, 5, 2), (0, 6, 1), (1, 5, 1)):
        sampler = Fixed([(0, 0, 0)])
        list(PathObjective(sampler, seed=seed)(supernet, (None, images, targets), Clock(0, step, clock_seed)))
        seeds[seed, step, clock_seed] = sampler.seeds[0]
    assert seeds[0, 5, 1] == seeds[0, 5, 2]
    assert len(set(seeds.values())) == 3


def test_images_are_prepared_with_the_seed_of_the_batch() -> None:
    supernet, (images, targets), seen = supernet_of(), data(CHAIN), []

    def prepare(given, seed):
        seen.append(seed)
        return given * 2

    sampler = Fixed([(0, 0, 0)])
    objective = PathObjective(sampler, prepare=prepare, seed=0)
    (loss,) = objective(supernet, (None, images, targets), Clock(0, 0, 77))
    assert seen == [77]
    assert torch.equal(loss, F.cross_entropy(supernet(images * 2, (0, 0, 0)), targets))


def test_an_interrupted_training_runs_the_paths_it_would_have_run(tmp_path) -> None:
    whole, broken, gone_on = supernet_of(), supernet_of(), supernet_of()
    sampler = UniformSampler(CHAIN)
    train(whole, PathObjective(sampler, seed=0), 3)
    train(broken, PathObjective(sampler, seed=0), 1, folder=tmp_path)
    torch.manual_seed(123)
    train(gone_on, PathObjective(sampler, seed=0), 3, folder=tmp_path)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in gone_on.state_dict().items())


def test_training_lowers_the_loss_of_all_architectures() -> None:
    """On images that one can tell apart: each class has a brightness."""
    supernet = supernet_of()
    images, targets = data(CHAIN)
    images += 3 * targets.view(-1, 1, 1, 1)
    objective, optimizer = PathObjective(FairSampler(CHAIN), seed=0), sgd(supernet, lr=0.05)
    rows = train(supernet, objective, 40, optimizer=optimizer, images=images).history
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]


def test_a_sharpness_aware_gradient_is_that_at_the_weights_moved_along_the_gradient() -> None:
    images, targets = data(CHAIN)
    genes, radius = (0, 2, 3), 0.05
    found, slow = supernet_of(), supernet_of()
    before = state_of(found)
    for loss in PathObjective(Fixed([genes]), sharpness=radius, seed=0)(found, (None, images, targets), Clock(0, 0, 0)):
        loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in found.named_parameters())
    active = slow.active_parameters(genes)
    F.cross_entropy(slow(images, genes), targets).backward()
    length = torch.sqrt(sum(one.grad.square().sum() for one in active.values()))
    with torch.no_grad():
        for one in active.values():
            one.add_(radius * one.grad / length)
            one.grad = None
    F.cross_entropy(slow(images, genes), targets).backward()
    for name, one in found.named_parameters():
        if name in active:
            torch.testing.assert_close(one.grad, active[name].grad)
        else:
            assert one.grad is None


def test_decay_spares_vectors_where_it_is_asked_to_and_gradients_are_clipped_by_value() -> None:
    supernet = supernet_of()
    decays = {
        id(one): group["weight_decay"]
        for group in sgd(supernet, lr=0.1, weight_decay=0.5, decay_on="weights").param_groups
        for one in group["params"]
    }
    assert {decays[id(one)] for one in supernet.parameters() if one.dim() > 1} == {0.5}
    assert {decays[id(one)] for one in supernet.parameters() if one.dim() == 1} == {0.0}
    optimizer = sgd(supernet, lr=1.0, momentum=0.0, clip_value=0.01)
    before = state_of(supernet)
    sum((100 * one).sum() for one in supernet.active_parameters((0, 0, 0)).values()).backward()
    optimizer.step()
    for name, one in supernet.active_parameters((0, 0, 0)).items():
        torch.testing.assert_close(before[name] - one.detach(), torch.full_like(one, 0.01), atol=1e-6, rtol=0)
