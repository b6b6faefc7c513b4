from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from vtk_cli.console import Console
from vtk_cli.data.digits import load_glyphs, upscale
from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file
from vtk_cli.prune import digits_features, digits_training
from vtk_cli.prune.extractors import (
    Extractor,
    Preprocessing,
    ReluTaps,
    check_hash_in_name,
    create_extractor,
    vgg_taps,
)

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def small_chain() -> nn.Sequential:
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*first, nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2))


def extractor(**changes: object) -> Extractor:
    return Extractor("small", ReluTaps(small_chain()), Preprocessing(MEAN, STD), {"weights": "w"}, **changes)


@pytest.mark.parametrize(("side", "count"), [(32, 303_104), (64, 1_212_416)])
def test_vgg19_has_the_published_number_of_features(side: int, count: int) -> None:
    with torch.device("meta"):
        outputs = vgg_taps(models.vgg19_bn())(torch.zeros(1, 3, side, side))
    assert len(outputs) == 16
    assert sum(output.numel() for output in outputs) == count


def test_black_and_white_are_the_ends_of_the_normalised_range() -> None:
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    ends = extractor().normalise(torch.stack([-torch.ones(3, 2, 2), torch.ones(3, 2, 2)]))
    torch.testing.assert_close(ends[0, :, 0, 0], -mean / std)
    torch.testing.assert_close(ends[1, :, 1, 1], (1 - mean) / std)


def test_a_grey_image_is_seen_as_three_equal_channels() -> None:
    grey = torch.rand(2, 1, 8, 8)
    one, three = extractor()(grey), extractor()(grey.repeat(1, 3, 1, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))
    with pytest.raises(ValueError, match="sees 3 channels"):
        extractor()(torch.rand(2, 4, 8, 8))


def test_features_are_the_relus_outputs_in_forward_order() -> None:
    chain, images = small_chain().eval(), torch.rand(2, 3, 8, 8)
    seen: list[torch.Tensor] = []
    for layer in chain:
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda *args: seen.append(args[2].clone()))
    normal = extractor().normalise(images)
    chain(normal)
    assert all(torch.equal(a, b) for a, b in zip(extractor()(images), seen, strict=True))


def test_in_eval_mode_features_do_not_depend_on_the_other_images() -> None:
    images = torch.rand(6, 3, 8, 8)
    together, alone = extractor().train()(images), extractor()(images[:1])
    torch.testing.assert_close(together[1][:1], alone[1])


def test_in_train_mode_they_do_and_statistics_stay() -> None:
    made, images = extractor(mode="train").eval(), torch.rand(6, 3, 8, 8)
    before = made.network.chain[1].running_mean.clone()
    first = made(images)[0]
    torch.testing.assert_close(made(images)[0], first)
    assert not torch.allclose(made(images[:3])[0], first[:3])
    assert torch.equal(made.network.chain[1].running_mean, before)


def test_an_extractor_is_frozen_and_lets_gradients_through() -> None:
    made, images = extractor(), torch.rand(2, 3, 8, 8, requires_grad=True)
    sum(features.sum() for features in made(images)).backward()
    assert images.grad is not None
    assert not any(parameter.requires_grad for parameter in made.parameters())


def test_layers_may_be_chosen_and_tell_extractors_apart() -> None:
    images = torch.rand(2, 3, 8, 8)
    made = extractor(layers=[1])
    assert torch.equal(made(images)[0], extractor()(images)[1])
    assert made.identity != extractor().identity != extractor(mode="train").identity
    with pytest.raises(UserError, match="layers 0 to 1"):
        extractor(layers=[2])(images)
    for wrong in ([], [1, 1], [-1]):
        with pytest.raises(UserError, match="--extractor-layers"):
            extractor(layers=wrong)


def test_features_of_digits_are_those_of_three_relus_and_a_good_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    monkeypatch.setattr(digits_features, "EPOCHS", 2)
    made = create_extractor("digits-features", image_size=16, channels=1, device=CPU, console=Console(quiet=True))
    glyphs = load_glyphs("val")
    images = torch.from_numpy(upscale(glyphs.ink, 16)).float()[:, None] * 2 - 1
    with torch.no_grad():
        outputs = made(images)
        predicted = made.network.classify(outputs).argmax(dim=1)
    assert sum(output[0].numel() for output in outputs) == 7_168
    assert (predicted == torch.from_numpy(glyphs.labels)).float().mean() > 0.9
    monkeypatch.setattr(digits_training, "_train", None)
    again = create_extractor("digits-features", image_size=16, channels=1, device=CPU, console=Console(quiet=True))
    assert again.identity == made.identity
    assert torch.equal(again(images[:2])[2], outputs[2][:2])


def test_a_timm_network_gives_the_features_of_its_stages() -> None:
    console = Console(quiet=True)
    made = create_extractor(
        "resnet10t", image_size=32, channels=3, weights="scratch", device=CPU, console=console, layers=[0, 2]
    )
    outputs = made(torch.rand(2, 1, 32, 32))
    assert len(outputs) == 2
    assert made.side is not None
    assert all(output.ndim == 4 for output in outputs)


def test_missing_weights_are_told_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match="vgg19_bn"):
        create_extractor("vgg19-bn", image_size=32, channels=3, offline=True, device=CPU, console=Console(quiet=True))


def test_a_weight_file_whose_name_says_another_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vgg19_bn-c79401a0.pth"
    path.write_bytes(b"torn")
    for name in ("vgg19-bn", "tv:vgg19_bn"):
        with pytest.raises(UserError, match="its name says c79401a0"):
            create_extractor(f"{name}={path}", image_size=32, channels=3, device=CPU, console=Console(quiet=True))
    right = tmp_path / f"own-{sha256_file(path)[:8]}.pth"
    right.write_bytes(b"torn")
    check_hash_in_name(right)
    check_hash_in_name(tmp_path / "mine.pth")
