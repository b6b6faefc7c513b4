"""Two processes train one supernet: gradients of the paths are averaged, and nothing else is waited for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine.two_processes import run_world
from tests.models.spaces.small_spaces import randomise, small_shape
from tests.search.two_process_training import PATHS, SPACE, trained


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes has in the end."""
    folder = tmp_path_factory.mktemp("two")
    assert run_world(Path(__file__).with_name("two_process_training.py"), folder) == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_processes_that_see_different_images_keep_the_same_weights(found) -> None:
    first, second = (one["apart"] for one in found)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
def test_weights_off_the_paths_are_left_alone_in_every_process(found) -> None:
    supernet = randomise(SPACE.supernet(small_shape(SPACE)))
    before = dict(supernet.named_parameters())
    changed = {name for name, value in found[0]["apart"].items() if not torch.equal(value, before[name])}
    assert changed == {name for genes in PATHS for name in supernet.active_parameters(genes)}


@pytest.mark.slow
def test_processes_that_see_the_same_images_train_as_one_does(found) -> None:
    """So the gradient is the mean over the processes, also where batches are accumulated."""
    alone = {
        "alike": trained(None, alike=True, batch_size=6),
        "accumulated": trained(None, alike=True, batch_size=3, accumulate=2),
    }
    for kind, weights in alone.items():
        for name, value in weights.items():
            torch.testing.assert_close(found[0][kind][name], value, atol=1e-5, rtol=1e-4)
