"""keep_tokens against gather, add and cat; its gradients; its place in torch."""

import itertools
import multiprocessing
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from vtk_kernels import keep_tokens, random_keep
from vtk_kernels.masking import library

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def unfused(x, keep, pos=None, prefix=None):
    index = keep[:, :, None].expand(-1, -1, x.shape[2])
    rows = x.gather(1, index)
    if pos is not None:
        rows = rows + pos.reshape(1, *pos.shape[-2:]).expand(len(x), -1, -1).gather(1, index)
    if prefix is not None:
        rows = torch.cat((prefix.expand(len(x), *prefix.shape[-2:]), rows), dim=1)
    return rows


def case(batch, tokens, keep, channels, before=0, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, tokens, channels, generator=generator).to(dtype)
    pos = torch.randn(tokens, channels, generator=generator).to(dtype)
    prefix = torch.randn(before, channels, generator=generator).to(dtype)
    return x, random_keep(batch, tokens, keep, seed=seed), pos, prefix


@quick
@given(
    data=st.data(),
    batch=st.integers(0, 3),
    tokens=st.integers(1, 20),
    channels=st.integers(1, 40),
    before=st.integers(0, 3),
    dtype=st.sampled_from(FLOATS),
    has_pos=st.booleans(),
    prefix_rank=st.sampled_from([None, 2, 3]),
    pos_rank=st.sampled_from([2, 3]),
)
def test_it_equals_gather_add_cat_bit_for_bit(
    backend, agree, data, batch, tokens, channels, before, dtype, has_pos, prefix_rank, pos_rank
):
    x, keep, pos, prefix = case(batch, tokens, data.draw(st.integers(1, tokens)), channels, before, dtype)
    keep = keep[:, torch.randperm(keep.shape[1])]  # any order
    pos = (pos[None] if pos_rank == 3 else pos) if has_pos else None
    prefix = {None: None, 2: prefix, 3: prefix.expand(batch, -1, -1).clone()}[prefix_rank]
    agree(keep_tokens(x, keep, pos, prefix), unfused(x, keep, pos, prefix))


@pytest.mark.parametrize(("dtype", "pos_dtype"), list(itertools.product(FLOATS, FLOATS)))
def test_types_are_promoted_as_torch_does_and_the_sum_is_rounded_once(backend, agree, dtype, pos_dtype):
    x, keep, pos, _ = case(2, 9, 4, 5, dtype=dtype)
    pos = pos.to(pos_dtype)
    agree(keep_tokens(x, keep, pos), unfused(x, keep, pos))


def test_a_type_wider_than_the_rows_widens_them_before_the_sum(backend):
    x, keep, pos, prefix = case(2, 9, 4, 5, before=1, dtype=torch.bfloat16)
    prefix = prefix.float()
    assert torch.equal(keep_tokens(x, keep, pos, prefix), unfused(x.float(), keep, pos.float(), prefix))


@pytest.mark.parametrize("channels", [1, 7, 64, 130, 768, 1500])
def test_rows_of_any_width(backend, agree, channels):
    x, keep, pos, prefix = case(2, 11, 6, channels, before=2)
    agree(keep_tokens(x, keep, pos, prefix), unfused(x, keep, pos, prefix))


def test_tensors_that_are_not_contiguous(backend, agree):
    x, keep, pos, prefix = case(4, 10, 4, 6, before=2)
    x, keep, pos, prefix = (each.mT.contiguous().mT for each in (x, keep, pos, prefix))
    assert not any(each.is_contiguous() for each in (x, keep, pos, prefix))
    agree(keep_tokens(x, keep, pos, prefix), unfused(x, keep, pos, prefix))
    agree(keep_tokens(x[::2], keep[::2], pos, prefix), unfused(x[::2], keep[::2], pos, prefix))


def test_nothing_kept_leaves_the_prefix(backend):
    x, keep, pos, prefix = case(3, 5, 1, 4, before=2)
    kept = keep_tokens(x, keep[:, :0], pos, prefix)
    assert torch.equal(kept, prefix.expand(3, -1, -1))


def test_all_kept_is_the_input(backend):
    x, keep, _, _ = case(3, 5, 5, 4)
    assert torch.equal(keep_tokens(x, keep), x)


def test_nan_and_infinity_pass_and_stay_in_their_row(backend):
    x, keep, pos, _ = case(1, 6, 3, 4)
    x[0, keep[0, 1], 2] = float("nan")
    pos[keep[0, 2], 0] = float("inf")
    kept = keep_tokens(x, keep, pos)
    assert kept.isnan().nonzero().tolist() == [[0, 1, 2]]
    assert kept.isinf().nonzero().tolist() == [[0, 2, 0]]


@pytest.mark.parametrize("prefix_rank", [2, 3])
def test_first_and_second_derivatives(backend, prefix_rank):
    x, keep, pos, prefix = case(3, 6, 4, 3, before=2, dtype=torch.float64)
    prefix = prefix if prefix_rank == 2 else prefix.expand(3, -1, -1).clone()
    inputs = [each.requires_grad_() for each in (x, pos, prefix)]
    function = lambda x, pos, prefix: keep_tokens(x, keep, pos, prefix)  # noqa: E731 - gradcheck takes a function
    assert torch.autograd.gradcheck(function, inputs, fast_mode=backend == "triton")
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=backend == "triton")


@pytest.mark.parametrize("needed", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)])
def test_only_the_gradients_asked_for_are_made(backend, needed):
    x, keep, pos, prefix = case(2, 6, 4, 3, before=1)
    inputs = [each.requires_grad_(bool(need)) for each, need in zip((x, pos, prefix), needed, strict=True)]
    keep_tokens(x, keep, pos, prefix).square().sum().backward()
    assert [each.grad is not None for each in inputs] == [bool(need) for need in needed]


def test_the_gradient_is_scattered_to_x_summed_to_pos_and_zero_elsewhere(backend):
    x, keep, pos, prefix = case(5, 8, 3, 4, before=2)
    for each in (x, pos, prefix):
        each.requires_grad_()
    grad = torch.randn(5, 5, 4)
    keep_tokens(x, keep, pos, prefix).backward(grad)
    scattered = torch.zeros(5, 8, 4).scatter(1, keep[:, :, None].expand(-1, -1, 4), grad[:, 2:])
    assert torch.equal(x.grad, scattered)
    torch.testing.assert_close(pos.grad, scattered.sum(dim=0))
    torch.testing.assert_close(prefix.grad, grad[:, :2].sum(dim=0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gradients_are_summed_in_float32(backend, dtype):
    """512 terms of size 1 and one of 2**-9 more: a half-precision sum would stop at 256 (bfloat16) or lose the bit."""
    grad = torch.ones(512, 1, 3, dtype=dtype)
    keep = torch.zeros(512, 1, dtype=torch.int64)
    sums = library.keep_tokens_backward(grad, keep, 1, dtype, need_x=False, need_pos=True)[1]
    assert sums.dtype == torch.float32
    assert sums.tolist() == [[512.0] * 3]


def test_results_are_the_same_bits_for_any_number_of_threads(backend):
    if backend == "triton":
        pytest.skip("the interpreter has one thread")
    x, keep, pos, _ = case(24, 100, 50, 512)  # large enough that threads are used
    grad, found, before = torch.randn(24, 50, 512), [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            grads = library.keep_tokens_backward(grad, keep, 100, torch.float32, need_x=True, need_pos=True)
            drawn = random_keep(600, 196, 98, seed=1)
            found.append((keep_tokens(x, keep, pos), drawn, *grads))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_autocast_leaves_the_types_to_promotion(backend):
    x, keep, pos, prefix = case(2, 6, 4, 3, before=1)
    linear = torch.nn.Linear(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = linear(x)
        assert tokens.dtype == torch.bfloat16
        kept = keep_tokens(tokens, keep, pos, prefix)
    assert kept.dtype == torch.float32
    assert torch.equal(kept, unfused(tokens, keep, pos, prefix))
    kept.sum().backward()
    assert linear.weight.grad is not None


def test_it_is_an_operator_of_torch(backend):
    x, keep, pos, prefix = case(2, 6, 4, 3, before=2)
    for each in (x, pos, prefix):
        each.requires_grad_()
    torch.library.opcheck(library.random_keep, (2, 6, 4, 1, 2, torch.device("cpu")))
    for arguments in [(x, keep, pos, prefix[None]), (x, keep, None, None)]:
        torch.library.opcheck(library.keep_tokens, arguments)
    grad = torch.randn(2, 6, 3, requires_grad=True)
    torch.library.opcheck(library.keep_tokens_backward, (grad, keep, 6, torch.float32, True, True))


def test_it_compiles_as_one_graph_and_a_new_step_compiles_nothing(backend):
    x, _, pos, prefix = case(2, 6, 4, 3, before=1)
    compiled = []

    def count(graph, inputs):
        compiled.append(graph)
        return graph.forward

    def masked(x, pos, prefix, step):
        return keep_tokens(x, random_keep(2, 6, 4, seed=1, step=step), pos, prefix).square().sum()

    fast = torch.compile(masked, fullgraph=True, backend=count, dynamic=None)
    for step in range(5):
        assert torch.equal(fast(x, pos, prefix, step), masked(x, pos, prefix, step))
    assert len(compiled) <= 3  # 0 and 1 are special to torch, then one for all


def test_its_gradient_compiles_as_one_graph(backend):
    x, keep, pos, prefix = case(2, 6, 4, 3, before=1)
    grads = []
    for run in (keep_tokens, torch.compile(keep_tokens, fullgraph=True, backend="aot_eager")):
        inputs = [each.clone().requires_grad_() for each in (x, pos, prefix)]
        run(inputs[0], keep, *inputs[1:]).square().sum().backward()
        grads.append([each.grad for each in inputs])
    assert all(torch.equal(one, two) for one, two in zip(*grads, strict=True))


WRONG = [
    ("x", {"x": torch.zeros(2, 6)}),
    ("x", {"x": torch.zeros(2, 6, 3, dtype=torch.int64)}),
    ("keep", {"keep": torch.zeros(2, 7, dtype=torch.int64)}),
    ("keep", {"keep": torch.zeros(3, 1, dtype=torch.int64)}),
    ("keep", {"keep": torch.zeros(2, 1, dtype=torch.int32)}),
    ("keep", {"keep": torch.zeros(2, dtype=torch.int64)}),
    ("keep", {"keep": torch.zeros(2, 1, dtype=torch.int64, device="meta")}),
    ("pos", {"pos": torch.zeros(5, 3)}),
    ("pos", {"pos": torch.zeros(2, 6, 3)}),
    ("pos", {"pos": torch.zeros(6, 3, dtype=torch.int64)}),
    ("pos", {"pos": torch.zeros(6, 3, device="meta")}),
    ("prefix", {"prefix": torch.zeros(3)}),
    ("prefix", {"prefix": torch.zeros(1, 4)}),
    ("prefix", {"prefix": torch.zeros(3, 1, 3)}),
    ("prefix", {"prefix": torch.zeros(1, 3, device="meta")}),
]


@pytest.mark.parametrize(("argument", "change"), WRONG)
def test_a_wrong_argument_is_named(backend, argument, change):
    right = {"x": torch.zeros(2, 6, 3), "keep": torch.zeros(2, 1, dtype=torch.int64)}
    with pytest.raises(ValueError, match=f"^{argument}: expected .*, got"):
        keep_tokens(**{**right, **change})


@pytest.mark.parametrize("keep", [[[0, 6]], [[-1, 0]], [[2**40, 0]], [[-(2**63), 3]], [[3, 3]]])
def test_tokens_out_of_range_or_named_twice_are_refused_on_the_cpu(backend, keep):
    x, keep = torch.ones(1, 6, 3), torch.tensor(keep)
    if backend == "triton":
        wrong = (keep < 0) | (keep > 5)
        assert torch.equal(keep_tokens(x, keep).isnan().all(dim=2), wrong)
        library.keep_tokens_backward(torch.ones(1, 2, 3), keep, 6, torch.float32, need_x=True, need_pos=True)
        return
    with pytest.raises(ValueError, match=r"^keep: "):
        keep_tokens(x, keep)
    with pytest.raises(ValueError, match=r"^keep: "):
        library.keep_tokens_backward(torch.ones(1, 2, 3), keep, 6, torch.float32, need_x=True, need_pos=True)


class Masked(Dataset):
    """Masks a large sample in a worker."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        keep = random_keep(8, 196, 98, seed=index)
        return keep_tokens(torch.full((8, 196, 768), float(index)), keep)


def test_it_runs_in_forked_workers_after_threads_ran_in_their_parent(backend):
    if backend == "triton":
        pytest.skip("the workers would interpret")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Masked()[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # "fork in a process with threads", which is the point
            loader = DataLoader(Masked(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60)
            assert [float(each.mean()) for each in loader] == list(range(6))
    finally:
        torch.set_num_threads(before)


def _draw(seed):
    keep = random_keep(32, 196, 98, seed=seed)
    return float(keep_tokens(torch.ones(32, 196, 64), keep).sum()), keep.sum().item()


@pytest.mark.slow
def test_two_processes_at_once_find_what_one_finds():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_draw, range(8)) == [_draw(seed) for seed in range(8)]
