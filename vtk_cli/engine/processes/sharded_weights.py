"""A network of which each process holds a part: weights, gradients, optimiser state and average (PyTorch's FSDP2).

Each block of the network is put together where it computes and taken apart again (arXiv 2304.11277; the third stage of
ZeRO, arXiv 1910.02054). Of N fp32 weights with AdamW and an average, a device of W keeps 20 N / W bytes in place of
20 N, and besides what autocast has rounded, 2 N, from the forward pass to the backward pass. Networks that need all
their weights at once (see `sharded_blocks`) save less.

Weights stay fp32 and autocast rounds them, as in a single process: the numbers are the same either way.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _get_default_group
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map_only

from vtk_cli.engine.averages import Averages, kept_buffers
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.sharded_blocks import blocks
from vtk_cli.engine.processes.sharded_optimizer import ShardedOptimizer, distributed, own_rows, replicated
from vtk_cli.engine.processes.weights_together import own_memory, own_part

_KEPT_BACK = "gradients_are_kept_back"
_BROADCAST_BYTES = 2**28
"""Buffers are sent together up to so many bytes, as `DistributedDataParallel` does."""


class ShardedWeights:
    """A model, its average, and the optimiser's state, each in parts.

    The model that was given stays whole, in the host's memory. It is filled where whole weights are asked for: for
    evaluations (which then need room for it on the device), checkpoints and the end. What learns is a copy of it.

    Attributes:
        model: the one that was given.
        averaged: its exponential moving average; None: none is kept.
        called: what a loss calls.

    Args:
        model: its weights in the first process are everyone's.
        optimizer: over the model's parameters; gets their parts in their place.
        world: this process among the others, of which there are several.
        ema_decay: of the average; None keeps none.

    Raises:
        UserError, ValueError: see `ShardedOptimizer`.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, world: World, ema_decay: float | None
    ) -> None:
        self.model = model.cpu()
        self._world = world
        self._mesh = init_device_mesh(world.device.type, (world.size,))
        self._make_equal(model)
        self.averaged = None if ema_decay is None else copy.deepcopy(model).eval()
        self.called: nn.Module = self._sharded(copy.deepcopy(model))
        self._parts = list(self.called.parameters())
        # A scalar cannot be cut: the optimiser, which may take all at once, gets its memory as a `DTensor`.
        self._learning = [one if one.ndim else _whole_in_each(one, self._mesh) for one in self._parts]
        self._buffers = kept_buffers(model)
        self._optimizer = ShardedOptimizer(optimizer, model.parameters(), self._learning, self._mesh)
        if ema_decay is not None:
            self._averages = Averages([tensor.clone() for tensor in self._local()], ema_decay)
        self._hook()

    def finish_gradients(self) -> None:
        """Average the gradients that FSDP leaves to others, those of scalars, and leave no weights put together.

        A forward pass that no backward pass follows leaves those outside of the blocks as they are then.
        """
        cast("FSDPModule", self.called).reshard()
        pairs = zip(self._parts, self._learning, strict=True)
        scalars = [(one, learning) for one, learning in pairs if one is not learning and one.grad is not None]
        if not scalars:
            return
        # torch's loss scaler asks all processes whether theirs overflowed only if the first gradient is cut: what is
        # not finite anywhere shows in those of scalars, everywhere.
        nothing = 0 * self._norm(self._gradients())
        for scalar, learning in scalars:
            gradient = cast("Tensor", scalar.grad)
            dist.all_reduce(gradient)
            learning.grad = distributed(gradient / self._world.size + nothing.to(gradient.dtype), learning)
            scalar.grad = None

    def gradient_norm(self) -> Tensor:
        """The 2-norm of the gradient, 0-dimensional."""
        return self._norm(self._gradients())

    def clip(self, largest: float) -> None:
        """Scale the gradient down to a 2-norm of `largest`, if it is longer; as `nn.utils.clip_grad_norm_` does."""
        gradients = self._gradients()
        factor = (largest / (self.gradient_norm() + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.to_local().mul_(factor)

    def update_average(self) -> None:
        """Called after every update."""
        if self.averaged is not None:
            self._averages.update(self._local())

    def norm(self) -> Tensor:
        """The 2-norm of all weights that learn, 0-dimensional."""
        return self._norm([cast("DTensor", one.detach()) for one in self._optimizer.parameters])

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Inside, `model` and `averaged` hold the weights as they are now, on the device.

        What is done to the model's buffers inside stays.
        """
        self._put_together()
        try:
            yield
        finally:
            with torch.no_grad():
                for mine, theirs in zip(self.called.buffers(), self.model.buffers(), strict=True):
                    mine.copy_(theirs)
            for model in self._whole_models:
                model.cpu()

    def finish(self) -> None:
        """The training is over: `model` and `averaged` hold its weights from now on.

        The optimiser is one over the model's parameters again, its state in the host's memory: for another training.
        """
        self._put_together()
        self._optimizer.give_back()

    def share_statistics(self) -> None:
        """Give all processes the first one's buffers, which are those that are saved."""
        averaged = [] if self.averaged is None else self._averages.tensors[len(self._parts) :]
        self._broadcast([*self.called.buffers(), *averaged])

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, in the first process: the states of `model`, `ema` and `optimizer`, as one process has.

        All processes must ask for it together.
        """
        keep = self._world.is_main
        self._fill(keep=keep)
        return {
            "model": self.model.state_dict(),
            "ema": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(keep=keep),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`, whichever way the weights were held then.

        Raises:
            RuntimeError, ValueError: it is the state of another model or optimiser.
        """
        self.model.load_state_dict(state["model"])
        self._cut(self.model, self._local())
        self._optimizer.load_state_dict(state["optimizer"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["ema"])
            self._cut(self.averaged, self._averages.tensors)

    def _gradients(self) -> list[DTensor]:
        return [cast("DTensor", one.grad) for one in self._optimizer.parameters if one.grad is not None]

    @property
    def _whole_models(self) -> list[nn.Module]:
        return [self.model] if self.averaged is None else [self.model, self.averaged]

    def _make_equal(self, model: nn.Module) -> None:
        """One tensor after another, for the device need not hold them all."""
        for tensor in (*model.parameters(), *model.buffers()):
            sent = tensor.detach().to(self._world.device, memory_format=torch.contiguous_format)
            dist.broadcast(sent, 0)
            tensor.detach().copy_(sent)

    def _sharded(self, model: nn.Module) -> nn.Module:
        """`model`, its blocks and then what is left made FSDP's, each process keeping a part."""
        for parameter in model.parameters():
            parameter.data = parameter.data.contiguous()  # what is in another memory format cannot be cut
        scalars = {parameter for parameter in model.parameters() if parameter.ndim == 0}
        for scalar in scalars:  # nor these: each process keeps them
            scalar.data = scalar.data.to(self._world.device)
        compiled = [one._compiled_call_impl is not None for one in self.model.modules()]
        for block in (*blocks(model), model):
            block.register_forward_hook(_without_views)
            fully_shard(block, mesh=self._mesh, ignored_params=scalars)
        for module, is_compiled in zip(model.modules(), compiled, strict=True):
            if is_compiled:  # a copy of a compiled module is not compiled
                module.compile()
        return model

    def _hook(self) -> None:
        """What is done around a forward pass of the whole network.

        Before it, the first process's buffers go to all: when the pass before it was one whose gradients are exchanged,
        as `DistributedDataParallel` has it. After it, what the pass wrote to weights (momentum networks, normalised
        prototypes) is kept: outside of the blocks it was written to what is put together for the pass.
        """
        owners = [(part, *_owner(self.called, name)) for name, part in self.called.named_parameters() if part.ndim]
        due = [True]

        def before(module: nn.Module, _: Any) -> None:
            if due[0]:
                self._broadcast(list(module.buffers()))

        def after(module: nn.Module, _: Any, __: Any) -> None:
            due[0] = torch.is_grad_enabled() and not getattr(module, _KEPT_BACK, False)
            with torch.no_grad():
                for part, owner, attribute in owners:
                    if (used := getattr(owner, attribute)) is not part:
                        own_memory(part).copy_(own_part(used, part))

        self.called.register_forward_pre_hook(torch.compiler.disable(before))
        self.called.register_forward_hook(torch.compiler.disable(after))

    def _broadcast(self, buffers: list[Tensor]) -> None:
        if buffers:
            # As `DistributedDataParallel` does: a pass that is still to be gone back through may have used them.
            with torch.no_grad(), _unsafe_preserve_version_counter(tuple(buffers)):
                dist._broadcast_coalesced(_get_default_group(), buffers, _BROADCAST_BYTES, 0)  # type: ignore[attr-defined]

    def _local(self) -> list[Tensor]:
        """What this process has of the parameters, and the buffers that belong to the state."""
        buffers = dict(self.called.named_buffers())
        return [*map(own_memory, self._parts), *(buffers[name] for name in self._buffers)]

    def _put_together(self) -> None:
        """On the device."""
        for model in self._whole_models:
            model.to(self._world.device)
        self._fill()

    @torch.no_grad()
    def _fill(self, *, keep: bool = True) -> None:
        """Put the whole models together; all processes take part, also those that do not `keep` them."""
        for model in self._whole_models:
            tensors = self._local() if model is self.model else self._averages.tensors
            for whole, part, tensor in self._matched(model, tensors):
                found = tensor if part is None else distributed(tensor, part).full_tensor()
                if keep:
                    whole.copy_(found)
        if keep:  # those that are no part of the state change too
            for mine, theirs in zip(self.model.buffers(), self.called.buffers(), strict=True):
                mine.copy_(theirs)

    @torch.no_grad()
    def _cut(self, model: nn.Module, tensors: Sequence[Tensor]) -> None:
        """The other way round."""
        for whole, part, tensor in self._matched(model, tensors):
            tensor.copy_(whole if part is None else own_rows(whole, self._mesh))

    def _matched(self, model: nn.Module, tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, DTensor | None, Tensor]]:
        """Of each tensor of the state: where it is whole, what it is cut like (None: it is not), and the part."""
        buffers = dict(model.named_buffers())
        wholes = [*model.parameters(), *(buffers[name] for name in self._buffers)]
        parts = [part if isinstance(part, DTensor) else None for part in self._parts]
        yield from zip(wholes, [*parts, *[None] * len(self._buffers)], tensors, strict=True)

    def _norm(self, tensors: Iterable[DTensor]) -> Tensor:
        """The 2-norm of all of them together; in double precision, for it is squared."""
        found: dict[bool, list[Tensor]] = {True: [], False: []}
        for tensor in tensors:
            found[tensor.placements[0].is_replicate()].append(tensor.to_local())
        squares = {same: nn.utils.get_total_norm(of).double().square() for same, of in found.items()}
        total = squares[False].to(self._world.device)
        dist.all_reduce(total)
        return (total + squares[True].to(self._world.device)).sqrt()


def gradients_kept_back(model: FSDPModule) -> AbstractContextManager[None]:
    """Inside, each process adds up gradients of whole weights; the next backward pass outside exchanges them."""
    return _exchanging(model, is_kept_back=True)


def gradients_exchanged(model: FSDPModule) -> AbstractContextManager[None]:
    """Inside, every backward pass exchanges gradients, whatever holds outside."""
    return _exchanging(model, is_kept_back=False)


@contextmanager
def _exchanging(model: FSDPModule, *, is_kept_back: bool) -> Iterator[None]:
    before: bool = getattr(model, _KEPT_BACK, False)
    _keep_back(model, is_kept_back=is_kept_back)
    try:
        yield
    finally:
        _keep_back(model, is_kept_back=before)


def _keep_back(model: FSDPModule, *, is_kept_back: bool) -> None:
    setattr(model, _KEPT_BACK, is_kept_back)
    model.set_requires_gradient_sync(not is_kept_back)


def _whole_in_each(scalar: nn.Parameter, mesh: DeviceMesh) -> nn.Parameter:
    return nn.Parameter(replicated(scalar.detach(), mesh), requires_grad=scalar.requires_grad)


def _without_views(_: nn.Module, __: Any, output: Any) -> Any:
    """What is done in place to a view that a block returns would pass by the hook that puts the block together."""
    return tree_map_only(Tensor, lambda found: found.clone() if found._is_view() else found, output)


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute
