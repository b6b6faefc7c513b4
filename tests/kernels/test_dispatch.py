"""Which backend runs, why, and what is refused."""

import builtins
import importlib.util

import pytest

from vtk_kernels import dispatch


def without(monkeypatch, *missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in missing else find(name, *rest))


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture(params=[True, False])
def compiled(request, monkeypatch):
    found = {folder: builtins for folder, _ in dispatch.OPERATORS.values()} if request.param else {}
    monkeypatch.setattr(dispatch, "_compiled", lambda: found)
    return request.param


@pytest.mark.parametrize("function", dispatch.OPERATORS)
def test_a_cpu_tensor_goes_to_the_compiled_kernel_where_it_was_built(function, compiled):
    assert dispatch.which(function, "cpu") == ("cpu" if compiled else "reference")
    assert ("not built" in dispatch.why(function, "cpu")) is not compiled


@pytest.mark.parametrize("function", dispatch.OPERATORS)
def test_a_cuda_tensor_goes_to_triton_where_it_is_installed(function, monkeypatch):
    pytest.importorskip("triton")
    assert dispatch.which(function, "cuda:1") == "triton"
    without(monkeypatch, "triton")
    assert dispatch.which(function, "cuda:1") == "reference"
    assert dispatch.why(function, "cuda") == "triton is not installed"


def test_other_devices_have_the_reference():
    assert dispatch.which("keep_tokens", "mps") == "reference"
    assert "mps" in dispatch.why("keep_tokens", "mps")


@pytest.mark.parametrize("function", dispatch.OPERATORS)
def test_the_variable_forces_a_backend(function, monkeypatch):
    for device in ("cpu", "cuda"):
        monkeypatch.setenv(dispatch.VARIABLE, "reference")
        assert dispatch.which(function, device) == "reference"
        assert "VTK_KERNELS=reference" in dispatch.why(function, device)
    monkeypatch.setattr(dispatch, "_compiled", lambda: {dispatch.OPERATORS[function][0]: builtins})
    monkeypatch.setenv(dispatch.VARIABLE, "cpu")
    assert dispatch.which(function, "cpu") == "cpu"


@pytest.mark.parametrize(
    ("forced", "function", "device", "reason"),
    [
        ("cpu", "keep_tokens", "cuda", "take CPU tensors"),
        ("triton", "keep_tokens", "cpu", "TRITON_INTERPRET=1"),
        ("cuda", "sample_levels", "cpu", "takes CUDA tensors"),
        ("cuda", "keep_tokens", "cuda", "only reference, cpu, triton"),
        ("gpu", "keep_tokens", "cuda", "expected one of reference, cpu, triton, cuda"),
    ],
)
def test_a_backend_that_cannot_run_there_is_refused_with_the_reason(monkeypatch, forced, function, device, reason):
    pytest.importorskip("triton")
    monkeypatch.setenv(dispatch.VARIABLE, forced)
    with pytest.raises(ValueError, match=f"^VTK_KERNELS.*{reason}"):
        dispatch.which(function, device)


def test_kernels_that_were_not_built_or_installed_are_refused_when_forced(monkeypatch):
    monkeypatch.setattr(dispatch, "_compiled", dict)
    monkeypatch.setenv(dispatch.VARIABLE, "cpu")
    with pytest.raises(ValueError, match="not built at install"):
        dispatch.which("keep_tokens", "cpu")
    monkeypatch.setenv(dispatch.VARIABLE, "cuda")
    without(monkeypatch, "cuda", "cuda.core")
    with pytest.raises(ValueError, match=r"pip install 'vtk-cli\[cuda\]'"):
        dispatch.which("sample_levels", "cuda")


def test_the_interpreter_lets_triton_take_cpu_tensors(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    assert dispatch.which("keep_tokens", "cpu") == "triton"


def test_a_function_that_is_no_operator_is_refused():
    with pytest.raises(ValueError, match=r"^function: expected one of random_keep"):
        dispatch.which("softmax", "cpu")
