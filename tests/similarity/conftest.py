"""Small networks and images on which the machinery can be checked in milliseconds."""

import dataclasses

import pytest
import torch
from torch import nn

from vtk_cli.console import Console
from vtk_cli.models.names import NetworkName
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.models.weights import state_sha256
from vtk_cli.similarity.attack import Attack
from vtk_cli.similarity.images import ImageSet
from vtk_cli.similarity.members import Member, Pool
from vtk_cli.similarity.networks import PixelModel
from vtk_cli.similarity.passes import Passes, Settings
from vtk_cli.similarity.rows import Rows
from vtk_cli.similarity.store import Store

SIDE, CLASSES = 8, 4
PIXELS = PixelConfig(SIDE, (0.5,) * 3, (0.5,) * 3, crop_pct=1.0)


def small_net(seed):
    """An untrained convnet for 8 x 8 images and 4 classes."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, CLASSES))


def small_member(seed, net=None, label=None):
    """A member whose network is `net`, or `small_net(seed)`."""
    net = net or small_net(seed)
    name = NetworkName(f"net{seed}", label or f"net{seed}", "timm", f"net{seed}")

    def load():
        return PixelModel(net, SIDE, (0.5,) * 3, (0.5,) * 3)

    return Member(
        label=name.label,
        name=name,
        origin="test",
        weights_sha256=state_sha256(net),
        pixels=PIXELS,
        classes=CLASSES,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        is_trained_here=False,
        load=load,
    )


def small_images(count=40, labels="first", seed=0):
    """Random images; labelled by the first small network (which then is always right), or by nobody."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    truth = None
    if labels == "first":
        with torch.no_grad():
            truth = PixelModel(small_net(0), SIDE, (0.5,) * 3, (0.5,) * 3).eval()(pixels.float() / 255).argmax(1)
    ids = tuple(f"image-{number}" for number in range(count))
    return ImageSet("test", ids, truth, None if truth is None else CLASSES, f"random-{seed}-{count}", lambda _: pixels)


def reordered(images, order):
    """The same images in another order."""
    pixels, order = images.pixels(None), torch.as_tensor(order)
    return dataclasses.replace(
        images,
        ids=tuple(images.ids[i] for i in order),
        labels=None if images.labels is None else images.labels[order],
        fingerprint=images.fingerprint + "-reordered",
        pixels=lambda _: pixels[order],
    )


@pytest.fixture
def make_rows(tmp_path):
    """Builds the rows of some members on a store in a temporary folder."""

    def make(members=None, images=None, folder="store", check=lambda: None, console=None, **settings):
        members = [small_member(seed) for seed in range(3)] if members is None else members
        attack = Attack(**{"eps": 32 / 255, "steps": 4, "step_size": 12 / 255, **settings.pop("attack", {})})
        passes = Passes(
            Pool(members, torch.device("cpu")),
            Store(tmp_path / folder),
            Settings(attack, **{"batch_size": 16, **settings}),
            torch.device("cpu"),
            console or Console(quiet=True),
            check,
        )
        return Rows(passes, passes.compare(members, small_images() if images is None else images))

    return make
