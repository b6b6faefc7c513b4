"""Batch normalisation's statistics for one path."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.models.spaces.small_spaces import randomise, small_shape
from tests.search.analytic_supernet import CHAIN, scored_images
from vtk_cli.errors import UserError
from vtk_cli.search.recalibration import calibration_batches, recalibrate


def chain():
    return randomise(CHAIN.supernet(small_shape(CHAIN)))


def stem_outputs(supernet, batches):
    with torch.no_grad():
        return [supernet.stem[0](batch).transpose(0, 1).flatten(1) for batch in batches]


def test_cumulative_statistics_are_the_means_of_those_of_the_batches() -> None:
    supernet, batches = chain(), calibration_batches(scored_images(CHAIN).calibration, 5)
    outputs = stem_outputs(supernet, batches)
    recalibrate(supernet, (0, 1, 2), batches)
    mean = torch.stack([one.mean(1) for one in outputs]).mean(0)
    variance = torch.stack([one.var(1) for one in outputs]).mean(0)
    torch.testing.assert_close(supernet.stem[1].running_mean, mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(supernet.stem[1].running_var, variance, atol=1e-5, rtol=1e-5)


def test_fourteen_running_averages_leave_23_percent_of_the_start() -> None:
    supernet = chain()
    batch = scored_images(CHAIN).calibration[:8]
    (output,) = stem_outputs(supernet, [batch])
    recalibrate(supernet, (0, 1, 2), [batch] * 14, "ema14")
    residue = 0.228768
    torch.testing.assert_close(supernet.stem[1].running_mean, (1 - residue) * output.mean(1), atol=1e-5, rtol=1e-4)
    expected = residue + (1 - residue) * output.var(1)
    torch.testing.assert_close(supernet.stem[1].running_var, expected, atol=1e-5, rtol=1e-4)


def test_only_the_layers_of_the_path_are_measured_and_no_weight_moves() -> None:
    supernet = chain()
    before = copy.deepcopy(supernet.state_dict())
    recalibrate(supernet, (2, 1, 0), calibration_batches(scored_images(CHAIN).calibration, 8))
    changed = {name for name, value in supernet.state_dict().items() if not torch.equal(value, before[name])}
    active = supernet.active_normalisations((2, 1, 0))
    assert changed == {f"{name}.{part}" for name in active for part in ("running_mean", "running_var")} | {
        f"{name}.num_batches_tracked" for name in active
    }
    assert all(layer.momentum == 0.1 for layer in active.values())
    assert not any(module.training for module in supernet.modules())


def test_statistics_do_not_depend_on_the_path_measured_before() -> None:
    first, second = chain(), chain()
    batches = calibration_batches(scored_images(CHAIN).calibration, 8)
    recalibrate(first, (3, 3, 3), batches)
    for supernet in (first, second):
        recalibrate(supernet, (3, 0, 3), batches)
    for name in first.active_normalisations((3, 0, 3)):
        assert torch.equal(first.state_dict()[f"{name}.running_var"], second.state_dict()[f"{name}.running_var"])


def test_recalibrated_path_normalises_the_calibration_images() -> None:
    """On one batch of everything the statistics are the batch's own: eval mode is training mode."""
    supernet, images = chain(), scored_images(CHAIN, calibration=64).calibration
    recalibrate(supernet, (1, 2, 3), [images])
    with torch.no_grad():
        out = supernet.stem[1](supernet.stem[0](images)).transpose(0, 1).flatten(1)
    gamma, beta = supernet.stem[1].weight, supernet.stem[1].bias
    torch.testing.assert_close(out.mean(1), beta.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.std(1), gamma.detach().abs(), atol=1e-3, rtol=1e-3)


def test_batches_are_equally_large_and_never_single_images() -> None:
    lengths = {n: [len(b) for b in calibration_batches(torch.zeros(n, 1), 64)] for n in (2, 64, 65, 850, 896)}
    assert lengths[65] == [33, 32]
    assert lengths[896] == [64] * 14
    assert (len(lengths[850]), sum(lengths[850]), max(lengths[850])) == (14, 850, 61)
    assert lengths[2] == [2]
    for count, size in ((1, 64), (0, 64), (10, 1)):
        with pytest.raises(UserError, match="cannot be calibrated"):
            calibration_batches(torch.zeros(count, 1), size)
