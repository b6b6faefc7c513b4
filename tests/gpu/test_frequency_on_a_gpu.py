"""The frequency filter in Triton on a GPU: against the reference there, and of the sizes that are trained on."""

import itertools

import pytest
import torch

from vtk_kernels import dispatch
from vtk_kernels.frequency import band, frequency_filter, frequency_filter_frames, high, low

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
ERROR = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}
WAYS = [
    {"time": high(0.1)},
    {"time": low(0.3)},
    {"space": high(0.01)},
    {"space": band(0.05, 0.1), "shape": "radial"},
    {"time": high(0.1), "space": high(0.01)},
    {"time": high(0.1), "space": high(0.02), "joint": True},
]
SIZES = [(2, 3, 16, 112, 112), (1, 3, 8, 224, 224), (3, 1, 7, 33, 65), (1, 2, 64, 30, 50), (1, 1, 128, 20, 300)]


@pytest.fixture
def on_both(monkeypatch):
    """What Triton gives, and what the reference gives of the same in float64, rounded at the end."""

    def run(function, *arguments, **wanted):
        monkeypatch.setenv(dispatch.VARIABLE, "triton")
        ours = function(*arguments, **wanted)
        monkeypatch.setenv(dispatch.VARIABLE, "reference")
        exact = [each.double() if torch.is_tensor(each) and each.is_floating_point() else each for each in arguments]
        return ours, function(*exact, **wanted)

    return run


def close(ours, expected):
    error = ERROR[ours.dtype]
    torch.testing.assert_close(ours.double(), expected.double(), rtol=error, atol=4 * error)


@pytest.mark.parametrize("wanted", WAYS)
@pytest.mark.parametrize(("sizes", "dtype"), list(itertools.product(SIZES, ERROR)))
def test_triton_is_the_reference(on_both, monkeypatch, wanted, sizes, dtype):
    clip = torch.randn(sizes, device="cuda").to(dtype)
    apply = torch.arange(sizes[0], device="cuda") % 2 == 0
    ours, expected = on_both(frequency_filter, clip, apply=apply, **wanted)
    close(ours[apply], expected[apply])
    assert torch.equal(ours[~apply], clip[~apply])
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    again = frequency_filter(clip.mT.contiguous().mT, apply=apply, **wanted)
    close(again, expected)


@pytest.mark.parametrize("wanted", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_are_normalised_and_filtered(on_both, wanted, dtype, channels):
    frames = torch.randint(0, 256, (2, 16, 112, 90, channels), dtype=torch.uint8, device="cuda")
    mean, std = [0.45] * channels, [0.225] * channels
    ours, expected = on_both(frequency_filter_frames, frames, mean=mean, std=std, dtype=dtype, **wanted)
    error = ERROR[dtype]
    torch.testing.assert_close(ours.double(), expected.double(), rtol=4 * error, atol=8 * error)


@pytest.mark.parametrize("wanted", WAYS)
def test_gradients_compiled_and_the_same_bits_in_every_run(monkeypatch, wanted):
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    clip = torch.randn(2, 3, 16, 56, 56, device="cuda", requires_grad=True)
    grad = torch.randn_like(clip)
    compiled = torch.compile(lambda clip: frequency_filter(clip, **wanted), fullgraph=True)
    for run in (compiled, lambda clip: frequency_filter(clip, **wanted)):
        (found,) = torch.autograd.grad(run(clip), clip, grad)
        assert torch.equal(found, frequency_filter(grad, **wanted))


def test_it_takes_the_current_stream_and_device(monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    stream, clip = torch.cuda.Stream(), torch.randn(4, 3, 16, 112, 112, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        filtered = frequency_filter(clip, high(0.1))
    stream.synchronize()
    close(filtered, clip - _low(clip))


def _low(clip):
    spectrum = torch.fft.rfft(clip.double(), dim=2)
    spectrum[:, :, 2:] = 0
    return torch.fft.irfft(spectrum, n=16, dim=2)


def test_an_argument_on_another_device_is_refused():
    with pytest.raises(ValueError, match=r"^apply: expected it on cuda"):
        frequency_filter(torch.zeros(2, 1, 4, 5, 6, device="cuda"), high(0.1), apply=torch.ones(2, dtype=torch.bool))
