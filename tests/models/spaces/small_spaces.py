"""Small supernets, and the slow way of counting what a network costs."""

from __future__ import annotations

import torch
from torch import nn

WITHOUT_POOLS = (4, 5, 0, 6, 7, 3, 0, 0, 4, 3, 0, 0, 5, 0, 7, 3, 3, 0, 4, 0, 5, 6, 0, 0, 0, 3, 0, 6)
"""Every operation of darts but the pools, in both kinds of cell."""
WITH_POOLS = (1, 2, 2, 0, 4, 0, 0, 1, 3, 0, 0, 2, 0, 5, 2, 1, 0, 1, 2, 4, 0, 0, 2, 1, 5, 0, 0, 0)
RESOLUTION = {"shufflenetv2": 64, "mobilenet": 64}
"""Images of the larger networks in tests; others are of 16 pixels."""


def small_shape(space, form="supernet", classes=7, resolution=None):
    """A shape of few channels and cells, where the space lets one choose."""
    sizes = {}
    if space.forms[form].width:
        sizes["width"] = 4
    if space.forms[form].cells:
        sizes["cells"] = {"darts": 4}.get(space.name, 1)
    return space.shape(form, classes, resolution=resolution or RESOLUTION.get(space.name, 16), **sizes)


def randomise(network, seed=0):
    """Give every parameter and running statistic a value of its own, of a size at which signals survive."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.dim() >= 2:
            value.copy_(torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5)
        elif value.dtype.is_floating_point:
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3 + (0.8 if name.endswith("weight") else 0))
    return network.eval()


def counted_macs(network, *arguments):
    """Multiply-accumulates of one forward of one image, counted from the shapes that convolutions really put out."""
    macs = []

    def count(module, _, output):
        if isinstance(module, nn.Conv2d):
            taps = module.weight[0].numel()
            macs.append(taps * output[0].numel())
        else:
            macs.append(module.weight.numel())

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        network.eval()(*arguments)
    for hook in hooks:
        hook.remove()
    return sum(macs)


def counted_params(network):
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith("auxiliary_head."))


def on_meta(build, *arguments, **options):
    """A network without data: built and run in no time, whatever its size."""
    with torch.device("meta"):
        return build(*arguments, **options)
