"""Networks as functions of pixels."""

import copy

import pytest
import timm
import torch
from torch import nn
from torchvision.transforms.v2 import functional as vision

from vtk_cli.similarity.attack import Attack, adversarial
from vtk_cli.similarity.networks import PixelModel, as_function

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def patch_network(seed=0):
    """A patch embedding without padding, so that mean and std can be folded into it exactly."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 16, 8, stride=8), nn.GELU(), nn.Flatten(), nn.Linear(16 * 16, 32), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(32, 5))


def folded(net):
    """The same network with (x - mean) / std inside its first layer."""
    result = copy.deepcopy(net)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        result[0].weight /= std
        result[0].bias -= (result[0].weight * mean).sum(dim=(1, 2, 3))
    return result


def test_an_image_of_the_right_size_is_not_resampled():
    model = PixelModel(nn.Identity(), 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(x), x)


def test_other_sizes_are_resampled_with_antialiasing_and_stay_pixels():
    model = PixelModel(nn.Identity(), 24, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    x = (torch.rand(2, 3, 36, 36) > 0.5).float()
    expected = vision.resize(x, [24, 24], interpolation=vision.InterpolationMode.BICUBIC, antialias=True)
    assert expected.min() < 0  # bicubic overshoots
    assert torch.equal(model(x), expected.clamp(0, 1))


def test_normalisation_inside_equals_normalisation_folded_into_the_first_layer():
    net = patch_network()
    wrapped, plain = PixelModel(net, 32, MEAN, STD), folded(net)
    x = torch.rand(20, 3, 32, 32)
    assert torch.allclose(wrapped(x), plain(x), atol=1e-5)
    y = wrapped(x).argmax(1)
    attack = Attack(eps=8 / 255, steps=5, step_size=2 / 255)
    with as_function(wrapped) as one, as_function(plain) as other:
        made = [adversarial(network, x, y, attack, torch.arange(20))[0] for network in (one, other)]
    for images in made:
        assert (images - x).abs().max() <= 8 / 255 + 1e-6  # eps is in pixels in both
    fooled = [(wrapped(images).argmax(1) != y) for images in made]
    assert torch.equal(*fooled)
    assert (made[0] == made[1]).float().mean() > 0.99


@pytest.mark.parametrize("size", [32, 20])
def test_the_gradient_through_resizing_and_normalisation_matches_central_differences(size):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))
    model = PixelModel(net, size, MEAN, STD).double()
    x = 0.25 + 0.5 * torch.rand(1, 3, 32, 32, dtype=torch.float64)
    model(x)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[0, 1], x)
    step = 1e-5
    for index in [(0, 0, 0, 0), (0, 1, 15, 16), (0, 2, 31, 31), (0, 0, 7, 22)]:
        up, down = x.detach().clone(), x.detach().clone()
        up[index] += step
        down[index] -= step
        slope = (model(up)[0, 1] - model(down)[0, 1]) / (2 * step)
        assert float(gradient[index]) == pytest.approx(float(slope), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_using_a_network_as_a_function_leaves_no_trace(training):
    net = timm.create_model("resnet10t", num_classes=4)
    model = PixelModel(net, 32, MEAN, STD).train(training)
    net.layer1.train(not training)  # parts may be in different modes
    net.conv1.requires_grad_(requires_grad=False)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    state = copy.deepcopy(model.state_dict())
    x = torch.rand(4, 3, 32, 32)
    generator = torch.get_rng_state()
    with as_function(model) as function:
        adversarial(function, x, torch.zeros(4, dtype=torch.int64), Attack(steps=2), torch.arange(4))
        assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_network_is_put_back_after_an_error():
    model = PixelModel(nn.Dropout(), 8, MEAN, STD).train()
    with pytest.raises(RuntimeError, match="inside"), as_function(model):
        raise RuntimeError("inside")
    assert model.training
    assert model.net.training
