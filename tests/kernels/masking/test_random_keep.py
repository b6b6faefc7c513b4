"""Which tokens are kept: the definition, by Philox in Python's integers; uniformity, independence, no hidden state."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from vtk_kernels import philox4x32, random_keep

WORDS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1]))
quick = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def philox_in_python_integers(counter, key):
    """The first word of Philox4x32-10, with unbounded integers."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        high0, low0 = divmod(c[0] * 0xD2511F53, 2**32)
        high1, low1 = divmod(c[2] * 0xCD9E8D57, 2**32)
        c = [high1 ^ c[1] ^ k0, low1, high0 ^ c[3] ^ k1, low0]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c[0]


def kept_by_definition(batch, tokens, keep, seed, step):
    key = (seed % 2**32, seed >> 32)
    now = (step % 2**32, step >> 32)
    order = [
        sorted(range(tokens), key=lambda i, b=b: (philox_in_python_integers((i, b, *now), key), i))
        for b in range(batch)
    ]
    return [sorted(tokens_of[:keep]) for tokens_of in order]


def test_the_integers_of_this_file_give_the_known_answers_of_random123():
    assert philox_in_python_integers((0, 0, 0, 0), (0, 0)) == 0x6627E8D5
    assert philox_in_python_integers((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2) == 0x408F276D


@quick
@given(data=st.data(), batch=st.integers(0, 3), tokens=st.integers(1, 70), seed=WORDS, step=WORDS)
def test_the_kept_tokens_are_those_with_the_smallest_keys(backend, data, batch, tokens, seed, step):
    keep = data.draw(st.integers(1, tokens))
    ours = random_keep(batch, tokens, keep, seed=seed, step=step)
    assert ours.dtype == torch.int64
    assert ours.shape == (batch, keep)
    assert ours.tolist() == kept_by_definition(batch, tokens, keep, seed, step)


@pytest.mark.parametrize("tokens", [1024, 5000])
def test_long_sequences_follow_the_definition_too(backend, tokens):
    assert random_keep(1, tokens, 77, seed=3, step=9).tolist() == kept_by_definition(1, tokens, 77, 3, 9)


def test_of_two_equal_keys_the_first_token_is_kept(backend):
    counter = torch.zeros(4096, 4, dtype=torch.int64)
    counter[:, 0] = torch.arange(4096)
    key = philox4x32(counter, (24, 0))[:, 0]
    assert key[2683] == key[3281]  # the only pair under this seed
    rank = int((key <= key[2683]).sum()) - 1
    kept = set(random_keep(1, 4096, rank, seed=24)[0].tolist())
    assert 2683 in kept
    assert 3281 not in kept
    assert {2683, 3281} <= set(random_keep(1, 4096, rank + 1, seed=24)[0].tolist())


def test_every_subset_is_equally_likely():
    """Hence every token, and every pair of tokens, too. All backends draw the same, so one is asked."""
    batch, tokens, keep = 40000, 6, 3
    kept = random_keep(batch, tokens, keep, seed=1)
    counts = dict.fromkeys(itertools.combinations(range(tokens), keep), 0)
    for subset in map(tuple, kept.tolist()):
        counts[subset] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize(("tokens", "keep"), [(196, 49), (50, 49), (64, 1)])
def test_tokens_and_pairs_are_included_uniformly(tokens, keep):
    batch = 20000
    inside = np.zeros((batch, tokens))
    np.put_along_axis(inside, random_keep(batch, tokens, keep, seed=7).numpy(), 1.0, axis=1)
    p = keep / tokens
    # K of N without replacement: the sum of the squared deviations is (N - 1) / N of the binomial one.
    spread = ((inside.sum(axis=0) - batch * p) ** 2).sum() / (batch * p * (1 - p)) * (tokens - 1) / tokens
    assert 1e-3 < stats.chi2(tokens - 1).sf(spread) < 1 - 1e-3
    if keep > 1:
        pairs = (inside.T @ inside)[np.triu_indices(tokens, 1)]
        q = p * (keep - 1) / (tokens - 1)
        deviation = (pairs - batch * q) / (batch * q * (1 - q)) ** 0.5
        assert np.abs(deviation).max() < 5.5
        assert abs(deviation.std() - 1) < 0.2


def test_samples_and_steps_are_independent():
    """Two independent subsets share K**2 / N tokens on average (hypergeometric)."""
    batch, tokens, keep = 1000, 100, 40
    one, other = (random_keep(batch, tokens, keep, seed=3, step=step) for step in (0, 1))
    inside = torch.zeros(batch, tokens).scatter(1, one, 1.0)
    for second in (torch.zeros(batch, tokens).scatter(1, other, 1.0), inside.roll(1, 0)):
        shared = (inside * second).sum(dim=1)
        law = stats.hypergeom(tokens, keep, keep)
        assert abs(float(shared.mean()) - law.mean()) < 4 * law.std() / batch**0.5
        assert abs(float(shared.std()) / law.std() - 1) < 0.1


def test_keeping_all_is_the_identity(backend):
    assert torch.equal(random_keep(3, 17, 17, seed=5), torch.arange(17).expand(3, 17))


def test_a_sample_does_not_depend_on_the_batch_and_fewer_are_a_subset_of_more(backend):
    many = random_keep(8, 33, 20, seed=5, step=2)
    assert torch.equal(random_keep(3, 33, 20, seed=5, step=2), many[:3])
    few = random_keep(8, 33, 7, seed=5, step=2)
    assert all(set(a) <= set(b) for a, b in zip(few.tolist(), many.tolist(), strict=True))


def test_every_word_of_seed_and_step_changes_the_subset(backend):
    base = random_keep(4, 64, 32, seed=1, step=1)
    assert torch.equal(base, random_keep(4, 64, 32, seed=1, step=1))
    for seed, step in [(2, 1), (1 + 2**32, 1), (1, 2), (1, 1 + 2**32)]:
        assert not torch.equal(base, random_keep(4, 64, 32, seed=seed, step=step))


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("batch", {"batch": -1}),
        ("tokens", {"tokens": 0}),
        ("keep", {"keep": 0}),
        ("keep", {"keep": 11}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": 2**64}),
        ("step", {"step": -1}),
        ("step", {"step": 2**64}),
    ],
)
def test_a_number_out_of_range_is_named(argument, change):
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        random_keep(**{"batch": 2, "tokens": 10, "keep": 5, "seed": 0, "step": 0, **change})
