"""The compiled kernels' threads: their number changes no bit, and neither fork nor a second process stops them."""

import multiprocessing
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from vtk_kernels import deformable_attention, dispatch

pytestmark = pytest.mark.skipif(dispatch.which("sample_levels", "cpu") != "cpu", reason="the C++ kernels are not built")
SHAPES = [(16, 12), (8, 6), (4, 3)]


def step(seed=0):
    """The result and all gradients, of a size that uses every thread."""
    random = torch.Generator().manual_seed(seed)
    B, Q, M, D, L, P, S = 2, 60, 4, 32, 3, 4, sum(H * W for H, W in SHAPES)
    sizes = (B, S, M, D), (B, Q, L, 2), (B, Q, M, L, P, 2), (B, Q, M, L * P)
    leaves = [torch.randn(size, generator=random).requires_grad_() for size in sizes]
    out = deformable_attention(leaves[0], SHAPES, leaves[1].sigmoid(), *leaves[2:])
    out.sin().sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def same(ours, expected):
    return all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_number_of_threads_changes_no_bit(two_threads):
    many = step()
    torch.set_num_threads(1)
    assert same(step(), many)


class Steps(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return step(index)


def workers_give_the_same_bits():
    """Whether forked workers compute what this process, which has used its threads, computes."""
    torch.set_num_threads(2)
    expected = [step(index) for index in range(6)]
    loader = DataLoader(Steps(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=120)
    return all(same(ours, other) for ours, other in zip(loader, expected, strict=True))


@pytest.mark.slow
def test_workers_forked_after_threads_ran_give_the_same_bits():
    # In a process of its own: torch refuses to differentiate in a fork of one whose autograd has started threads.
    code = "import runpy, sys; sys.exit(not runpy.run_path(sys.argv[1])['workers_give_the_same_bits']())"
    done = subprocess.run(
        [sys.executable, "-c", code, __file__], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_forked_child_that_asks_for_threads_does_not_wait_for_those_of_its_parent(two_threads):
    value, offsets, weights = torch.randn(2, 252, 4, 32), torch.rand(2, 60, 4, 3, 4, 2), torch.rand(2, 60, 4, 3, 4)
    expected, out = torch.zeros(2, 60, 128), torch.zeros(2, 60, 128).share_memory_()
    kernel = dispatch.cpu_module("deformable").sample_forward
    kernel(value, SHAPES, offsets, weights, expected, 2)
    child = multiprocessing.get_context("fork").Process(target=kernel, args=(value, SHAPES, offsets, weights, out, 2))
    child.start()
    child.join(timeout=60)
    hangs = child.is_alive()
    child.kill()
    assert not hangs
    assert torch.equal(out, expected)


@pytest.mark.slow
def test_two_processes_at_once_give_the_same_bits():
    code = (
        "import hashlib, runpy, sys, torch; torch.set_num_threads(2); step = runpy.run_path(sys.argv[1])['step']; "
        "print([hashlib.sha256(t.numpy().tobytes()).hexdigest() for _ in range(10) for t in step()])"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, __file__], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert answers[0] == answers[1]
    assert len(set(answers[0].strip("[]\n").split(", "))) == 5
