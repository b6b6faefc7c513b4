"""What the CPU tests cannot see: the same numbers on a GPU."""

import pytest
import torch

from vtk_cli.similarity import Attack, PixelModel, sat_matrix, transfer_bits
from vtk_kernels import philox4x32, uniform

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def test_philox_gives_the_same_words_as_on_the_cpu():
    counter = torch.randint(0, 2**32, (1000, 4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(philox4x32(counter.cuda(), (1, 2)).cpu(), philox4x32(counter, (1, 2)))
    streams = torch.arange(50)
    assert torch.equal(uniform(streams.cuda(), 333, seed=5).cpu(), uniform(streams, 333, seed=5))


def test_sat_on_the_gpu_is_close_to_sat_on_the_cpu():
    def network(seed):
        torch.manual_seed(seed)
        layers = [torch.nn.Conv2d(3, 16, 5, stride=2), torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(16 * 36, 4)]
        return PixelModel(torch.nn.Sequential(*layers), 16, (0.5,) * 3, (0.5,) * 3)

    pixels = torch.randint(0, 256, (200, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = network(0)(pixels.float() / 255).argmax(1)
    attack = Attack(eps=16 / 255, steps=10, step_size=4 / 255)
    scores = []
    for device in ("cpu", "cuda"):
        networks = {str(seed): network(seed).to(device) for seed in range(2)}
        scores.append(sat_matrix(transfer_bits(networks, pixels.to(device), labels.to(device), attack)).score)
    assert abs(scores[0] - scores[1]).max() < 0.05
