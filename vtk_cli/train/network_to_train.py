"""The network that the options name, as it is before the first update."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.models.finetuning import set_constant_drop_path, starting_network
from vtk_cli.models.zoo import SCRATCH, Network
from vtk_cli.train.options import TrainOptions


def network_to_train(options: TrainOptions, classes: int, console: Console) -> Network:
    """Build or load the network, with the classifier, stochastic depth and checkpointing that were asked for.

    Args:
        options: of the training.
        classes: of the training images.
        console: told what of loaded weights is started anew.

    Raises:
        UserError: there is no such network, its weights do not fit, or it cannot do what was asked for.
    """
    network, made_anew = starting_network(
        options.network,
        weights=options.weights,
        num_classes=classes,
        model_args=options.constructor_arguments,
        img_size=options.input_size,
        console=console,
    )
    if options.drop_path is not None and options.drop_path_schedule == "constant":
        set_constant_drop_path(network.module, options.drop_path)
    if options.head_init_std is not None and (made_anew or options.weights == SCRATCH):
        _init_head(network.module, options.head_init_std)
    if options.grad_checkpointing:
        _checkpoint_activations(network.module)
    return network


def _init_head(network: nn.Module, std: float) -> None:
    """A classifier that starts with small weights, as MAE's fine-tuning has it (arXiv 2111.06377)."""
    head: Any = getattr(network, "get_classifier", lambda: None)()
    if not isinstance(getattr(head, "weight", None), nn.Parameter):
        raise UserError(f"a {type(network).__name__} has no one classifier", "--head-init-std", "leave it out")
    nn.init.trunc_normal_(head.weight, std=std)


def _checkpoint_activations(network: nn.Module) -> None:
    """Compute activations again in the backward pass, where the network can."""
    switch: Any = getattr(network, "set_grad_checkpointing", None)
    try:
        if switch is not None:
            switch(enable=True)
            return
    except (AssertionError, NotImplementedError):
        pass  # timm's way of saying that this network cannot
    raise UserError(f"a {type(network).__name__} cannot", "--grad-checkpointing", "leave it out")
