"""Names of devices and precisions."""

from __future__ import annotations

import pytest
import torch

from vtk_cli.engine.devices import autocast, describe_device, grad_scaler, resolve_device, resolve_precision
from vtk_cli.errors import UserError

CPU = torch.device("cpu")


def test_auto_is_the_best_device_there_is() -> None:
    device = resolve_device("auto")
    assert device.type == (
        "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    )
    torch.ones(1, device=device)


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:99", *(["cuda", "cuda:0"] if not torch.cuda.is_available() else [])])
def test_an_absent_device_is_the_users_mistake_and_the_present_ones_are_named(name: str) -> None:
    with pytest.raises(UserError, match=rf"--device: this machine has no device '{name}'; there is auto, .*cpu"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cuda:", "cpu:x", "", "CPU"])
def test_what_is_no_device_at_all_is_called_so(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' is no device"):
        resolve_device(name)


def test_auto_precision_on_the_cpu_is_fp32() -> None:
    assert resolve_precision("auto", CPU) == "fp32"


def test_fp16_does_not_train_on_the_cpu() -> None:
    with pytest.raises(UserError, match="choose fp32 or bf16"):
        resolve_precision("fp16", CPU)


def test_an_unknown_precision_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="choose auto, fp32, bf16 or fp16"):
        resolve_precision("fp8", CPU)  # type: ignore[arg-type]


def test_a_product_is_computed_in_the_precision_asked_for() -> None:
    matrix = torch.eye(4)
    with autocast(CPU, "bf16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with autocast(CPU, "fp32"):
        assert (matrix @ matrix).dtype == torch.float32


def test_only_fp16_needs_a_scaler() -> None:
    assert grad_scaler(CPU, "fp32") is None
    assert grad_scaler(CPU, "bf16") is None
    assert grad_scaler(torch.device("mps"), "fp16") is not None


def test_a_device_is_described_by_its_processor_and_threads() -> None:
    described = describe_device(torch.device("cpu"))
    assert described.endswith(f", {torch.get_num_threads()} threads")
    assert len(described) > len(f", {torch.get_num_threads()} threads")
