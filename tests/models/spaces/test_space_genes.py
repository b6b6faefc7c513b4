"""Genes: what is valid, drawn, changed, written and read back."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import pairwise
from subprocess import run

import numpy as np
import pytest
from scipy.stats import chisquare

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.catalog import RELEASED, SPACES, space_named
from vtk_cli.models.spaces.genotypes import EDGES, OPERATIONS, Edge, cell_paths, genes_of, genotype_of

DARTS = SPACES["darts"]
NODES = ((0, 2), (2, 5), (5, 9), (9, 14), (14, 16), (16, 19), (19, 23), (23, 28))
"""First and last gene of each of the eight inner nodes."""


def inputs_of_nodes(genes) -> list[int]:
    return [sum(gene != 0 for gene in genes[first:last]) for first, last in NODES]


def test_spaces_have_as_many_architectures_as_their_papers_say() -> None:
    assert DARTS.size == ((1 * 3 * 6 * 10) * 49**4) ** 2 == 1_037_664_180**2
    assert SPACES["nasbench201"].size == 15_625
    assert SPACES["shufflenetv2"].size == 4**20
    assert SPACES["mobilenet"].size == 6**6 * 7**15
    assert [SPACES[name].size for name in ("chain-a", "chain-b", "digits-mini")] == [64] * 3


def test_sampled_mutated_and_crossed_architectures_are_valid(space, rng) -> None:
    parents = [space.sample(rng) for _ in range(20)]
    for first, second in pairwise(parents):
        for genes in (first, space.mutate(first, rng, 0.5), space.crossover(first, second, rng)):
            assert all(type(gene) is int for gene in genes)
            space.validate(genes)


def test_every_darts_node_keeps_exactly_two_inputs_whatever_is_done_to_it(rng) -> None:
    genes = DARTS.sample(rng)
    for _ in range(300):
        other = DARTS.sample(rng)
        genes = DARTS.crossover(DARTS.mutate(genes, rng, 0.3), other, rng)
        assert inputs_of_nodes(other) == inputs_of_nodes(genes) == [2] * 8


def test_mutation_changes_both_cells_and_nothing_without_probability(rng) -> None:
    parent = DARTS.sample(rng)
    children = [DARTS.mutate(parent, rng, 0.1) for _ in range(200)]
    assert any(child[:14] != parent[:14] for child in children)
    assert any(child[14:] != parent[14:] for child in children)
    assert DARTS.mutate(parent, rng, 0.0) == parent
    chain = SPACES["shufflenetv2"]
    parent = chain.sample(rng)
    changed = np.mean([np.not_equal(chain.mutate(parent, rng, 0.2), parent) for _ in range(500)])
    assert changed == pytest.approx(0.2 * 3 / 4, abs=0.02)  # one of four values is the old one


def test_crossover_takes_every_gene_from_a_parent_in_equal_shares(rng) -> None:
    space = SPACES["shufflenetv2"]
    first, second = (0,) * 20, (3,) * 20
    children = np.array([space.crossover(first, second, rng) for _ in range(500)])
    assert set(children.ravel()) == {0, 3}
    assert np.mean(children == 3) == pytest.approx(0.5, abs=0.02)
    genes = DARTS.sample(rng)
    assert DARTS.crossover(genes, genes, rng) == genes


def test_the_same_generator_draws_the_same_architectures(space) -> None:
    first, second = ([space.sample(np.random.default_rng(5)) for _ in range(3)] for _ in range(2))
    assert first == second


def test_sampling_of_darts_is_uniform_over_pairs_of_edges_and_over_operations() -> None:
    rng = np.random.default_rng(1)
    nodes = [position for position in DARTS.positions if position.place == "node 5 of the normal cell"]
    drawn = [nodes[0].draw(rng) for _ in range(100_000)]
    pairs = Counter(tuple(at for at, gene in enumerate(genes) if gene) for genes in drawn)
    assert len(pairs) == 10
    assert chisquare(list(pairs.values())).pvalue > 0.001
    operations = Counter(gene for genes in drawn for gene in genes if gene)
    assert set(operations) == set(range(1, 8))
    assert chisquare(list(operations.values())).pvalue > 0.001
    both = Counter(tuple(gene for gene in genes if gene) for genes in drawn)
    assert len(both) == 49
    assert chisquare(list(both.values())).pvalue > 0.001


def test_drawing_a_node_repairs_the_released_codes_draws_to_the_same_distribution(rng) -> None:
    """Fourteen free draws with repair, as in the released code, against the direct draw: every pair equally often."""
    node = DARTS.positions[3]
    repaired = [node.repaired(tuple(rng.integers(0, 8, 5).tolist()), rng) for _ in range(20_000)]
    pairs = Counter(tuple(at for at, gene in enumerate(genes) if gene) for genes in repaired)
    assert len(pairs) == 10
    assert chisquare(list(pairs.values())).pvalue > 0.001
    assert chisquare(list(Counter(gene for genes in repaired for gene in genes if gene).values())).pvalue > 0.001


def test_repair_of_a_node_without_edges_gives_every_operation_equally_often(rng) -> None:
    repaired = [DARTS.positions[3].repaired((0,) * 5, rng) for _ in range(5000)]
    operations = Counter(gene for genes in repaired for gene in genes if gene)
    assert set(operations) == set(range(1, 8))
    assert chisquare(list(operations.values())).pvalue > 0.001


def test_repair_keeps_what_it_can(rng) -> None:
    node = DARTS.positions[3]
    for _ in range(50):
        fewer = node.repaired((4, 5, 6, 7, 1), rng)
        assert sum(gene != 0 for gene in fewer) == 2
        assert all(gene in (0, old) for gene, old in zip(fewer, (4, 5, 6, 7, 1), strict=True))
        more = node.repaired((0, 0, 3, 0, 0), rng)
        assert more[2] == 3
        assert sum(gene != 0 for gene in more) == 2
    assert node.repaired((0, 4, 0, 5, 0), rng) == (0, 4, 0, 5, 0)


def test_a_cell_has_14_edges_of_which_each_nodes_first_is_at_0_2_5_and_9() -> None:
    assert len(EDGES) == 14
    assert [EDGES.index(Edge(node, 0)) for node in (2, 3, 4, 5)] == [0, 2, 5, 9]
    for edge in EDGES:
        assert EDGES.index(edge) == edge.source + sum(range(2, edge.node))


def test_decoding_genes_gives_the_genotype_written_by_hand() -> None:
    cell = (5, 4, 6, 0, 5, 4, 0, 0, 7, 0, 7, 6, 0, 0)
    written = (
        ("sep_conv_5x5", 0),
        ("sep_conv_3x3", 1),
        ("dil_conv_3x3", 0),
        ("sep_conv_5x5", 2),
        ("sep_conv_3x3", 0),
        ("dil_conv_5x5", 3),
        ("dil_conv_5x5", 1),
        ("dil_conv_3x3", 2),
    )
    assert genotype_of(cell + cell).normal == genotype_of(cell + cell).reduce == written
    assert genes_of(written[1::-1] + written[2:], written) == cell + cell  # a node's two edges may be in either order


def test_genes_to_genotype_and_back_is_the_identity(rng) -> None:
    for _ in range(50):
        genes = DARTS.sample(rng)
        genotype = genotype_of(genes)
        assert genes_of(genotype.normal, genotype.reduce) == genes


def test_there_are_30_ways_through_a_darts_cell() -> None:
    paths = cell_paths()
    assert len(set(paths)) == len(paths) == 30
    assert Counter(path[-1] for path in paths) == {2: 2, 3: 4, 4: 8, 5: 16}
    assert all(path[0] in (0, 1) and min(path[1:]) >= 2 and list(path) == sorted(set(path)) for path in paths)


def test_text_of_an_architecture_is_read_back(space, rng) -> None:
    for _ in range(20):
        genes = space.sample(rng)
        text = space.format(genes)
        assert space.parse(text) == space.parse(f"  {text}\n") == genes
        assert space.parse(", ".join(map(str, genes))) == space.parse(str(list(genes))) == genes


def test_all_15625_strings_of_nasbench201_differ_and_are_read_back() -> None:
    space = SPACES["nasbench201"]
    every = [tuple(map(int, np.base_repr(number, 5).zfill(6))) for number in range(15_625)]
    strings = [space.format(genes) for genes in every]
    assert len(set(strings)) == 15_625
    assert [space.parse(text) for text in strings[::50]] == every[::50]
    assert strings[0] == "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def test_darts_reads_genotypes_and_published_names() -> None:
    known = RELEASED["genas-flatness-cifar100"][1].genes
    assert DARTS.parse("GENAS_FLATNESS_CIFAR100") == DARTS.parse("genas-flatness-cifar100") == known
    assert known == (3, 5, 0, 4, 4, 0, 0, 4, 5, 0, 4, 0, 0, 7, 6, 3, 2, 0, 5, 0, 5, 0, 7, 0, 1, 1, 0, 0)
    cells = {"normal": [], "reduce": []}
    for number, (first, last) in enumerate(NODES):
        for at in range(first, last):
            if known[at]:
                cells["normal" if number < 4 else "reduce"].append([OPERATIONS[known[at]], at - first])
    assert DARTS.parse(str(cells).replace("'", '"')) == known
    for space, released in RELEASED.values():
        space.validate(released.genes)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("darts", "1 2 3", r"darts needs 28 genes in 0\.\.7; there are 3"),
        ("darts", " ".join("8" * 28), r"darts needs 28 genes in 0\.\.7; gene 0 \(from 0\) is 8"),
        ("darts", "3" + " 0" * 27, "node 2 of the normal cell has 1 input, a node has exactly 2"),
        ("darts", "3 3 3 3 3" + " 0" * 23, "node 3 of the normal cell has 3 inputs, a node has exactly 2"),
        ("darts", "genas-flatness-cifar1000", "did you mean genas-flatness-cifar100"),
        ("darts", "resnet", "'resnet' is no architecture of darts; write its 28 genes as integers"),
        ("darts", '{"normal": []', "is no genotype of darts"),
        ("darts", '{"normal": [], "reduce": []}', "the normal cell: has 0 edges"),
        ("nasbench201", "0 1 2 3 4 5", r"nasbench201 needs 6 genes in 0\.\.4; gene 5 \(from 0\) is 5"),
        ("nasbench201", "|none~0|", "it has 1 nodes, not 3"),
        ("nasbench201", "|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "node 2 must name the sources"),
        ("nasbench201", "|nor_conv_3x4~0|+|none~0|none~1|+|none~0|none~1|none~2|", "did you mean nor_conv_3x3"),
        ("shufflenetv2", "4" + " 0" * 19, r"shufflenetv2 needs 20 genes in 0\.\.3"),
        ("mobilenet", "0 " * 20, r"mobilenet needs 21 genes in -1\.\.5; there are 20"),
        ("mobilenet", "0 0 0 0 -1" + " 0" * 16, "layer 4 takes 0, 1, 2, 3, 4, 5, not -1"),
        ("digits-mini", "0 0 4", r"digits-mini needs 3 genes in 0\.\.3"),
        ("digits-mini", "", "is no architecture of digits-mini"),
        ("digits-mini", "1 2 2.5", "is no architecture of digits-mini"),
    ],
)
def test_what_is_no_architecture_is_refused_in_a_line(name, text, message) -> None:
    with pytest.raises(UserError, match=message) as caught:
        SPACES[name].parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([["sep_conv_3x4", 0]], "unknown operation 'sep_conv_3x4'; did you mean sep_conv_3x3"),
        ([["none", 0]], "unknown operation 'none'"),
        ([["skip_connect", 2]], "node 2 cannot come from 2; its sources are 0..1"),
        ([["skip_connect", 1], ["sep_conv_3x3", 1]], "node 2 has two edges from 1"),
        (["skip_connect"], "'skip_connect' is no edge"),
    ],
)
def test_a_wrong_genotype_is_refused_with_its_place(entries, message) -> None:
    good = [["skip_connect", 0], ["skip_connect", 1]] * 4
    with pytest.raises(UserError, match=f"the reduce cell: {message}"):
        genes_of(good, entries + good[len(entries) :])


def test_only_spaces_without_constraints_are_independent() -> None:
    assert [name for name, space in SPACES.items() if not space.independent] == ["darts"]
    assert all(len(space.choices) == space.length for space in SPACES.values())
    mobile = SPACES["mobilenet"].choices
    assert [layer for layer, alphabet in enumerate(mobile) if -1 not in alphabet] == [0, 4, 8, 12, 16, 20]


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="unknown search space 'dart'; did you mean darts"):
        space_named("dart")
    with pytest.raises(UserError, match="darts has no networks of the form 'imagenets'; did you mean imagenet"):
        DARTS.shape("imagenets", 10)
    with pytest.raises(UserError, match="width 45: the width must be even; give 46"):
        DARTS.shape("imagenet", 1000, width=45)
    with pytest.raises(UserError, match="cells 2: networks of darts need cells of at least 3"):
        DARTS.shape("cifar", 10, cells=2)
    with pytest.raises(UserError, match="classes 0: networks of darts need classes of at least 1"):
        DARTS.shape("cifar", 0)
    with pytest.raises(UserError, match="width 32: networks of shufflenetv2 have their width fixed"):
        SPACES["shufflenetv2"].shape("supernet", 10, width=32)
    shape = DARTS.shape("supernet", 10)
    with pytest.raises(UserError, match="the shape is of the space darts, not of mobilenet"):
        SPACES["mobilenet"].supernet(shape)
    with pytest.raises(UserError, match="a supernet cannot have the form 'cifar'"):
        DARTS.supernet(DARTS.shape("cifar", 10))
    with pytest.raises(UserError, match="give one of cifar, imagenet"):
        DARTS.network(DARTS.parse("genas-flatness-cifar10"), shape)


def test_the_catalog_does_without_torch() -> None:
    code = (
        "import sys; from vtk_cli.models.spaces.catalog import SPACES; darts = SPACES['darts'];"
        "darts.cost_range(darts.shape('cifar', 10)); assert not {'torch', 'numpy', 'timm'} & set(sys.modules)"
    )
    run([sys.executable, "-c", code], check=True)
