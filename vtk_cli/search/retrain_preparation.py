"""From options and an architecture to everything that its training from scratch needs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from vtk_cli.console import Console
from vtk_cli.data.evaluation_batches import EvaluationBatches, evaluation_transform
from vtk_cli.engine.batches import Batches
from vtk_cli.engine.loop import Plan, Scheduler
from vtk_cli.engine.optimisation import LearningRates, build_schedule
from vtk_cli.engine.processes.batch_norm import synchronise_batch_norm
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import preserved_rng, seed_everything
from vtk_cli.engine.update import Clock
from vtk_cli.errors import UserError
from vtk_cli.models.evaluation import Evaluation, MultiLabelEvaluation, evaluate
from vtk_cli.models.preprocessing import luma
from vtk_cli.models.spaces.architecture import Architecture, network_name
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Shape, Space
from vtk_cli.models.spaces.stand_alone import StandAlone
from vtk_cli.models.trained_weights import save_trained
from vtk_cli.search.images import SearchImages, open_search_images, training_batches
from vtk_cli.search.retrain_options import RetrainOptions
from vtk_cli.search.retrain_schedule import LinearTail
from vtk_cli.search.supernet_training import sgd

_AUXILIARY = "auxiliary_head."


class RetrainObjective:
    """Cross entropy of a network, and of its second classifier; the chance to drop an edge rises with the epochs.

    In epoch e of E an edge's output is dropped with the chance `drop_path` e / E (arXiv 1806.09055).

    Args:
        options: of the training.
    """

    def __init__(self, options: RetrainOptions) -> None:
        self._options = options

    def __call__(self, model: nn.Module, batch: Any, clock: Clock) -> Tensor:
        """The mean loss of a batch `(indices, images, targets)`; `model`: a `StandAlone`, perhaps wrapped."""
        options = self._options
        _, images, targets = batch
        if options.drop_path:
            rising = options.drop_path * clock.epoch / options.epochs
            network = model.module if isinstance(model, DistributedDataParallel) else model
            set_drop_path: Any = network.set_drop_path
            set_drop_path(rising)
        answer = model(images)
        logits, second = answer if isinstance(answer, tuple) else (answer, None)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=options.smoothing)
        if second is not None:
            beside = F.cross_entropy(second.float(), targets, label_smoothing=options.smoothing)
            loss = loss + options.auxiliary * beside
        return loss


@dataclass(frozen=True, eq=False)
class Retraining:
    """Everything that a re-training needs. Made by `prepare_retraining`.

    Args:
        options: of it.
        space, genes, shape: what is trained.
        images: that it is trained on.
        network: on the device.
        objective, batches, optimizer, scheduler, plan: of the engine's loop.
        validation: batches of the validation images; None where there are none.
        world: this process among the others.
    """

    options: RetrainOptions
    space: Space
    genes: Genes
    shape: Shape
    images: SearchImages
    network: StandAlone
    objective: RetrainObjective
    batches: Batches
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    plan: Plan
    validation: EvaluationBatches | None
    world: World

    @property
    def broken(self) -> dict[int, str]:
        """The training images that could not be read so far, by index."""
        return dict(getattr(self.batches, "broken", {}))

    def evaluated(self, model: nn.Module) -> Evaluation:
        """Measure a network on the validation images."""
        if self.validation is None:
            raise ValueError("there are no validation images")
        found: Evaluation | MultiLabelEvaluation = evaluate(
            _OfGrey(model) if self.images.pixels.grey else model,
            self.validation,
            pixels=self.images.pixels.config,
            device=self.world.device,
            precision=self.plan.precision,
            world=self.world,
        )
        assert isinstance(found, Evaluation)  # noqa: S101 - images of one label each, or they would not be here
        return found

    def save(self, path: Path, model: nn.Module, note: Mapping[str, str]) -> None:
        """Write the weights that inference needs, and what they are of.

        Raises:
            JobError: the disk is full.
        """
        state = {name: value for name, value in model.state_dict().items() if not name.startswith(_AUXILIARY)}
        save_trained(
            path,
            state,
            architecture=network_name(Architecture(self.space, self.genes), self.shape),
            config=self.images.pixels.config,
            model_args={},
            class_names=self.images.splits.train.class_names,
            multi_label=False,
            note={**note, "seed": str(self.options.seed)},
        )


class _OfGrey(nn.Module):
    """A network of one channel on images of three that are normalised alike."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.train(network.training)  # whoever changes the mode puts it back to this

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(luma(images))
        return logits


def prepare_retraining(
    options: RetrainOptions,
    space: Space,
    genes: Genes,
    shape: Shape,
    *,
    world: World,
    console: Console,
    sync_bn: bool = False,
) -> Retraining:
    """Build everything; the same seed builds the same. `sync_bn`: batch normalisation over all processes.

    Raises:
        UserError: options, images and architecture do not go together.
    """
    images = open_search_images(
        options, size=shape.resolution, console=console, channels=space.input_channels, whole=True
    )
    if shape.classes != images.classes:
        what = f"the network has {shape.classes} classes, {options.data} has {images.classes}"
        raise UserError(what, fix="train it on the images it is for")
    if images.size != shape.resolution:
        shape = space.shape(
            shape.form,
            shape.classes,
            resolution=images.size,
            width=shape.width or None,
            cells=shape.cells or None,
        )
    if not options.batch_size // world.size > 1:
        what = f"a batch of {options.batch_size} leaves a process of {world.size} a single image"
        raise UserError(what, "--batch-size", "batch normalisation needs at least 2 for each process")
    seed_everything(options.seed)
    network = space.network(genes, shape, drop_path=options.drop_path, auxiliary=options.auxiliary > 0)
    idle = idle_parameters(network, space.input_channels, shape.resolution) if world.size > 1 else ()
    network.to(world.device)
    if sync_bn and world.size > 1:
        synchronise_batch_norm(network)
    batches = training_batches(images, options, world=world, console=console, part="whole")
    optimizer, scheduler = _optimizer(options, network, -(-batches.steps_per_epoch // options.accumulate))
    for parameter in idle:  # several processes would wait for a gradient of each
        parameter.requires_grad_(False)  # noqa: FBT003 - its name is not the one in torch's stubs
    return Retraining(
        options,
        space,
        genes,
        shape,
        images,
        network,
        RetrainObjective(options),
        batches,
        optimizer,
        scheduler,
        _plan(options),
        _validation(images, options, world, console),
        world,
    )


def idle_parameters(network: StandAlone, channels: int, size: int) -> tuple[nn.Parameter, ...]:
    """The parameters that no output of a network in training depends on: an edge may lead to a node without a way out.

    Args:
        network: on the CPU; unchanged.
        channels: of its input.
        size: of its input, in pixels.
    """
    tried = copy.deepcopy(network).train()
    with preserved_rng():
        answer = tried(torch.randn(2, channels, size, size))
    outputs = answer if isinstance(answer, tuple) else (answer,)
    found = torch.autograd.grad(
        torch.stack([output.sum() for output in outputs]).sum(), [*tried.parameters()], allow_unused=True
    )
    return tuple(own for own, gradient in zip(network.parameters(), found, strict=True) if gradient is None)


def _validation(
    images: SearchImages, options: RetrainOptions, world: World, console: Console
) -> EvaluationBatches | None:
    val = images.splits.val
    if val is None:
        return None
    return EvaluationBatches(
        val,
        evaluation_transform(images.pixels.config),
        batch_size=max(1, options.batch_size // world.size),
        workers=images.workers,
        console=console,
        world=world,
        pin_memory=world.device.type == "cuda",
    )


def _optimizer(
    options: RetrainOptions, network: StandAlone, updates_per_epoch: int
) -> tuple[torch.optim.Optimizer, Scheduler]:
    optimizer = sgd(
        network,
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
        decay_on=options.decay_on,
    )
    if options.schedule == "linear-tail":
        return optimizer, LinearTail(optimizer, epochs=options.epochs, warmup=options.warmup_epochs)
    scheduler = build_schedule(
        optimizer,
        "poly" if options.schedule == "linear" else options.schedule,
        rates=LearningRates(options.lr, 0.0, options.min_lr),
        epochs=options.epochs,
        updates_per_epoch=updates_per_epoch,
        on_updates=options.schedule_on == "updates",
        warmup_epochs=options.warmup_epochs,
    )
    return optimizer, scheduler


def _plan(options: RetrainOptions) -> Plan:
    return Plan(
        epochs=options.epochs,
        accumulate=options.accumulate,
        clip_norm=options.clip_norm,
        ema_decay=options.ema_decay,
        precision=options.precision,
        checkpoint_seconds=options.checkpoint_seconds,
        skip_nonfinite=options.skip_nonfinite or 0,
        evaluate_epochs=options.evaluate_epochs,
    )
