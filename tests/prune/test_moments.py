from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from vtk_cli.errors import UserError
from vtk_cli.prune.extractors import Extractor, Preprocessing
from vtk_cli.prune.moments import MomentAccumulator, batch_moments, cached_moments, measure

CPU = torch.device("cpu")


class TwoLayers(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x.flatten(1), x.square().mean(dim=(2, 3))]


def extractor(weights: str = "a") -> Extractor:
    half = (0.5, 0.5, 0.5)
    return Extractor("two", TwoLayers(), Preprocessing(half, half), {"weights": weights})


def accumulated(features: torch.Tensor, chunks: list[int]) -> MomentAccumulator:
    seen = MomentAccumulator()
    for part in features.split(chunks):
        seen.add([part])
    return seen


@pytest.mark.parametrize("chunks", [[1000], [1] * 1000, [999, 1], [3, 0, 500, 497]])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_moments_of_chunks_are_those_of_the_whole(chunks: list[int], offset: float) -> None:
    features = torch.randn(1000, 5, dtype=torch.float64) * torch.tensor([0.1, 1, 2, 5, 100]) + offset
    found = accumulated(features, chunks).result()
    assert found.count == 1000
    torch.testing.assert_close(found.means[0].double(), features.mean(dim=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.variances[0].double(), features.var(dim=0), rtol=1e-5, atol=0)


def test_a_large_constant_does_not_spoil_the_variance_of_float32_features() -> None:
    features = torch.randn(4000, 3)
    plain, shifted = accumulated(features, [256] * 15 + [160]), accumulated(features + 1e4, [256] * 15 + [160])
    torch.testing.assert_close(shifted.result().variances[0], plain.result().variances[0], rtol=1e-3, atol=0)


def test_moments_of_a_known_distribution_are_those_of_its_formula() -> None:
    torch.manual_seed(0)
    uniform = torch.rand(100_000, 1)
    found = accumulated(uniform, [100_000]).result()
    assert found.means[0].item() == pytest.approx(1 / 2, abs=4 * (1 / 12 / 1e5) ** 0.5)
    assert found.variances[0].item() == pytest.approx(1 / 12, rel=0.02)


def test_one_image_has_no_variance() -> None:
    with pytest.raises(UserError, match="at least 2 images, there are 1"):
        accumulated(torch.zeros(1, 3), [1]).result()
    with pytest.raises(ValueError, match="at least 2 images"):
        batch_moments([torch.zeros(1, 3)])


def test_moments_of_a_batch_are_unbiased_and_carry_gradients() -> None:
    features = torch.randn(6, 2, 3, requires_grad=True)
    (means,), (variances,) = batch_moments([features])
    torch.testing.assert_close(means, features.detach().flatten(1).mean(dim=0))
    torch.testing.assert_close(variances, features.detach().flatten(1).var(dim=0, correction=1))
    (means.sum() + variances.sum()).backward()
    flat = features.detach().flatten(1)
    torch.testing.assert_close(features.grad.flatten(1), 1 / 6 + 2 * (flat - flat.mean(dim=0)) / 5)


def test_measured_moments_are_of_normalised_images_layer_by_layer() -> None:
    images = torch.rand(20, 3, 4, 4) * 2 - 1
    found = measure(extractor(), images.split(7), CPU)
    assert [len(mean) for mean in found.means] == [48, 3]
    assert found.features == 51
    torch.testing.assert_close(found.means[0], images.flatten(1).mean(dim=0))


def test_moments_are_cached_by_what_shaped_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    images = torch.rand(10, 3, 4, 4)
    first = cached_moments(extractor(), [images], {"data": "x"}, CPU)

    def never() -> None:
        raise AssertionError
        yield

    again = cached_moments(extractor(), never(), {"data": "x"}, CPU)
    assert torch.equal(first.means[0], again.means[0])
    assert again.count == 10
    with pytest.raises(AssertionError):
        cached_moments(extractor(), never(), {"data": "y"}, CPU)
    with pytest.raises(AssertionError):
        cached_moments(extractor("b"), never(), {"data": "x"}, CPU)


def test_a_torn_cache_file_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    images = torch.rand(10, 3, 4, 4)
    first = cached_moments(extractor(), [images], {}, CPU)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    again = cached_moments(extractor(), [images], {}, CPU)
    assert torch.equal(first.variances[1], again.variances[1])
