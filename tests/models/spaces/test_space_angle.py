"""The vectors of weights whose angle scores an architecture (arXiv 2101.11834)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.models.spaces.small_spaces import WITH_POOLS, WITHOUT_POOLS, randomise, small_shape
from vtk_cli.models.spaces.catalog import SPACES

DARTS, NASBENCH = SPACES["darts"], SPACES["nasbench201"]


def walks(genes, node=None, path=()):
    """Every way through a darts cell along edges that are there, by walking: lists of (edge, operation)."""
    starts = (0, 1) if node is None else (node,)
    for source in starts:
        for target in range(max(2, source + 1), 6):
            edge = source + sum(range(2, target))
            if genes[edge]:
                longer = (*path, (edge, genes[edge]))
                yield longer
                yield from walks(genes, target, longer)


def weights_of(module, operation, width):
    """What an operation of darts contributes, from its modules."""
    if operation in {1, 2}:
        return [torch.full((width * 9,), 1 / 9), *module[1].parameters()]
    if operation == 3 and isinstance(module, nn.Identity):
        return [torch.eye(width)]
    return list(module.parameters())


def slow_darts_vector(supernet, genes):
    parts = [*supernet.stem.parameters(), supernet.classifier.weight]
    for number, cell in enumerate(supernet.cells):
        chosen = genes[14:] if number in {1, 2} else genes[:14]
        width = cell.preprocess1.op[1].out_channels
        parts += [*cell.preprocess0.parameters(), *cell.preprocess1.parameters()]
        for walk in walks(chosen):
            for edge, operation in walk:
                parts += weights_of(cell._ops[edge]._ops[operation], operation, width)
    return torch.cat([part.detach().reshape(-1) for part in parts])


def angle(first, second):
    return float(torch.arccos((torch.dot(first, second) / first.norm() / second.norm()).clamp(-1, 1)))


def test_darts_vector_holds_the_weights_met_along_every_way_through_every_cell(rng) -> None:
    supernet = randomise(DARTS.supernet(small_shape(DARTS)))
    for genes in (WITH_POOLS, WITHOUT_POOLS, DARTS.sample(rng), DARTS.sample(rng)):
        found, expected = supernet.vectors(genes, supernet.state_dict()), slow_darts_vector(supernet, genes)
        assert found.shape == expected.shape
        torch.testing.assert_close(found.sort().values, expected.sort().values, atol=0, rtol=0)


def test_darts_vector_leaves_out_ways_with_an_absent_edge() -> None:
    """All nodes from the inputs alone: eight ways of one edge a cell, none longer."""
    cell = (4, 4, 4, 4, 0, 4, 4, 0, 0, 4, 4, 0, 0, 0)
    assert len(list(walks(cell))) == 8
    supernet = DARTS.supernet(small_shape(DARTS))
    width, sep = [4, 8, 16, 16], lambda c: 2 * (9 * c + c * c + 2 * c)
    around = [supernet.stem, *(part for c in supernet.cells for part in (c.preprocess0, c.preprocess1))]
    fixed = sum(p.numel() for module in around for p in module.parameters()) + supernet.classifier.weight.numel()
    assert len(supernet.vectors(cell + cell, supernet.state_dict())) == fixed + sum(8 * sep(c) for c in width)


def test_the_released_code_takes_the_beta_of_dilated_convolutions_from_their_gamma() -> None:
    supernet = randomise(DARTS.supernet(small_shape(DARTS)))
    state = supernet.state_dict()
    dilated = [f"{name}.op.3" for name, m in supernet.named_modules() if type(m).__name__ == "DilatedConv"]
    doubled = {**state, **{f"{name}.bias": state[f"{name}.weight"] for name in dilated}}
    quirky = supernet.vectors(WITHOUT_POOLS, state, official_quirks=True)
    assert torch.equal(quirky, supernet.vectors(WITHOUT_POOLS, doubled))
    assert not torch.equal(quirky, supernet.vectors(WITHOUT_POOLS, state))
    assert torch.equal(supernet.vectors(WITH_POOLS, state), supernet.vectors(WITH_POOLS, state, official_quirks=True))


def test_nasbench201_vector_holds_convolutions_along_open_ways_and_everything_around() -> None:
    supernet = randomise(NASBENCH.supernet(small_shape(NASBENCH)))
    state, widths = supernet.state_dict(), (4, 8, 16)
    around = sum(p.numel() for name, p in supernet.named_parameters() if not name.startswith("cells."))
    around += sum(p.numel() for cell in (1, 3) for p in supernet.cells[cell].parameters())
    length = {
        (3, 0, 0, 3, 0, 0): sum(9 * c * c for c in widths),  # 0-3 alone; 0-1 leads nowhere
        (3, 0, 0, 0, 2, 0): sum(10 * c * c for c in widths),  # 0-1-3
        (3, 0, 2, 0, 2, 3): sum((10 + 9 + 1 + 9) * c * c for c in widths),  # 0-1-2-3 and 0-1-3
        (0, 4, 0, 1, 0, 1): sum(9 * c for c in widths),  # pooling on 0-2-3; skips add nothing
        (0, 0, 0, 1, 0, 0): 0,
    }
    for genes, along in length.items():
        assert len(supernet.vectors(genes, state)) == around + along
    edge = state["cells.0.edges.3<-0.3.op.1.weight"].flatten()
    assert torch.equal(supernet.vectors((3, 0, 0, 3, 0, 0), state)[: len(edge)], edge)


def test_nasbench201_vector_is_empty_when_every_way_is_closed() -> None:
    supernet = NASBENCH.supernet(small_shape(NASBENCH))
    for genes in ((3, 3, 3, 0, 0, 0), (0, 0, 0, 0, 0, 0), (0, 0, 3, 0, 3, 3)):
        assert supernet.vectors(genes, supernet.state_dict()).shape == (0,)


def test_chain_vector_holds_exactly_the_weights_of_the_path(rng) -> None:
    for name in ("shufflenetv2", "mobilenet", "digits-mini"):
        space = SPACES[name]
        supernet, genes = randomise(space.supernet(small_shape(space))), space.sample(rng)
        expected = torch.cat([p.detach().flatten() for p in supernet.active_parameters(genes).values()])
        assert torch.equal(supernet.vectors(genes, supernet.state_dict()), expected)


def test_vectors_of_the_same_and_of_opposite_weights_lie_at_0_and_at_pi(space, rng) -> None:
    """Of convolutions: the fixed kernels of pools and skips would point the same way in both states."""
    supernet = randomise(space.supernet(small_shape(space)))
    state = {name: value.double() for name, value in supernet.state_dict().items() if value.is_floating_point()}
    convolutions = {"darts": tuple(4 if gene == 3 else gene for gene in WITHOUT_POOLS), "nasbench201": (3, 2) * 3}
    genes = convolutions.get(space.name) or space.sample(rng)
    same = supernet.vectors(genes, state)
    opposite = supernet.vectors(genes, {name: -value for name, value in state.items()})
    assert same.dtype == torch.float64
    assert angle(same, same) < 1e-6
    assert angle(same, opposite) == pytest.approx(np.pi, abs=1e-6)


def test_fixed_kernels_of_darts_do_not_turn_with_the_weights() -> None:
    supernet = randomise(DARTS.supernet(small_shape(DARTS)))
    state = supernet.state_dict()
    vector = supernet.vectors(WITH_POOLS, state)
    opposite = supernet.vectors(WITH_POOLS, {name: -value for name, value in state.items()})
    fixed = vector == opposite
    assert set(vector[fixed].unique().tolist()) == {0.0, 1.0, torch.tensor(1 / 9).item()}
    assert torch.equal(vector[~fixed], -opposite[~fixed])


def test_vectors_of_two_states_differ_only_where_the_path_does() -> None:
    space = SPACES["chain-a"]
    supernet = randomise(space.supernet(space.shape("supernet", 10)))
    state = supernet.state_dict()
    other = {name: value + 1 if name.startswith("layers.1.2.") else value for name, value in state.items()}
    assert torch.equal(supernet.vectors((0, 1, 0), state), supernet.vectors((0, 1, 0), other))
    assert not torch.equal(supernet.vectors((0, 2, 0), state), supernet.vectors((0, 2, 0), other))
