"""The frequency filter's place in torch: gradients, compiling, autocast, threads, processes; what it refuses."""

import multiprocessing
import os
import warnings
import zlib

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from vtk_kernels.frequency import band, frequency_filter, frequency_filter_frames, high, low

WAYS = [
    {"time": high(0.2)},
    {"space": high(0.2)},
    {"time": low(0.4), "space": band(0.1, 0.5), "shape": "radial"},
    {"time": high(0.2), "space": high(0.2), "joint": True},
]


def noise(*size, dtype=torch.float32, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("wanted", WAYS)
def test_first_and_second_derivatives(backend, wanted):
    clip = noise(2, 1, 5, 4, 3, dtype=torch.float64).requires_grad_()
    apply = torch.tensor([True, False])
    fast = backend == "triton"
    for chosen in (apply,) if fast else (None, apply):
        arguments = {**wanted, "apply": chosen}
        filtered = lambda clip, arguments=arguments: frequency_filter(clip, **arguments)  # noqa: E731
        assert torch.autograd.gradcheck(filtered, clip, fast_mode=fast)
        assert torch.autograd.gradgradcheck(filtered, clip, fast_mode=fast)


@pytest.mark.parametrize("wanted", WAYS)
def test_the_gradient_is_the_filter_of_the_gradient_and_of_its_type(backend, wanted):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        clip, grad = (noise(2, 1, 6, 4, 5, dtype=dtype, seed=seed) for seed in (0, 1))
        clip.requires_grad_()
        apply = torch.tensor([False, True])
        frequency_filter(clip, apply=apply, **wanted).backward(grad)
        assert clip.grad.dtype == dtype
        assert torch.equal(clip.grad, frequency_filter(grad, apply=apply, **wanted))


def test_a_gradient_that_is_not_contiguous_is_filtered_all_the_same(backend):
    clip = noise(1, 2, 6, 5, 7).requires_grad_()
    frequency_filter(clip, high(0.2)).sum().backward()  # expanded from one number
    assert clip.grad.abs().max() < 1e-6
    weight = noise(1, 2, 6, 7, 5, seed=1)
    (grad,) = torch.autograd.grad((frequency_filter(clip, high(0.2)).mT * weight).sum(), clip)
    torch.testing.assert_close(grad, frequency_filter(weight.mT, high(0.2)))


def test_it_is_an_operator_of_torch(backend):
    operator = torch.ops.vtk_kernels.frequency_filter.default
    clip, apply = noise(2, 1, 5, 4, 3).requires_grad_(), torch.tensor([True, False])
    for arguments in [
        (clip, [0.2, 1.0], [], "box", False, apply),
        (clip, [], [0.0, 0.3], "radial", False, None),
        (clip, [0.2, 1.0], [0.2, 1.0], "box", True, None),
        (clip.detach().to(torch.bfloat16), [0.2, 1.0], [0.2, 1.0], "box", False, apply),
    ]:
        torch.library.opcheck(operator, arguments)


@pytest.mark.parametrize("wanted", WAYS)
def test_it_compiles_as_one_graph_with_its_gradient(backend, wanted):
    apply, grads = torch.tensor([True, False]), []

    def loss(clip, apply):
        return frequency_filter(clip * 2, apply=apply, **wanted).square().sum()

    for run in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        clip = noise(2, 1, 6, 4, 5).requires_grad_()
        run(clip, apply).backward()
        grads.append(clip.grad)
    assert torch.equal(*grads)


def test_a_new_batch_size_compiles_nothing_new_and_pass_bands_may_be_made_inside(backend):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def run(clip):
        return frequency_filter(clip, high(0.2), low(0.3))

    compiled = torch.compile(run, fullgraph=True, backend=count, dynamic=None)
    for batch in (2, 3, 4, 5):
        clip = noise(batch, 1, 6, 3, 4)
        assert torch.equal(compiled(clip), run(clip))
    assert len(graphs) <= 2


def test_under_autocast_it_keeps_the_type_of_the_clip(backend):
    clip, linear = noise(2, 3, 4, 5, 6), torch.nn.Linear(6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        half = linear(clip)
        assert frequency_filter(half, high(0.3)).dtype == torch.bfloat16
        assert frequency_filter(clip, high(0.3)).dtype == torch.float32
        frequency_filter(half, high(0.3)).square().sum().backward()
    assert linear.weight.grad.dtype == torch.float32


def test_the_input_is_not_changed_and_inference_mode_works(backend):
    clip = noise(1, 2, 6, 5, 7)
    before = clip.clone()
    with torch.inference_mode():
        filtered = frequency_filter(clip, high(0.2), high(0.2))
    assert torch.equal(clip, before)
    assert torch.equal(filtered, frequency_filter(clip, high(0.2), high(0.2)))


@pytest.mark.parametrize("sizes", [(0, 3, 4, 5, 6), (2, 0, 4, 5, 6)])
@pytest.mark.parametrize("wanted", WAYS)
def test_no_clips_and_no_channels(backend, sizes, wanted):
    clip = torch.zeros(sizes, requires_grad=True)
    filtered = frequency_filter(clip, apply=torch.ones(sizes[0], dtype=torch.bool), **wanted)
    assert filtered.shape == sizes
    filtered.sum().backward()
    assert clip.grad.shape == sizes


RIGHT = {"clip": torch.zeros(2, 3, 4, 5, 6), "time": high(0.1)}
WRONG = [
    ("clip: expected", {"clip": torch.zeros(2, 3, 4, 5)}),
    ("clip: expected", {"clip": torch.zeros(2, 3, 0, 5, 6)}),
    ("clip: expected", {"clip": torch.zeros(2, 3, 4, 5, 0)}),
    ("clip: expected", {"clip": torch.zeros(2, 3, 4, 5, 6, dtype=torch.int64)}),
    ("clip: expected .*frequency_filter_frames", {"clip": torch.zeros(2, 3, 4, 5, 6, dtype=torch.uint8)}),
    ("clip: expected", {"clip": torch.zeros(2, 3, 4, 5, 6, dtype=torch.complex64)}),
    ("time: expected", {"time": 0.1}),
    ("space: expected", {"space": (0.1, 0.2)}),
    ("time, space: expected", {"time": None}),
    ("shape: expected", {"shape": "square"}),
    ("joint: expected", {"joint": True}),
    ("joint: expected", {"joint": True, "space": low(0.1)}),
    ("joint: expected", {"joint": True, "space": band(0.1, 0.2)}),
    ("apply: expected", {"apply": torch.ones(3, dtype=torch.bool)}),
    ("apply: expected", {"apply": torch.ones(2, 1, dtype=torch.bool)}),
    ("apply: expected", {"apply": torch.ones(2)}),
    ("apply: expected", {"apply": torch.ones(2, dtype=torch.bool, device="meta")}),
    ("time: the cut-off needs at least 2 frames", {"clip": torch.zeros(2, 3, 1, 5, 6)}),
    (
        "time: the cut-off removes every frequency of a length-7 axis",
        {"clip": torch.zeros(2, 3, 7, 5, 6), "time": high(0.5)},
    ),
    ("time: the cut-off removes every frequency of a length-4 axis", {"time": band(0.3, 0.4)}),
    (
        "space: the cut-off removes every frequency of a 1 x 1 frame",
        {"clip": torch.zeros(2, 3, 4, 1, 1), "space": high(0.1)},
    ),
    (
        "space: the cut-off removes every frequency of a 5 x 7 frame",
        {"clip": torch.zeros(2, 3, 4, 5, 7), "space": high(0.5)},
    ),
    (
        "time, space: the cut-offs remove every frequency of 7 frames of 5 x 5",
        {"clip": torch.zeros(2, 3, 7, 5, 5), "time": high(0.5), "space": high(0.5), "joint": True},
    ),
]


@pytest.mark.parametrize(("message", "change"), WRONG)
def test_a_wrong_argument_is_named(backend, message, change):
    with pytest.raises(ValueError, match=f"^{message}"):
        frequency_filter(**{**RIGHT, **change})


def test_the_smallest_filters_that_leave_something_are_not_refused(backend):
    assert frequency_filter(torch.ones(1, 1, 1, 2, 2), low(0.1)).sum() == 4
    assert frequency_filter(torch.ones(1, 1, 7, 2, 2), low(0.5)).sum() == pytest.approx(28)
    assert frequency_filter(torch.ones(1, 1, 2, 1, 1), high(0.5)).abs().max() < 1e-6


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("batch", [1, 9])
def test_the_bits_do_not_depend_on_the_number_of_threads(backend, two_threads, batch):
    if backend != "cpu":
        pytest.skip("torch's own threads")
    clip = noise(batch, 3, 16, 32, 40)
    frames = torch.randint(0, 256, (batch, 16, 32, 40, 3), dtype=torch.uint8)
    apply = torch.arange(batch) % 3 != 1
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        some = [frequency_filter(clip, apply=apply, **wanted) for wanted in WAYS]
        some += [frequency_filter_frames(frames, mean=[0.5] * 3, std=[0.2] * 3, **wanted) for wanted in WAYS]
        results.append(some)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


class Filtered(Dataset):
    """Filters a large clip in a worker."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        clip = noise(2, 3, 16, 32, 40, seed=index)
        return torch.stack([frequency_filter(clip, **wanted) for wanted in WAYS])


def test_it_runs_in_forked_workers_after_threads_ran_in_their_parent(backend, two_threads):
    if backend == "triton":
        pytest.skip("the workers would interpret")
    expected = [Filtered()[index] for index in range(6)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "fork in a process with threads", which is the point
        loader = DataLoader(Filtered(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60)
        for ours, other in zip(loader, expected, strict=True):
            torch.testing.assert_close(ours, other, rtol=0, atol=0 if backend == "cpu" else 1e-5)


def _checksums(seed):
    clip = noise(2, 3, 16, 32, 40, seed=seed)
    return [zlib.crc32(frequency_filter(clip, **wanted).numpy()) for wanted in WAYS]


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="they would interpret")
def test_two_processes_at_once_find_what_one_finds():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_checksums, range(6)) == [_checksums(seed) for seed in range(6)]
