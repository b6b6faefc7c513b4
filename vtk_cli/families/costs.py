"""What large runs cost, on paper: operations and memory counted in the networks themselves, traffic by formula.

Nothing is computed: a network's forward and backward pass run on tensors that have shapes and no content. An addition
and a multiplication are two operations (FLOP); what timm and papers call GMACs or GFLOPs is half of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from timm import create_model
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

_CHANNELS = 3
_FLOAT = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class PassCost:
    """A forward and a backward pass of a network.

    Args:
        network: its timm name.
        size: side of its square images, in pixels.
        parameters: how many weights.
        forward: FLOP of an image's forward pass.
        both: FLOP of an image's forward and backward pass.
        kept: bytes that the forward pass keeps for the backward pass, of all images.
    """

    network: str
    size: int
    parameters: int
    forward: float
    both: float
    kept: int


def attack_cost(network: str, images: int) -> PassCost:
    """A step of an attack in float32: the gradient goes to the images, at the size of the network's own input.

    Args:
        network: a timm name, with or without its tag.
        images: in a batch, 1 or more.
    """
    described = get_pretrained_cfg(network)
    size = 224 if described is None else int(described.input_size[-1])
    module = _without_content(network)
    return _counted(network, module.eval(), size, images, to_weights=False)


def training_cost(network: str, images: int, size: int) -> PassCost:
    """A step of a training under bf16 autocast: the gradient goes to the weights.

    Args:
        network: a timm name whose constructor takes `img_size`.
        images: in a batch, 1 or more.
        size: side of the images.
    """
    module = _without_content(network, img_size=size)
    return _counted(network, module.train(), size, images, to_weights=True)


@dataclass(frozen=True)
class ComparisonCost:
    """What SAT between N networks on n images costs (arXiv 2210.11407), at most: every image attacked.

    K steps a network and image, a_i FLOP each; then all N networks answer the images of each, f_j FLOP each. Before,
    every network answers the clean and the noisy images.

        attacks = n K sum_i a_i        evaluations = n N sum_j f_j        before = 2 n sum_j f_j

    Only what the attacked network classifies correctly is attacked, so that the cost is the networks' mean accuracy
    times the first two.

    Args:
        networks: the cost of an attack's step of each.
        images: n.
        steps: K.
    """

    networks: Sequence[PassCost]
    images: int
    steps: int

    @property
    def attacks(self) -> float:
        """FLOP."""
        return self.images * self.steps * sum(network.both for network in self.networks)

    @property
    def evaluations(self) -> float:
        """FLOP."""
        return self.images * len(self.networks) * sum(network.forward for network in self.networks)

    @property
    def before(self) -> float:
        """FLOP of the clean and of the noisy images."""
        return 2 * self.images * sum(network.forward for network in self.networks)

    @property
    def total(self) -> float:
        """FLOP of everything."""
        return self.attacks + self.evaluations + self.before

    @property
    def longest_row(self) -> float:
        """FLOP of the dearest network's row: its attack, and what all networks answer. It bounds an array's time."""
        answers = sum(network.forward for network in self.networks)
        return self.images * (self.steps * max(network.both for network in self.networks) + answers)

    @property
    def attacked_bytes(self) -> int:
        """The attacked images of all networks, at 8 bits a channel: written once, and read for every new network."""
        return self.images * _CHANNELS * sum(network.size**2 for network in self.networks)

    @property
    def weight_bytes(self) -> int:
        """The weights of all networks in float32; each task of an array reads them once."""
        return _FLOAT * sum(network.parameters for network in self.networks)

    @property
    def answer_bytes(self) -> int:
        """What is left: a bit an image and pair."""
        return self.images * len(self.networks) ** 2 // 8


@dataclass(frozen=True)
class TrainingCost:
    """What training a network on N GPUs costs.

        operations = epochs x images x FLOP of an image's forward and backward pass
        DDP:   each GPU sends 2 (N - 1) / N x 4 bytes a weight an update: a ring all-reduce of the gradients
        FSDP2: 3 (N - 1) / N x 4 bytes: weights gathered for the forward and for the backward pass, gradients scattered

    Weights, gradients and AdamW's or LAMB's two moments are float32, as are the averaged weights; DDP keeps its
    gradients a second time, in the buckets that it sends.

    Args:
        step: the cost of a step on one GPU's part of the batch.
        batch: images an update, of all GPUs.
        gpus: N.
        epochs: passes over the images.
        images: in an epoch.
        largest_part: weights of the largest part of the network that FSDP2 gathers as one.
    """

    step: PassCost
    batch: int
    gpus: int
    epochs: int
    images: int
    largest_part: int

    @property
    def operations(self) -> float:
        """FLOP of the whole training."""
        return float(self.epochs * self.images * self.step.both)

    @property
    def updates(self) -> int:
        """Of the whole training; the last images of an epoch, too few for a batch, make none."""
        return self.epochs * (self.images // self.batch)

    @property
    def ddp_traffic(self) -> float:
        """Bytes that a GPU sends (and receives) an update."""
        return 2 * (self.gpus - 1) / self.gpus * _FLOAT * self.step.parameters

    @property
    def fsdp_traffic(self) -> float:
        """Bytes that a GPU sends (and receives) an update."""
        return 3 * (self.gpus - 1) / self.gpus * _FLOAT * self.step.parameters

    @property
    def ddp_memory(self) -> float:
        """Bytes a GPU: weights, gradients twice, two moments, averaged weights; and what the forward pass keeps."""
        return 6 * _FLOAT * self.step.parameters + self.step.kept

    @property
    def fsdp_memory(self) -> float:
        """Bytes a GPU: a share of weights, gradients, two moments and averaged weights; two gathered parts and one's
        gradients; and what the forward pass keeps."""
        return 5 * _FLOAT * self.step.parameters / self.gpus + 3 * _FLOAT * self.largest_part + self.step.kept


def gpu_hours(operations: float, peak: float, utilisation: float) -> float:
    """Hours of one GPU.

    Args:
        operations: FLOP.
        peak: FLOP a second that the GPU is sold for.
        utilisation: the share of it that the network gets, in (0, 1].
    """
    return operations / (peak * utilisation) / 3600


def largest_part(network: str, size: int) -> int:
    """Weights of the largest block of a vision transformer."""
    blocks = _without_content(network, img_size=size).get_submodule("blocks")
    return max(sum(parameter.numel() for parameter in block.parameters()) for block in blocks.children())


def _without_content(network: str, **arguments: int) -> nn.Module:
    with torch.device("meta"):
        module: nn.Module = create_model(network, **arguments)
    return module


def _counted(network: str, module: nn.Module, size: int, images: int, *, to_weights: bool) -> PassCost:
    """Count one forward and one backward pass, of the weights (under bf16 autocast) or of the images."""
    kept: dict[int, torch.UntypedStorage] = {}
    with FakeTensorMode(), torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        weights = {
            name: torch.empty(one.shape, requires_grad=to_weights) for name, one in module.named_parameters()
        } | {name: torch.empty(one.shape, dtype=one.dtype) for name, one in module.named_buffers()}
        batch = torch.empty(images, _CHANNELS, size, size, requires_grad=not to_weights)
        with _collecting(kept), torch.autocast("cpu", torch.bfloat16, enabled=to_weights):
            loss = functional_call(module, weights, (batch,)).float().sum()
        forward = counter.get_total_flops()
        loss.backward()
        own = {one.untyped_storage()._cdata for one in weights.values()}
        bytes_kept = sum(storage.nbytes() for key, storage in kept.items() if key not in own)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return PassCost(network, size, parameters, forward / images, counter.get_total_flops() / images, bytes_kept)


@contextmanager
def _collecting(kept: dict[int, torch.UntypedStorage]) -> Iterator[None]:
    """Within, the memory of every tensor that is kept for a backward pass goes to `kept`, each once."""

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
