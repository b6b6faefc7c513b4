"""Networks trained on the embedded digits: which, how, and kept how."""

import pytest
import torch

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.models.weights import state_sha256
from vtk_cli.similarity.digits_networks import (
    NOISE,
    DigitsNetwork,
    Recipe,
    add_noise,
    ensure_trained,
    full_size,
    is_trained,
    parameter_count,
    stand_in,
    trained,
)

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    return tmp_path


def tiny(seed=0, epochs=1):
    """The smallest residual network, trained for a moment."""
    model_args = {"channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1)}
    return DigitsNetwork("tiny", "resnet18", model_args, Recipe(epochs, 64, 2e-3), seed)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet50", 1.49), ("vit_base_patch16_224", 1.82), ("deit_small_patch16_224", 1.82)],
)
def test_a_stand_in_has_the_published_size(name, millions):
    assert parameter_count(stand_in(name, name, 0)) / 1e6 == pytest.approx(millions, abs=0.005)


def test_a_stand_in_keeps_the_block_and_the_depths_of_its_resnet():
    net = stand_in("resnet50", "resnet50", 0).build()
    assert [len(stage) for stage in (net.layer1, net.layer2, net.layer3, net.layer4)] == [3, 4, 6, 3]
    assert type(net.layer1[0]).__name__ == "Bottleneck"
    assert [stage[-1].conv3.out_channels for stage in (net.layer1, net.layer4)] == [64, 512]
    assert type(stand_in("r", "resnet18", 0).build().layer1[0]).__name__ == "BasicBlock"


def test_the_real_graphs_are_those_of_timm_with_a_head_of_ten_classes():
    import timm

    with torch.device("meta"):
        resnet = timm.create_model("resnet50", num_classes=10)
        vit = timm.create_model("vit_base_patch16_224", img_size=32, num_classes=10)
    for network, reference in (
        (full_size("a", "resnet50", 0), resnet),
        (full_size("b", "vit_base_patch16_224", 0), vit),
    ):
        with torch.device("meta"):
            shapes = {name: value.shape for name, value in network.build().state_dict().items()}
        assert shapes == {name: value.shape for name, value in reference.state_dict().items()}


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "mixer_b16_224", "convnext_tiny", "maxvit_tiny_tf_224"]
)
def test_other_architectures_run_at_digits_size_too(name):
    assert parameter_count(full_size(name, name, 0)) > 1e6


def test_a_stand_in_of_another_family_is_refused_with_the_way_out():
    with pytest.raises(UserError, match=r"no small stand-in for convnext_tiny; .*leave --quick out"):
        stand_in("convnext_t", "convnext_tiny", 0)


def test_noise_is_uniform_with_a_strength_drawn_for_the_image():
    pixels = torch.full((400, 3, 8, 8), 0.5)
    change = add_noise(pixels, torch.arange(400), seed=0) - pixels
    largest = change.flatten(1).abs().amax(1)
    assert largest.max() <= NOISE
    # The largest of 192 uniform numbers is nearly the strength, and the strength is uniform on [0, 0.25].
    assert float(largest.mean()) == pytest.approx(NOISE / 2, rel=0.1)
    assert float(change.std(dim=(1, 2, 3)).div(largest).mean()) == pytest.approx(3**-0.5, rel=0.02)
    same = add_noise(pixels[:5], torch.arange(395, 400), seed=0) - pixels[:5]
    assert torch.equal(same, change[395:])


def test_training_happens_once_and_the_weights_come_back_bit_for_bit(cache):
    network = tiny()
    assert not is_trained(network)
    first = trained(network, CPU, Console(quiet=True))
    checksum = ensure_trained(network, CPU, Console(quiet=True))
    assert is_trained(network)
    written = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    second = trained(network, CPU, Console(quiet=True))
    assert written == {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    assert ensure_trained(network, CPU, Console(quiet=True)) == checksum == state_sha256(first.net)
    states = [model.state_dict() for model in (first, second)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not list(cache.rglob("checkpoints"))


def test_the_same_seed_trains_the_same_network_and_another_seed_another(cache, tmp_path, monkeypatch):
    first = ensure_trained(tiny(), CPU, Console(quiet=True))
    assert ensure_trained(tiny(seed=1), CPU, Console(quiet=True)) != first
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "elsewhere"))
    assert ensure_trained(tiny(), CPU, Console(quiet=True)) == first


def test_training_leaves_the_global_generator_alone(cache):
    state = torch.get_rng_state()
    trained(tiny(), CPU, Console(quiet=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_damaged_weights_in_the_cache_are_trained_again(cache, damage, capsys):
    first = ensure_trained(tiny(), CPU, Console(quiet=True))
    weights = next(cache.rglob("model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(bytes(content) if damage is None else damage)
    assert state_sha256(trained(tiny(), CPU, Console(quiet=True)).net) == first
    assert "damaged; training tiny again" in capsys.readouterr().err


def test_all_that_shapes_the_weights_is_in_the_key_and_the_label_is_not():
    base = tiny()
    assert tiny(seed=1).key != base.key
    assert tiny(epochs=2).key != base.key
    assert DigitsNetwork("other", base.timm_name, base.model_args, base.recipe, 0).key == base.key
    wider = {**base.model_args, "channels": (16, 16, 16, 16)}
    assert DigitsNetwork("tiny", base.timm_name, wider, base.recipe, 0).key != base.key
