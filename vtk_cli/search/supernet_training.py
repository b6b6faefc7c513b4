"""What a supernet is trained on: in every step one path, or a few, and nothing of the others is touched.

For the engine's loop, `engine.loop.fit`:

    sampler = UniformSampler(space)
    optimizer = sgd(supernet, lr=0.025, momentum=0.9, weight_decay=3e-4)
    fit(supernet, PathObjective(sampler, seed=0), batches, optimizer, plan=Plan(epochs=250, clip_norm=5), ...)

The loop sets gradients to None after every update, and a weight without a gradient is left alone by optimisers: by
momentum and weight decay too. What paths a step runs follows from the seed and the step, so resuming is exact, and all
processes run the same; they average the gradients of these paths, and of nothing else. So they do where each has a part
of the weights (`--parallel fsdp`): what is on no path is not put together, and gets no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from vtk_cli.engine.processes.sharded_weights import gradients_exchanged
from vtk_cli.engine.processes.weights_together import own_memory
from vtk_cli.engine.seeds import sample_seed
from vtk_cli.engine.update import Clock, gradients_stay_here
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.supernet import Supernet
from vtk_cli.search.samplers import Path, PathSampler

Prepare = Callable[[Tensor, int], Tensor]
"""`prepare(images, seed)`: what the network gets of a batch's images: normalised, augmented with draws from `seed`."""


class PathObjective:
    """The sum of the cross-entropies of the paths of a step, for the engine's loop.

    A batch is `(indices, images, targets)`: images (B, ...), targets int64 (B,).

    Args:
        sampler: chooses the paths.
        seed: of the choice: the same in all processes, and in all batches of an update.
        smoothing: of the labels, in [0, 1).
        prepare: of the images; None: they are as the network gets them.
        sharpness: radius of sharpness-aware steps (arXiv 2010.01412): the gradient is that at the weights moved by so
            much along the gradient; None: plain steps. Statistics of batch normalisation see the batch twice.
    """

    def __init__(
        self,
        sampler: PathSampler,
        *,
        seed: int,
        smoothing: float = 0.0,
        prepare: Prepare | None = None,
        sharpness: float | None = None,
    ) -> None:
        self._sampler, self._seed = sampler, seed
        self._smoothing, self._prepare, self._sharpness = smoothing, prepare, sharpness

    def __call__(self, model: nn.Module, batch: Any, clock: Clock) -> Iterator[Tensor]:
        """Yield the losses of the paths, each before the forward of the next.

        Args:
            model: a `Supernet` in training mode, possibly wrapped for several processes.
            batch: on the model's device.
            clock: says the step; seeds what `prepare` draws.
        """
        supernet = _bare(model)
        _, images, targets = batch
        if self._prepare is not None:
            images = self._prepare(images, clock.seed)
        paths = self._sampler.paths(sample_seed(self._seed, 0, clock.step))
        with _gradients_of_paths(model):
            for path in paths:
                with self._moved(model, path, images, targets):
                    yield self._loss(model, path, images, targets)
            if isinstance(model, DistributedDataParallel):
                average_gradients(supernet, [path.genes for path in paths])

    def _moved(self, model: nn.Module, path: Path, images: Tensor, targets: Tensor) -> AbstractContextManager[None]:
        """For a sharpness-aware step, the weights moved along the gradient; otherwise nothing."""
        if self._sharpness is None:
            return nullcontext()
        weights = [one for one in _bare(model).active_parameters(path.genes).values() if one.requires_grad]
        loss = self._loss(model, path, images, targets)
        # The direction is that of the whole batch.
        if isinstance(model, FSDPModule):
            gradient = gradient_of_parts(weights, loss)
        else:
            gradient = gradient_of(weights, loss)
            if isinstance(model, DistributedDataParallel):
                average(gradient)
        return moved_along(weights, gradient, self._sharpness)

    def _loss(self, model: nn.Module, path: Path, images: Tensor, targets: Tensor) -> Tensor:
        with without_gradient(_bare(model), path):
            logits = model(images, path.genes)
        return F.cross_entropy(logits, targets, label_smoothing=self._smoothing)


def _bare(model: nn.Module) -> Supernet:
    return cast("Supernet", model.module if isinstance(model, DistributedDataParallel) else model)


def _gradients_of_paths(model: nn.Module) -> AbstractContextManager[None]:
    """Inside, nothing waits for gradients of all weights.

    Whole ones are averaged by `average_gradients`; where weights are in parts, FSDP exchanges those of each path alone.
    """
    return gradients_exchanged(model) if isinstance(model, FSDPModule) else gradients_stay_here(model)


def gradient_of(weights: Sequence[nn.Parameter], loss: Tensor) -> list[Tensor]:
    """The gradient of `loss` by each of `weights`, 0 where it does not depend on them."""
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return [torch.zeros_like(one) if g is None else g for one, g in zip(weights, found, strict=True)]


def gradient_of_parts(weights: Sequence[nn.Parameter], loss: Tensor) -> list[Tensor]:
    """The same of weights in parts, as parts, of the mean of the processes' losses; their own gradients stay.

    Whole weights are there in the pass alone, so that only a backward pass can be asked.
    """
    before = [one.grad for one in weights]
    _set_gradients(weights, [None] * len(weights))
    loss.backward()
    found = [torch.zeros_like(one) if one.grad is None else one.grad for one in weights]
    _set_gradients(weights, before)
    if whole := [one for one in found if not isinstance(one, DTensor)]:
        average(whole)
    return found


def _set_gradients(weights: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    for one, gradient in zip(weights, gradients, strict=True):
        one.grad = gradient


@contextmanager
def without_gradient(supernet: Supernet, path: Path) -> Iterator[None]:
    """A forward in here records nothing for the weights of the path's resting choices."""
    resting: list[nn.Parameter] = []
    if path.resting:
        active = supernet.active_parameters(path.genes)
        resting = [one for name, one in active.items() if supernet.choice_of(name) in path.resting]
    for one in resting:
        one.requires_grad_(False)  # noqa: FBT003 - its name is not the one in torch's stubs
    try:
        yield
    finally:
        for one in resting:
            one.requires_grad_()


@contextmanager
def moved_along(weights: Sequence[nn.Parameter], gradient: Sequence[Tensor], radius: float) -> Iterator[None]:
    """Inside, `weights` are moved by `radius` in the direction of `gradient`; afterwards they are back, bit for bit.

    Args:
        weights: whole, or in parts.
        gradient: as they are; alike in all processes.
        radius: of all of them together.
    """
    here = [own_memory(one) for one in weights]
    before = [one.clone() for one in here]
    length = _length(gradient).clamp(min=torch.finfo(torch.float32).tiny)
    for one, along in zip(here, gradient, strict=True):
        one.add_(radius / length * own_memory(along))
    torch.clear_autocast_cache()  # it holds the weights as they were
    try:
        yield
    finally:
        for one, was in zip(here, before, strict=True):
            one.copy_(was)


def _length(gradient: Sequence[Tensor]) -> Tensor:
    """Its 2-norm, over the parts of all processes."""
    parts = [own_memory(one) for one in gradient if isinstance(one, DTensor)]
    whole = nn.utils.get_total_norm([one for one in gradient if not isinstance(one, DTensor)])
    if not parts:
        return whole
    square = nn.utils.get_total_norm(parts).double().square()
    dist.all_reduce(square)
    return (square + whole.to(square.device).double().square()).sqrt().to(parts[0].dtype)


def average_gradients(supernet: Supernet, paths: Sequence[Genes]) -> None:
    """Make the gradients of the weights of `paths` the mean over the processes, which all ran these paths."""
    weights = {name: one for genes in paths for name, one in supernet.active_parameters(genes).items()}
    average([one.grad for one in weights.values() if one.grad is not None])


@torch.no_grad()
def average(gradients: Sequence[Tensor]) -> None:
    """Make each of `gradients` its mean over the processes, which have as many of the same shapes."""
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def sgd(
    supernet: nn.Module,
    *,
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decay_on: Literal["all", "weights"] = "all",
    clip_value: float | None = None,
) -> torch.optim.SGD:
    """SGD over all weights of a supernet; those without a gradient in a step are left alone.

    Args:
        supernet: whose weights.
        lr: the highest learning rate.
        momentum: in [0, 1).
        nesterov: Nesterov's momentum.
        weight_decay: of what `decay_on` says.
        decay_on: `all` weights, or those of convolutions and classifier alone (`weights`), as in arXiv 1904.00420.
        clip_value: the largest absolute value of a gradient's entry; None leaves it.
    """
    groups: Any = (
        [{"params": list(supernet.parameters()), "weight_decay": weight_decay}]
        if decay_on == "all"
        else param_groups_weight_decay(supernet, weight_decay)
    )
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    if clip_value is not None:
        limit = clip_value

        def clip(made: torch.optim.Optimizer, _arguments: Any, _options: Any) -> None:
            learning = (one for group in made.param_groups for one in group["params"])
            for gradient in (one.grad for one in learning if one.grad is not None):
                own_memory(gradient).clamp_(-limit, limit)

        optimizer.register_step_pre_hook(clip)
    return optimizer
