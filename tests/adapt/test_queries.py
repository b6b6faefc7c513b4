from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch.nn import functional as F

from vtk_cli.adapt.query.catalog import STRATEGIES, QuerySettings, is_blind, parse_strategy, split_count
from vtk_cli.adapt.query.clustering import clue_weights, kmeans_centres, las_scores, nearest_distinct
from vtk_cli.adapt.query.duplicates import without_near_duplicates
from vtk_cli.adapt.query.gradients import gradient_distances, sdm_scores
from vtk_cli.adapt.query.outputs import PoolOutputs
from vtk_cli.adapt.query.ranking import entropy, free_energy, highest, probability_gap
from vtk_cli.adapt.query.selecting import query_rng, select, select_mixed, select_within_quota
from vtk_cli.errors import JobError, UserError

NONE_ASKED = torch.zeros(0, 6)


def outputs(count: int = 60, classes: int = 4, seed: int = 0) -> PoolOutputs:
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    ids = tuple(f"img/{number:03d}" for number in range(count))
    return PoolOutputs(
        ids, 2 * random(count, classes), random(count, 6), random(count), random(count), random(classes, 6)
    )


def chosen(strategy: str, of: PoolOutputs, count: int = 10, **settings: object) -> tuple[str, ...]:
    return select(strategy, of, NONE_ASKED, count, query_rng(0, 1), settings=QuerySettings(**settings)).ids  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_chooses_as_many_different_images_as_asked(strategy: str) -> None:
    of = outputs()
    ids = chosen(strategy, of, 17)
    assert len(set(ids)) == 17
    assert set(ids) <= set(of.ids)
    assert len(chosen(strategy, of, 1000)) == len(of)
    assert chosen(strategy, of, 0) == ()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_of_the_pool_changes_nothing(strategy: str) -> None:
    of = outputs()
    turned = of.rows(torch.randperm(len(of), generator=torch.Generator().manual_seed(1)).tolist())
    assert chosen(strategy, turned) == chosen(strategy, of)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_images_that_are_all_alike_are_told_apart_by_their_ids(strategy: str) -> None:
    alike = PoolOutputs(
        tuple("dcbaefgh"), torch.ones(8, 3), torch.ones(8, 6), torch.ones(8), torch.ones(8), torch.ones(3, 6)
    )
    ids = chosen(strategy, alike, 3)
    assert len(set(ids)) == 3
    if strategy in {"loss", "entropy", "margin", "confidence", "energy", "sdm"}:
        assert ids == ("a", "b", "c")


def test_loss_takes_the_highest_true_losses_where_it_predicts_them() -> None:
    of = outputs()
    losses = F.cross_entropy(of.logits, torch.zeros(len(of), dtype=torch.int64), reduction="none")
    told = PoolOutputs(of.ids, of.logits, of.embeddings, losses)
    order = losses.argsort(descending=True).tolist()
    assert chosen("loss", told) == tuple(of.ids[index] for index in order[:10])
    assert chosen("loss", told, order="low") == tuple(of.ids[index] for index in order[:-11:-1])


def test_random_asks_no_model_and_repeats_with_its_seed() -> None:
    of, other = outputs(seed=0), outputs(seed=1)
    assert chosen("random", of) == chosen("random", other)
    assert chosen("random", of) != select("random", of, None, 10, query_rng(1, 1)).ids
    assert chosen("random", of) != select("random", of, None, 10, query_rng(0, 2)).ids
    assert chosen("random", of) != select("random", of, None, 10, query_rng(0, 1, draw=1)).ids
    assert is_blind({"random": 1.0})


def test_entropy_gap_and_energy_are_their_closed_forms() -> None:
    a, b = 1.3, -0.4
    logits = torch.tensor([[a, b]], dtype=torch.float64)
    p = 1 / (1 + math.exp(b - a))
    assert float(entropy(logits)) == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p), rel=1e-12)
    assert float(probability_gap(logits)) == pytest.approx(2 * p - 1, rel=1e-12)
    assert float(free_energy(logits)) == pytest.approx(-math.log(math.exp(a) + math.exp(b)), rel=1e-12)
    assert float(entropy(torch.zeros(1, 8))) == pytest.approx(math.log(8), rel=1e-6)


def test_uncertainty_strategies_take_the_most_uncertain() -> None:
    of = outputs()
    p = of.probabilities
    best = p.topk(2, dim=1).values
    ids = np.array(of.ids)
    assert chosen("margin", of) == tuple(ids[(best[:, 0] - best[:, 1]).argsort()[:10]])
    assert chosen("confidence", of) == tuple(ids[best[:, 0].argsort()[:10]])
    assert chosen("entropy", of) == tuple(ids[(-(p * p.log()).sum(1)).argsort(descending=True)[:10]])


def test_energy_looks_at_the_half_with_the_highest_free_energy() -> None:
    of = outputs()
    energies = free_energy(of.logits)
    half = set(np.array(of.ids)[energies.argsort(descending=True)[:30]])
    gaps = of.logits.topk(2, dim=1).values
    order = (gaps[:, 0] - gaps[:, 1]).argsort().tolist()
    assert chosen("energy", of) == tuple([of.ids[index] for index in order if of.ids[index] in half][:10])


def test_coreset_is_the_farthest_first_by_brute_force() -> None:
    of = outputs(20)
    labelled = torch.randn(3, 6, generator=torch.Generator().manual_seed(5))
    known, ids = list(labelled.double()), []
    for _ in range(8):
        distance = [min(float((one - each).norm()) for each in known) for one in of.embeddings.double()]
        index = max(range(20), key=lambda at: distance[at])
        known.append(of.embeddings[index].double())
        ids.append(of.ids[index])
    assert select("coreset", of, labelled, 8, query_rng(0, 1)).ids == tuple(ids)


def test_distances_of_gradients_are_those_of_the_outer_products() -> None:
    draw = torch.Generator().manual_seed(0)
    errors, embeddings = (torch.randn(7, width, dtype=torch.float64, generator=draw) for width in (4, 5))
    outer = torch.einsum("nc,nd->ncd", errors, embeddings).flatten(1)
    for index in range(7):
        expected = (outer - outer[index]).square().sum(1)
        torch.testing.assert_close(gradient_distances(errors, embeddings, index), expected)


def test_badge_never_takes_a_copy_of_what_it_has() -> None:
    of = outputs(12)
    doubled = PoolOutputs(
        (*of.ids, *(f"{name}-copy" for name in of.ids)), of.logits.repeat(2, 1), of.embeddings.repeat(2, 1)
    )
    for round_number in range(20):
        ids = select("badge", doubled, None, 12, query_rng(0, round_number)).ids
        assert {name.removesuffix("-copy") for name in ids} == set(of.ids)


def test_sdm_in_closed_form_is_what_autograd_finds() -> None:
    draw = torch.Generator().manual_seed(0)
    W, bias, z = (torch.randn(*shape, dtype=torch.float64, generator=draw) for shape in ((4, 6), (4,), (9, 6)))
    expected = []
    for one in z:
        leaf = one.clone().requires_grad_()
        logits = W @ leaf + bias
        p = logits.softmax(0)
        best = p.topk(2)
        (of_margin,) = torch.autograd.grad(best.values[0] - best.values[1], leaf, retain_graph=True)
        pull = torch.zeros(6, dtype=torch.float64)
        for share, label in zip(best.values, best.indices, strict=True):
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, label), leaf, retain_graph=True)
            pull = pull - share.detach() * gradient
        gap = (best.values[0] - best.values[1]).detach()
        expected.append(gap - 0.5 * F.cosine_similarity(of_margin, pull, dim=0))
    of = PoolOutputs(tuple(map(str, range(9))), z @ W.T + bias, z, classifier=W)
    torch.testing.assert_close(sdm_scores(of, 0.5), torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_clue_weights_are_the_entropy_at_a_temperature() -> None:
    logits = torch.randn(5, 4)
    torch.testing.assert_close(clue_weights(logits, 1.0), entropy(logits), rtol=0, atol=1e-6)
    torch.testing.assert_close(clue_weights(logits, 0.1), entropy(logits.double() * 10), rtol=0, atol=1e-6)


def test_clue_of_equal_weights_picks_as_plain_k_means() -> None:
    of = outputs()
    flat = PoolOutputs(of.ids, torch.zeros(len(of), 4), of.embeddings)
    points = of.embeddings.double().numpy()
    state = int(query_rng(0, 1).integers(2**31))
    centres = KMeans(5, n_init=4, random_state=state).fit(points).cluster_centers_
    expected = {of.ids[index] for index in nearest_distinct(centres, points)}
    assert set(chosen("clue", flat, 5)) == expected


def test_clue_turns_to_where_the_model_is_unsure() -> None:
    places = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]).repeat_interleave(20, 0)
    spread = places + 0.3 * torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    logits = torch.cat([torch.tensor([[9.0, 0.0]]).repeat(40, 1), torch.zeros(20, 2)])
    of = PoolOutputs(tuple(f"{number:02d}" for number in range(60)), logits, spread)
    assert sum(int(name) >= 40 for name in chosen("clue", of, 6)) >= 4


def test_centres_get_different_points_the_closest_pair_first() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        centres, points = draw.normal(size=(4, 2)), draw.normal(size=(7, 2))
        distance = ((centres[:, None] - points[None]) ** 2).sum(2)
        pairs = sorted(np.ndindex(4, 7), key=lambda pair: distance[pair])
        expected: dict[int, int] = {}
        for centre, point in pairs:
            if centre not in expected and point not in expected.values():
                expected[centre] = point
        assert nearest_distinct(centres, points) == [expected[centre] for centre in range(4)]


def test_k_means_takes_weights_as_copies() -> None:
    points = np.random.default_rng(0).normal(size=(12, 2)) + np.repeat([[0, 0], [20, 0], [0, 20]], 4, 0)
    weights = np.arange(1.0, 13.0)
    weighed = kmeans_centres(points, 3, np.random.default_rng(1), weights)
    copied = kmeans_centres(np.repeat(points, weights.astype(int), 0), 3, np.random.default_rng(1))
    np.testing.assert_allclose(sorted(weighed.tolist()), sorted(copied.tolist()), rtol=1e-9)


def test_las_scores_are_those_of_a_slow_loop() -> None:
    of = outputs(15)
    unit, p = F.normalize(of.embeddings.double(), dim=1), of.probabilities.double()
    near, weights = {}, {}
    for i in range(15):
        near[i] = sorted((j for j in range(15) if j != i), key=lambda j: -float(unit[i] @ unit[j]))[:4]
        similar = [max(float(unit[i] @ unit[j]), 0.0) + 1e-8 for j in near[i]]
        weights[i] = [one / sum(similar) for one in similar]
    own = [-sum(w * float(p[i] @ p[j]) for w, j in zip(weights[i], near[i], strict=True)) for i in range(15)]
    expected = [own[i] + sum(w * own[j] for w, j in zip(weights[i], near[i], strict=True)) for i in range(15)]
    np.testing.assert_allclose(las_scores(of, 4).numpy(), expected, rtol=1e-6)


def test_las_and_loss_diverse_choose_among_the_highest_scores() -> None:
    of = outputs()
    top = set(np.array(of.ids)[las_scores(of, 10).argsort(descending=True)[:6]])
    assert set(chosen("las", of, 2, las_candidates=2)) <= top
    assert of.predicted_losses is not None
    lossy = set(np.array(of.ids)[of.predicted_losses.argsort(descending=True)[:12]])
    assert set(chosen("loss-diverse", of, 2)) <= lossy


def test_aada_draws_from_the_top_of_odds_times_entropy() -> None:
    of = outputs(400)
    assert of.domain_logits is not None
    scores = of.domain_logits.sigmoid() / (1 - of.domain_logits.sigmoid()) * entropy(of.logits)
    top = set(np.array(of.ids)[scores.argsort(descending=True)[:8]])
    drawn = {select("aada", of, None, 2, query_rng(0, number)).ids for number in range(20)}
    assert all(set(ids) <= top for ids in drawn)
    assert len(drawn) > 5


@pytest.mark.parametrize(
    ("strategy", "lacks"),
    [("loss", "loss predictor"), ("loss-diverse", "loss predictor"), ("aada", "discriminator")],
)
def test_a_model_that_lacks_what_is_asked_says_so(strategy: str, lacks: str) -> None:
    of = outputs()
    bare = PoolOutputs(of.ids, of.logits, of.embeddings)
    with pytest.raises(UserError, match=lacks):
        chosen(strategy, bare)


def test_shares_are_split_by_the_largest_remainder() -> None:
    assert split_count(5, {"loss": 0.5, "random": 0.5}) == {"loss": 3, "random": 2}
    assert split_count(10, {"loss": 0.3, "random": 0.7}) == {"loss": 3, "random": 7}
    for shares in permutations([0.2, 0.3, 0.5]):
        for count in range(30):
            assert sum(split_count(count, dict(zip("abc", shares, strict=True))).values()) == count


def test_a_mixed_query_chooses_nothing_twice() -> None:
    of = outputs()
    mixed = select_mixed({"loss": 0.5, "random": 0.5}, of, None, 40, query_rng(0, 1))
    assert len(set(mixed.ids)) == 40
    assert mixed.ids[:20] == chosen("loss", of, 20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("entropie", "did you mean entropy"),
        ("loss,random", "has no share"),
        ("loss:0.5,random:0.4", "0.9 together"),
        ("loss:0.5,loss:0.5", "named twice"),
        ("loss:x,random:0.5", "is no share"),
        ("aada", "--recipe tl-ada"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_strategy(text, recipe="sequential")


def test_strategies_are_read_with_their_shares() -> None:
    assert parse_strategy("loss") == {"loss": 1.0}
    assert parse_strategy("loss:0.25, random:0.75") == {"loss": 0.25, "random": 0.75}
    assert parse_strategy("aada", recipe="tl-ada") == {"aada": 1.0}


def test_near_duplicates_are_asked_about_once() -> None:
    of = outputs(10)
    ids = (*of.ids, *(f"{name}-again" for name in of.ids))
    scaled = PoolOutputs(ids, of.logits.repeat(2, 1), torch.cat([of.embeddings, 3 * of.embeddings]))
    assert without_near_duplicates(scaled, None, 0.999).ids == of.ids
    assert without_near_duplicates(of, of.embeddings[:4], 0.999).ids == of.ids[4:]
    with pytest.raises(UserError, match="--dedup"):
        without_near_duplicates(of, None, 1.5)


def test_near_duplicates_are_those_of_a_slow_loop_also_over_blocks() -> None:
    of = outputs(600)
    unit, kept = F.normalize(of.embeddings.double(), dim=1), []
    for index in range(600):
        if all(float(unit[index] @ unit[other]) < 0.7 for other in kept):
            kept.append(index)
    assert 20 < len(kept) < 500
    assert without_near_duplicates(of, None, 0.7).ids == tuple(of.ids[index] for index in kept)


def test_a_model_that_has_diverged_is_not_asked() -> None:
    of = outputs()
    with pytest.raises(JobError, match="diverged"):
        chosen("entropy", PoolOutputs(of.ids, of.logits * torch.nan, of.embeddings))


def test_no_class_takes_more_than_its_quota() -> None:
    of = outputs()
    class_of = dict(zip(of.ids, of.logits.argmax(1).tolist(), strict=True))
    for strategy in ("loss", "clue", "random"):
        picks = select_within_quota({strategy: 1.0}, of, None, 12, query_rng(0, 1), most=3)
        assert sorted(Counter(class_of[name] for name in picks.ids).values()) == [3, 3, 3, 3]
        assert len(set(picks.ids)) == 12
    free = select_within_quota({"loss": 1.0}, of, None, 12, query_rng(0, 1), most=60)
    assert free.ids == chosen("loss", of, 12)


def test_a_quota_of_the_highest_losses_is_the_highest_of_each_class() -> None:
    of = outputs()
    assert of.predicted_losses is not None
    order = of.predicted_losses.argsort(descending=True).tolist()
    expected: dict[int, list[str]] = {}
    for index in order:
        expected.setdefault(int(of.logits[index].argmax()), []).append(of.ids[index])
    picks = select_within_quota({"loss": 1.0}, of, None, 8, query_rng(0, 1), most=2)
    assert set(picks.ids) == {name for names in expected.values() for name in names[:2]}


def test_a_quota_grows_where_the_classes_have_no_more_images() -> None:
    of = outputs(10)
    one_class = PoolOutputs(of.ids, torch.tensor([[1.0, 0.0]]).repeat(10, 1), of.embeddings, of.predicted_losses)
    assert select_within_quota({"loss": 1.0}, one_class, None, 7, query_rng(0, 1), most=2).ids == chosen(
        "loss", one_class, 7
    )
    with pytest.raises(UserError, match="--class-quota"):
        select_within_quota({"loss": 1.0}, of, None, 7, query_rng(0, 1), most=0)


def test_of_equal_scores_the_first_id_wins_whatever_the_order() -> None:
    unordered = PoolOutputs(("b", "c", "a"), torch.zeros(3, 2), torch.zeros(3, 2))
    assert highest(unordered, torch.tensor([1.0, 2.0, 1.0]), 2).ids == ("c", "a")
