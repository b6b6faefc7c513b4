"""The Inception-v3 of published FIDs: the network of TensorFlow's 2015-12-05 archive in PyTorch (arXiv 1512.00567).

Its parameters are called as torchvision calls them, but it is not torchvision's network: the averages of blocks A, C
and the first E leave out the padding, the last E takes a maximum where the others average, and there are 1,008 outputs.
FID by any other network, or by torchvision's weights, cannot be compared with published numbers (arXiv 2104.11222).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file
from vtk_cli.models.weights import load_exactly, read_state_dict

FILE = "pt_inception-2015-12-05-6726825d.pth"
"""What pytorch-fid calls the weights; torch-fidelity has the same bytes as `weights-inception-2015-12-05-...`."""
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIDE = 299
FEATURES = 2048
OUTPUTS = 1008

Kernel = int | tuple[int, int]
Pool = Callable[[Tensor], Tensor]
_AVERAGE: Pool = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_MAXIMUM: Pool = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
_HALVED: Pool = partial(F.max_pool2d, kernel_size=3, stride=2)


@dataclass(frozen=True)
class Step:
    """A convolution of a branch: its name, its outputs, its kernel (height, width), its stride.

    `beside` puts it next to the step before, on the same input, in place of after it.
    """

    name: str
    channels: int
    kernel: Kernel = 1
    stride: int = 1
    beside: bool = False


class Unit(nn.Module):
    """Convolution without bias, batch norm, ReLU: (B, C_in, H, W) -> (B, C, H', W'); padded unless it strides."""

    def __init__(self, inputs: int, step: Step, *, padded: bool = True) -> None:
        super().__init__()
        high, wide = (step.kernel, step.kernel) if isinstance(step.kernel, int) else step.kernel
        padding = (high // 2, wide // 2) if padded and step.stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, step.channels, (high, wide), step.stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(step.channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C, H', W')."""
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Branches of units on one input and a pooled branch, concatenated in order.

    Args:
        inputs: channels that come in.
        branches: each a chain of steps.
        pool: of the last branch.
        pooled: channels of the unit `branch_pool` behind the pool; None for the pool alone.
    """

    def __init__(self, inputs: int, branches: Sequence[Sequence[Step]], pool: Pool, pooled: int | None) -> None:
        super().__init__()
        self._branches, self._pool = branches, pool
        self.channels = (pooled or inputs) + sum(_outputs(branch) for branch in branches)
        for branch in branches:
            before = width = inputs
            for step in branch:
                before = before if step.beside else width
                self.add_module(step.name, Unit(before, step))
                width = step.channels
        if pooled is not None:
            self.branch_pool = Unit(inputs, Step("branch_pool", pooled))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, channels, H', W')."""
        outputs = [output for branch in self._branches for output in self._run(branch, x)]
        pooled = self._pool(x)
        return torch.cat([*outputs, self.branch_pool(pooled) if hasattr(self, "branch_pool") else pooled], dim=1)

    def _run(self, branch: Sequence[Step], x: Tensor) -> list[Tensor]:
        before, ends = x, [x]
        for step in branch:
            if not step.beside:
                before, ends = ends[-1], []
            ends.append(self.get_submodule(step.name)(before))
        return ends


class InceptionV3(nn.Module):
    """(B, 3, H, W) in [-1, 1], published at 299 x 299 -> the pooled features (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, Step("", 32, 3, stride=2))
        self.Conv2d_2a_3x3 = Unit(32, Step("", 32, 3), padded=False)
        self.Conv2d_2b_3x3 = Unit(32, Step("", 64, 3))
        self.Conv2d_3b_1x1 = Unit(64, Step("", 80))
        self.Conv2d_4a_3x3 = Unit(80, Step("", 192, 3), padded=False)
        width = 192
        for name, build in _BLOCKS.items():
            block = build(width)
            self.add_module(name, block)
            width = block.channels
        self.fc = nn.Linear(width, OUTPUTS)  # not used by FID; it is in the file

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2048)."""
        x = _HALVED(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = _HALVED(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3))


def load_inception(path: Path, sha256: str = SHA256) -> InceptionV3:
    """The network with the weights of `path`, in eval mode, its parameters frozen.

    Args:
        path: the user's copy of `FILE`; it is never fetched.
        sha256: what the file's checksum must be.

    Raises:
        UserError: there is no such file, or it is another one.
    """
    if not path.is_file():
        raise UserError("no such weight file", str(path), f"put {FILE} of pytorch-fid there")
    found = sha256_file(path)
    if found != sha256:
        what = f"is not the Inception of published FIDs (its SHA-256 is {found[:8]}..., not {sha256[:8]}...)"
        raise UserError(what, str(path), f"give {FILE} as pytorch-fid publishes it")
    network = InceptionV3()
    load_exactly(network, read_state_dict(path), str(path))
    return network.eval().requires_grad_(requires_grad=False)


def _outputs(branch: Sequence[Step]) -> int:
    """The channels that a chain puts out: those of its last step, and of what stands beside it."""
    total = 0
    for step in branch:
        total = total + step.channels if step.beside else step.channels
    return total


def _a(inputs: int, pooled: int) -> Block:
    branches = (
        (Step("branch1x1", 64),),
        (Step("branch5x5_1", 48), Step("branch5x5_2", 64, 5)),
        (Step("branch3x3dbl_1", 64), Step("branch3x3dbl_2", 96, 3), Step("branch3x3dbl_3", 96, 3)),
    )
    return Block(inputs, branches, _AVERAGE, pooled)


def _b(inputs: int) -> Block:
    branches = (
        (Step("branch3x3", 384, 3, stride=2),),
        (Step("branch3x3dbl_1", 64), Step("branch3x3dbl_2", 96, 3), Step("branch3x3dbl_3", 96, 3, stride=2)),
    )
    return Block(inputs, branches, _HALVED, None)


def _c(inputs: int, width: int) -> Block:
    branches = (
        (Step("branch1x1", 192),),
        (
            Step("branch7x7_1", width),
            Step("branch7x7_2", width, (1, 7)),
            Step("branch7x7_3", 192, (7, 1)),
        ),
        (
            Step("branch7x7dbl_1", width),
            Step("branch7x7dbl_2", width, (7, 1)),
            Step("branch7x7dbl_3", width, (1, 7)),
            Step("branch7x7dbl_4", width, (7, 1)),
            Step("branch7x7dbl_5", 192, (1, 7)),
        ),
    )
    return Block(inputs, branches, _AVERAGE, 192)


def _d(inputs: int) -> Block:
    branches = (
        (Step("branch3x3_1", 192), Step("branch3x3_2", 320, 3, stride=2)),
        (
            Step("branch7x7x3_1", 192),
            Step("branch7x7x3_2", 192, (1, 7)),
            Step("branch7x7x3_3", 192, (7, 1)),
            Step("branch7x7x3_4", 192, 3, stride=2),
        ),
    )
    return Block(inputs, branches, _HALVED, None)


def _e(inputs: int, pool: Pool) -> Block:
    branches = (
        (Step("branch1x1", 320),),
        (
            Step("branch3x3_1", 384),
            Step("branch3x3_2a", 384, (1, 3)),
            Step("branch3x3_2b", 384, (3, 1), beside=True),
        ),
        (
            Step("branch3x3dbl_1", 448),
            Step("branch3x3dbl_2", 384, 3),
            Step("branch3x3dbl_3a", 384, (1, 3)),
            Step("branch3x3dbl_3b", 384, (3, 1), beside=True),
        ),
    )
    return Block(inputs, branches, pool, 192)


_BLOCKS: Mapping[str, Callable[[int], Block]] = {
    "Mixed_5b": partial(_a, pooled=32),
    "Mixed_5c": partial(_a, pooled=64),
    "Mixed_5d": partial(_a, pooled=64),
    "Mixed_6a": _b,
    "Mixed_6b": partial(_c, width=128),
    "Mixed_6c": partial(_c, width=160),
    "Mixed_6d": partial(_c, width=160),
    "Mixed_6e": partial(_c, width=192),
    "Mixed_7a": _d,
    "Mixed_7b": partial(_e, pool=_AVERAGE),
    "Mixed_7c": partial(_e, pool=_MAXIMUM),
}
