"""Supernets: the path of an architecture is the network of the architecture, and touches nothing else."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from tests.models.spaces.small_spaces import WITH_POOLS, WITHOUT_POOLS, randomise, small_shape
from vtk_cli.models.spaces.catalog import SPACES

DARTS = SPACES["darts"]


def images_for(space, shape, count=3):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, space.input_channels, shape.resolution, shape.resolution, generator=generator)


def architectures(space, rng, count=4):
    """Random ones; of darts one without pools, whose stand-alone networks lack the supernet's normalisation."""
    return [WITHOUT_POOLS] if space.name == "darts" else [space.sample(rng) for _ in range(count)]


def test_path_and_network_with_the_same_weights_put_out_the_same_logits(space, rng) -> None:
    shape = small_shape(space)
    supernet, images = randomise(space.supernet(shape)), images_for(space, shape)
    for genes in architectures(space, rng):
        network = space.network(genes, supernet.stand_alone_shape)
        network.load_state_dict(supernet.stand_alone_state(genes), strict=True)
        with torch.no_grad():
            expected, found = network.eval()(images), supernet(images, genes)
        assert found.shape == (3, 7)
        assert found.std() > 1e-3
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_path_and_network_agree_in_training_too(space, rng) -> None:
    shape = small_shape(space)
    supernet, images = randomise(space.supernet(shape)), images_for(space, shape)
    genes = architectures(space, rng, 1)[0]
    network = space.network(genes, supernet.stand_alone_shape)
    network.load_state_dict(supernet.stand_alone_state(genes), strict=True)
    for net in (supernet, network):
        for module in net.train().modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    torch.testing.assert_close(supernet(images, genes), network(images), atol=1e-4, rtol=1e-4)


def test_darts_path_with_pools_is_the_network_with_the_supernets_normalisation_after_each_pool() -> None:
    """The released supernet normalises after pooling and the network that is retrained does not."""
    shape = small_shape(DARTS)
    supernet, images = randomise(DARTS.supernet(shape)), images_for(DARTS, shape)
    network = DARTS.network(WITH_POOLS, supernet.stand_alone_shape)
    network.load_state_dict(supernet.stand_alone_state(WITH_POOLS), strict=True)
    network.eval()
    with torch.no_grad():
        path, alone = supernet(images, WITH_POOLS), network(images)
        assert not torch.allclose(path, alone, atol=1e-2)
        for number, cell in enumerate(network.cells):
            genes = WITH_POOLS[14:] if number in {1, 2} else WITH_POOLS[:14]
            for at, edge in enumerate(edge for edge in range(14) if genes[edge]):
                if genes[edge] in {1, 2}:
                    cell._ops[at] = supernet.cells[number]._ops[edge]._ops[genes[edge]]
        torch.testing.assert_close(path, network(images), atol=1e-5, rtol=1e-5)


def test_darts_path_is_the_sum_over_all_edges_with_zeros_for_absent_ones() -> None:
    """The released code adds a zero for each `none`; here such edges are passed over."""
    shape = small_shape(DARTS)
    supernet, images = randomise(DARTS.supernet(shape)), images_for(DARTS, shape)
    with torch.no_grad():
        older = newer = supernet.stem(images)
        for number, cell in enumerate(supernet.cells):
            genes = WITH_POOLS[14:] if number in {1, 2} else WITH_POOLS[:14]
            nodes, at = [cell.preprocess0(older), cell.preprocess1(newer)], 0
            for node in range(2, 6):
                terms = []
                for source in range(node):
                    term = cell._ops[at](nodes[source], genes[at] or 4)
                    terms.append(term if genes[at] else torch.zeros_like(term))
                    at += 1
                nodes.append(sum(terms))
            older, newer = newer, torch.cat(nodes[2:], dim=1)
        expected = supernet.classifier(newer.mean(dim=(2, 3)))
        torch.testing.assert_close(supernet(images, WITH_POOLS), expected, atol=1e-6, rtol=1e-6)


def test_a_path_gives_gradients_to_its_own_parameters_and_to_no_other(space, rng) -> None:
    shape = small_shape(space)
    supernet = space.supernet(shape).train()
    genes = space.sample(rng) if space.name != "nasbench201" else (3, 2, 4, 1, 2, 3)
    supernet(images_for(space, shape), genes).square().sum().backward()
    touched = {name for name, value in supernet.named_parameters() if value.grad is not None}
    assert touched == set(supernet.active_parameters(genes))
    assert touched < {name for name, _ in supernet.named_parameters()}


def test_only_the_normalisations_of_the_path_follow_its_batches(space, rng) -> None:
    shape = small_shape(space)
    supernet = space.supernet(shape).train()
    genes = space.sample(rng) if space.name != "nasbench201" else (3, 2, 4, 1, 2, 3)
    supernet(images_for(space, shape), genes)
    followed = {
        name
        for name, module in supernet.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.num_batches_tracked > 0
    }
    assert followed == set(supernet.active_normalisations(genes))


def test_every_parameter_belongs_to_one_choice_or_to_all_architectures(space, rng) -> None:
    supernet = space.supernet(small_shape(space))
    owners = {name: supernet.choice_of(name) for name in supernet.state_dict()}
    assert {type(owner) for owner in owners.values()} == {tuple, type(None)}
    for owner in owners.values():
        assert owner is None or owner[1] in space.choices[owner[0]]
    genes = [space.sample(rng) for _ in range(5)]
    shared = {name for name, _ in supernet.named_parameters() if owners[name] is None}
    assert shared <= set.intersection(*(set(supernet.active_parameters(g)) for g in genes))


def test_disjoint_paths_of_a_chain_share_only_stem_and_head() -> None:
    space = SPACES["digits-mini"]
    supernet = space.supernet(space.shape("supernet", 10))
    paths = [supernet.active_parameters((choice,) * 3) for choice in range(4)]
    for first, second in itertools.combinations(paths, 2):
        assert all(name.startswith(("stem.", "head.")) for name in first.keys() & second.keys())
    assert set().union(*paths) == {name for name, _ in supernet.named_parameters()}


def test_supernets_normalise_without_parameters_where_the_papers_do() -> None:
    def affine(name, inside):
        supernet = SPACES[name].supernet(small_shape(SPACES[name]))
        norms = {n: m for n, m in supernet.named_modules() if isinstance(m, nn.BatchNorm2d)}
        return {
            module.affine
            for n, module in norms.items()
            if (supernet.choice_of(f"{n}.running_mean") is not None) == inside
        }

    assert affine("nasbench201", inside=True) == affine("shufflenetv2", inside=True) == {False}
    assert affine("shufflenetv2", inside=False) == {False}
    assert affine("nasbench201", inside=False) == {True}
    for name in ("darts", "mobilenet", "chain-a"):
        assert affine(name, inside=True) == affine(name, inside=False) == {True}


@pytest.mark.parametrize("name", ["nasbench201", "shufflenetv2"])
def test_networks_normalise_with_parameters_where_supernets_do_not(name, rng) -> None:
    space = SPACES[name]
    network = space.network(space.sample(rng), small_shape(space, "stand-alone"))
    assert all(module.affine for module in network.modules() if isinstance(module, nn.BatchNorm2d))


def test_names_of_the_darts_supernets_weights_are_those_of_the_released_checkpoint() -> None:
    state = DARTS.supernet(DARTS.shape("supernet", 100)).state_dict()
    for name, shape in {
        "stem.0.weight": (48, 3, 3, 3),
        "stem.1.running_var": (48,),
        "cells.0.preprocess0.op.1.weight": (16, 48, 1, 1),
        "cells.3.preprocess0.conv_1.weight": (16, 64, 1, 1),
        "cells.6.preprocess0.bn.bias": (64,),
        "cells.7.preprocess1.op.2.weight": (64,),
        "cells.0._ops.0._ops.1.1.weight": (16,),
        "cells.0._ops.13._ops.2.1.running_mean": (16,),
        "cells.2._ops.0._ops.3.conv_2.weight": (16, 32, 1, 1),
        "cells.1._ops.4._ops.4.op.5.weight": (16, 1, 3, 3),
        "cells.1._ops.4._ops.5.op.7.bias": (16,),
        "cells.5._ops.9._ops.7.op.1.weight": (64, 1, 5, 5),
        "cells.5._ops.9._ops.6.op.3.weight": (64,),
        "classifier.bias": (100,),
    }.items():
        assert tuple(state[name].shape) == shape
    assert not any("._ops.0._ops.0." in name for name in state)
    assert not any(name.startswith("cells.0._ops.0._ops.3.") for name in state)  # a skip of stride 1
    reducing = [edge for edge in range(14) if f"cells.2._ops.{edge}._ops.3.conv_1.weight" in state]
    assert reducing == [0, 1, 2, 3, 5, 6, 9, 10]  # the edges from the cell's inputs
    assert {name.split(".")[1] for name in state if ".preprocess0.conv_1." in name} == {"3", "6"}


def test_nodes_of_nasbench201_without_edges_are_zero(rng) -> None:
    space = SPACES["nasbench201"]
    shape = small_shape(space, "stand-alone")
    images = images_for(space, shape)
    closed = space.network((0,) * 6, shape).eval()
    assert torch.equal(closed.feature_maps(images)[0], torch.zeros(3, 4, 16, 16))
    # A convolution on the empty node 1 still runs; its normalisation puts out its beta, as in the benchmark.
    dangling = space.network((0, 0, 0, 0, 3, 0), shape).eval()
    beta = dangling.cells[0].edges["3<-1"].op[2].bias
    nn.init.constant_(beta, 0.5)
    assert torch.allclose(dangling.feature_maps(images)[0], torch.full((3, 4, 16, 16), 0.5))
