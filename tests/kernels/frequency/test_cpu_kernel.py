"""The C++ kernel alone: y = G (s x + R m(R^T x W^T) W) for any matrices, those of a filter or not, against einsum."""

import itertools

import numpy as np
import pytest
import torch

from vtk_kernels import dispatch

pytestmark = pytest.mark.skipif(
    dispatch.which("frequency_filter", "cpu") != "cpu", reason="the C++ kernels are not built"
)
ERROR = {np.dtype(np.float16): 2e-3, np.dtype(np.float32): 5e-5, np.dtype(np.float64): 1e-12}
RANDOM = np.random.default_rng(0)


def matrices(kind, T, H, W, modes):
    """U, R, W, weights, V; those that a kind of filter does not have are empty."""
    time = modes if kind in ("time", "both") else 0
    rows, columns = (0, 0) if kind == "time" else (modes, modes + 1)
    joint = 2 if kind == "joint" else 0
    sizes = (T, time), (H, rows), (columns, W), (max(1, joint), rows, columns), (T, joint)
    return [RANDOM.standard_normal(size) / max(size) ** 0.5 for size in sizes]


def by_einsum(x, keeps_pixels, keeps_frames, U, R, C, weights, V):
    K = np.einsum("hi,bcthw,jw->bctij", R, x, C, optimize=True)
    K = np.einsum("tv,vij,sv,bcsij->bctij", V, weights, V, K, optimize=True) if V.shape[1] else K * weights[0]
    y = keeps_frames * x + np.einsum("hi,bctij,jw->bcthw", R, K, C, optimize=True)
    return keeps_pixels * y + (1 - 2 * keeps_pixels) * np.einsum("tr,sr,bcshw->bcthw", U, U, y, optimize=True)


def run(name, x, out, keeps_pixels, keeps_frames, tables, apply, threads, *given):
    U, *rest = (torch.from_numpy(table) for table in tables)
    tensors = [torch.from_numpy(each) for each in (x, out, *given)]
    function = getattr(dispatch.cpu_module("frequency"), name)
    function(*tensors, keeps_pixels, U, keeps_frames, *rest, torch.from_numpy(apply), threads)


def check(kind, sizes, modes, dtype, keeps, in_bytes=False):
    B, C, T, H, W = sizes
    # G is the identity where time is not filtered, and so is what it is applied to where space is not.
    keeps_pixels, keeps_frames = keeps or kind in ("space", "joint"), keeps or kind == "time"
    tables, apply = matrices(kind, T, H, W, modes), np.arange(B, dtype=np.uint8) % 3 != 1
    apply = apply.astype(np.uint8)
    if in_bytes:
        x = RANDOM.integers(0, 256, (B, T, H, W, C), dtype=np.uint8)
        given = RANDOM.uniform(0.5, 1, C).astype(np.float32) / 100, RANDOM.standard_normal(C).astype(np.float32)
        scale, shift = (each.astype(np.float64)[:, None, None, None] for each in given)
        whole, name, total = x.transpose(0, 4, 1, 2, 3) * scale + shift, "filter_frames", np.float32
    else:
        x = RANDOM.standard_normal(sizes).astype(dtype)
        whole, name, given = x.astype(np.float64), "filter", ()
        total = np.float64 if dtype == np.float64 else np.float32
    filtered = by_einsum(whole, keeps_pixels, keeps_frames, *tables)
    expected = np.where(apply[:, None, None, None, None], filtered, whole)
    outs = []
    for threads in (1, 2, 5):
        outs.append(np.full(sizes, 7, dtype))
        run(name, x, outs[-1], keeps_pixels, keeps_frames, [t.astype(total) for t in tables], apply, threads, *given)
    assert outs[0].tobytes() == outs[1].tobytes() == outs[2].tobytes()
    assert np.abs(outs[0] - expected).max() <= ERROR[np.dtype(dtype)] * max(1, np.abs(expected).max())


KINDS = ["time", "space", "both", "joint"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("modes", [1, 2, 3, 4, 7])
def test_any_sizes_and_numbers_of_modes(kind, keeps, modes):
    for dtype, width in itertools.product((np.float64, np.float32, np.float16), (1, 7, 16, 33, 64)):
        sizes = tuple(int(n) for n in RANDOM.integers(1, [4, 4, 9, 10]))
        check(kind, (*sizes, width), modes, dtype, keeps)
        if dtype != np.float64:
            check(kind, (*sizes, width), modes, dtype, keeps, in_bytes=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(4, 3, 16, 64, 192), (1, 5, 16, 130, 250), (1, 1, 128, 20, 70), (12, 1, 3, 40, 40)])
def test_work_for_every_thread_and_results_larger_than_the_caches(kind, sizes):
    check(kind, sizes, 3, np.float32, True)
    check(kind, sizes, 5, np.float32, True, in_bytes=True)


@pytest.mark.parametrize("place", range(5))
def test_matrices_that_do_not_fit_are_refused(place):
    x, apply = np.zeros((1, 1, 2, 3, 4), np.float32), np.ones(1, np.uint8)
    tables = [table.astype(np.float32) for table in matrices("both", 2, 3, 4, 2)]
    run("filter", x, x.copy(), True, True, tables, apply, 1)
    for wrong in (np.concatenate([tables[place]] * 2), tables[place].astype(np.float64), tables[place][None]):
        with pytest.raises(ValueError, match=r"^(matrices|weights): "):
            run("filter", x, x.copy(), True, True, [*tables[:place], wrong, *tables[place + 1 :]], apply, 1)


def test_tensors_that_do_not_fit_are_refused():
    x, apply = np.zeros((2, 1, 2, 3, 4), np.float32), np.ones(2, np.uint8)
    tables = [table.astype(np.float32) for table in matrices("both", 2, 3, 4, 2)]
    for out in (x[:1], x[0], x.astype(np.float64)):
        with pytest.raises(ValueError, match="out: "):
            run("filter", x, out.copy(), True, True, tables, apply, 1)
    for wrong in (apply[:1], apply.astype(np.float32)):
        with pytest.raises(ValueError, match="apply: "):
            run("filter", x, x.copy(), True, True, tables, wrong, 1)
    frames, scale = np.zeros((2, 2, 3, 4, 1), np.uint8), np.ones(1, np.float32)
    for given in ((scale, np.ones(2, np.float32)), (scale.astype(np.float64), scale)):
        with pytest.raises(ValueError, match="scale, shift: "):
            run("filter_frames", frames, x.copy(), True, True, tables, apply, 1, *given)
    with pytest.raises(ValueError, match="frames: "):
        run("filter_frames", frames.astype(np.float32), x.copy(), True, True, tables, apply, 1, scale, scale)
    with pytest.raises(ValueError, match="out: "):
        run("filter_frames", frames, x.astype(np.float64), True, True, tables, apply, 1, scale, scale)
