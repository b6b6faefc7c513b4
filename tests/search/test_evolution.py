"""Evolution: what it asks for, what it never asks for, and going on from a state."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chisquare

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.catalog import SPACES
from vtk_cli.models.spaces.cost import Cost, Limits
from vtk_cli.search.evolution import Evolution, draw_within, within
from vtk_cli.search.evolution_settings import EvolutionSettings
from vtk_cli.search.scores.combination import Combination

DARTS, CHAIN, MOBILE = SPACES["darts"], SPACES["chain-a"], SPACES["mobilenet"]
ACCURACY = Combination(("accuracy",), (1.0,))
SMALL = EvolutionSettings(population=12, generations=5, parents=4, mutations=6, crossovers=4, seed=3)


def fours(genes):
    """A toy score: the number of separable convolutions 3x3."""
    return {"accuracy": float(sum(gene == 4 for gene in genes))}


def everything(_):
    return True


def search(space=DARTS, settings=SMALL, score=ACCURACY, admits=everything):
    return Evolution(space, settings, score, admits)


def run(evolution, measure=fours, generations=None):
    """Run to the end, or some generations; what was asked for, generation by generation."""
    asked = []
    while (genes := evolution.ask()) and (generations is None or len(asked) < generations):
        asked.append(genes)
        evolution.tell({one: measure(one) for one in genes})
    return asked


def test_nothing_is_asked_for_twice_and_every_generation_is_scored() -> None:
    evolution = search()
    asked = run(evolution)
    flat = [genes for generation in asked for genes in generation]
    assert [len(generation) for generation in asked] == [12] * 5
    assert len(set(flat)) == len(flat) == 60
    assert evolution.done
    assert evolution.ask() == []
    assert [(one.number, one.asked, one.evaluated) for one in evolution.history] == [
        (number, 12, 12 * number + 12) for number in range(5)
    ]
    for genes in flat:
        DARTS.validate(genes)


def test_the_best_so_far_never_falls_and_is_the_best_of_all() -> None:
    evolution = search()
    flat = [genes for generation in run(evolution) for genes in generation]
    scores = [one.score for one in evolution.history]
    assert all(later >= earlier for earlier, later in pairwise(scores))
    assert scores[-1] == max(fours(genes)["accuracy"] for genes in flat)
    best = evolution.history[-1].best
    assert fours(best)["accuracy"] == scores[-1]
    assert evolution.ranking(1)[0].genes == best


def test_nothing_outside_of_the_limits_is_ever_asked_for() -> None:
    shape = MOBILE.shape("stand-alone", 1000)
    limits = Limits(max_macs=475e6, min_macs=350e6, max_params=6e6)
    table = MOBILE.table(shape)
    asked = run(search(MOBILE, admits=within(limits, table)), lambda genes: {"accuracy": float(sum(genes))})
    costs = [table.cost(genes) for generation in asked for genes in generation]
    assert len(costs) > 50
    assert all(350e6 <= cost.macs <= 475e6 and cost.params <= 6e6 for cost in costs)


@pytest.mark.parametrize("limits", [Limits(max_macs=190e6), Limits(max_macs=475e6, min_macs=470e6, max_params=6e6)])
def test_narrow_limits_are_searched_from_the_first_generation_on(limits) -> None:
    """The least that MobileNets cost is 182.5 M: uniform draws would never be as cheap."""
    table = MOBILE.table(MOBILE.shape("stand-alone", 1000))
    evolution = Evolution(MOBILE, SMALL, ACCURACY, within(limits, table), draw=draw_within(MOBILE, limits, table))
    asked = run(evolution, lambda genes: {"accuracy": float(sum(genes))}, generations=3)
    assert len(asked[0]) == 12
    assert all(limits.admit(table.cost(genes)) for generation in asked for genes in generation)


def test_wide_limits_leave_draws_uniform() -> None:
    table = CHAIN.table(CHAIN.shape("stand-alone", 10))
    costs = sorted(table.cost(genes).macs for genes in itertools.product(*CHAIN.choices))
    limits = Limits(max_macs=costs[31])
    draw, rng = draw_within(CHAIN, limits, table), np.random.default_rng(0)
    counts = Counter(draw(rng) for _ in range(3200))
    assert len(counts) == sum(cost <= costs[31] for cost in costs)
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_excess_is_0_exactly_within_the_limits() -> None:
    limits = Limits(max_macs=100, min_macs=50, max_params=10)
    for cost in (Cost(50, 10), Cost(100, 1), Cost(101, 1), Cost(49, 1), Cost(70, 11), Cost(200, 20)):
        assert (limits.excess(cost) == 0) == limits.admit(cost)
    assert limits.excess(Cost(200, 20)) == 2
    assert limits.excess(Cost(25, 5)) == 0.5
    assert Limits().excess(Cost(10**12, 10**12)) == 0


def test_evolution_beats_as_many_random_draws() -> None:
    evolution = search(settings=EvolutionSettings(seed=1))
    asked = run(evolution)
    assert sum(map(len, asked)) == 1000
    rng = np.random.default_rng(1)
    random = max(fours(DARTS.sample(rng))["accuracy"] for _ in range(1000))
    assert evolution.history[-1].score > random + 2


def test_mutants_differ_from_their_parents_in_both_cells() -> None:
    """And with the released code's fault in the normal one alone."""
    for cut, expected in ((None, {True}), (14, {False})):
        settings = EvolutionSettings(
            population=200, generations=2, parents=1, mutations=200, crossovers=0, mutated_genes=cut
        )
        evolution = search(settings=settings)
        run(evolution, generations=1)
        parent = evolution.ranking(1)[0].genes
        children = evolution.ask()
        assert len(children) == 200
        assert {any(child[14:] != parent[14:] for child in children)} == expected
        assert any(child[:14] != parent[:14] for child in children)


def test_children_of_two_parents_have_each_edge_from_one_of_them() -> None:
    settings = EvolutionSettings(population=30, generations=2, parents=2, mutations=0, crossovers=30)
    evolution = search(MOBILE, settings)
    run(evolution, lambda genes: {"accuracy": float(sum(genes))}, generations=1)
    first, second = (one.genes for one in evolution.ranking(2))
    children = evolution.ask()
    assert len(children) == 30
    assert all(gene in {a, b} for child in children for gene, a, b in zip(child, first, second, strict=True))


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_going_on_from_a_state_is_the_search_that_was_not_interrupted(stop) -> None:
    whole, broken = search(), search()
    expected = run(whole)
    run(broken, generations=stop)
    half = broken.ask()[:5]
    broken.tell({genes: fours(genes) for genes in half})
    state = json.loads(json.dumps(broken.state(), allow_nan=False))
    gone_on = Evolution.from_state(DARTS, SMALL, ACCURACY, everything, state)
    assert gone_on.ask() == expected[stop][5:]
    assert run(gone_on)[1:] == expected[stop + 1 :]
    assert gone_on.state() == whole.state()
    assert gone_on.history == whole.history


def test_the_order_in_which_results_come_changes_nothing() -> None:
    forwards, scattered = search(), search()
    rng = np.random.default_rng(0)
    while genes := forwards.ask():
        assert scattered.ask() == genes
        forwards.tell({one: {"accuracy": float(one[0] > 3)} for one in genes})  # many are equally good
        for at in rng.permutation(len(genes)):
            scattered.tell({genes[at]: {"accuracy": float(genes[at][0] > 3)}})
    assert scattered.state() == forwards.state()


def test_asking_twice_asks_for_the_same() -> None:
    evolution = search()
    assert evolution.ask() == evolution.ask()
    with pytest.raises(ValueError, match="was not asked for"):
        evolution.tell({DARTS.sample(np.random.default_rng(50)): {"accuracy": 1.0}})


def test_an_architecture_that_fails_is_not_asked_for_again_and_is_no_parent() -> None:
    evolution = search()
    first = evolution.ask()
    evolution.tell({genes: None if at % 2 else fours(genes) for at, genes in enumerate(first)})
    assert {one.genes for one in evolution.ranking()} == set(first[::2])
    assert not set(evolution.ask()) & set(first)
    nothing = search()
    nothing.tell(dict.fromkeys(nothing.ask()))
    assert nothing.history[0].best is None
    assert len(nothing.ask()) == 12


def test_scores_that_are_not_finite_rank_last_and_survive_json() -> None:
    loss = Combination(("loss",), (-1.0,))
    evolution = search(score=loss)
    run(evolution, lambda genes: {"loss": math.inf if genes[0] else 1.0}, generations=2)
    state = json.loads(json.dumps(evolution.state(), allow_nan=False))
    again = Evolution.from_state(DARTS, SMALL, loss, everything, state)
    assert again.ranking() == evolution.ranking()
    assert again.ranking()[-1].score == -math.inf


def test_ranks_are_among_all_that_were_scored() -> None:
    score = Combination(("angle", "flatness"), (1.0, 1.0), "rank")
    evolution = search(CHAIN, score=score)
    asked = run(evolution, lambda genes: {"angle": genes[0] + genes[1] / 10, "flatness": 10.0 ** genes[2]}, 2)
    count = sum(map(len, asked))
    best = evolution.ranking(1)[0]
    assert 2 / count <= best.score <= 2
    assert len(evolution.ranking()) == count


def test_a_small_space_is_searched_to_its_end() -> None:
    evolution = search(CHAIN, EvolutionSettings(population=50, generations=20))
    asked = run(evolution, lambda genes: {"accuracy": float(sum(genes))})
    assert sum(map(len, asked)) == 64
    assert evolution.done
    assert evolution.exhausted
    assert evolution.history[-1].best == (3, 3, 3)


def test_limits_that_no_drawn_architecture_meets_are_refused() -> None:
    with pytest.raises(UserError, match="no architecture of darts within the limits"):
        search(admits=lambda _: False).ask()


def test_a_search_cannot_be_gone_on_with_in_another_way() -> None:
    state = search().state()
    with pytest.raises(UserError, match="of the space darts, not of chain-a"):
        Evolution.from_state(CHAIN, SMALL, ACCURACY, everything, state)
    with pytest.raises(UserError, match="begun with parents 4, not 5"):
        Evolution.from_state(DARTS, EvolutionSettings(12, 5, 5, 6, 4, seed=3), ACCURACY, everything, state)
    with pytest.raises(UserError, match="begun with metrics"):
        Evolution.from_state(DARTS, SMALL, Combination(("loss",), (-1.0,)), everything, state)
    longer = EvolutionSettings(12, 9, 4, 6, 4, seed=3)
    assert Evolution.from_state(DARTS, longer, ACCURACY, everything, state).settings.generations == 9


@pytest.mark.parametrize("wrong", [{"population": 0}, {"mutations": 40}, {"probability": 0.0}, {"parents": 0}])
def test_settings_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(UserError):
        EvolutionSettings(**wrong)
