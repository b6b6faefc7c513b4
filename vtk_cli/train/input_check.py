"""Whether a network takes the images it is to be given; found out before the training, not after its first epoch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from vtk_cli.engine.seeds import preserved_rng
from vtk_cli.errors import UserError


def require_size(network: nn.Module, size: int, flag: str) -> None:
    """Refuse a size of images that a network cannot take.

    Args:
        network: maps images (B, 3, S, S) to logits; neither changed nor moved.
        size: S, in pixels.
        flag: the option that says the size.

    Raises:
        UserError: it cannot.
    """
    training = network.training
    try:
        network.eval()
        try:
            _answer_without_data(network, size, samples=1)
        except RuntimeError:  # some networks look at values, and some sizes do not fit
            with preserved_rng(), torch.no_grad():
                network(torch.zeros(1, 3, size, size, device=next(network.parameters()).device))
    except (AssertionError, RuntimeError, ValueError) as error:
        said = str(error).partition("\n")[0].rstrip(".")
        what = f"a {type(network).__name__} does not take images of {size} x {size} pixels ({said})"
        raise UserError(what, flag, "choose another size") from error
    finally:
        network.train(training)


def require_batch(network: nn.Module, size: int, samples: int) -> None:
    """Refuse a batch of a single image where batch normalisation has a single value of each channel to go by.

    Args:
        network: as above.
        size: of the training images, in pixels.
        samples: the fewest in a batch of one process.

    Raises:
        UserError: it cannot be trained on.
    """
    if samples > 1 or not any(isinstance(part, _BatchNorm) for part in network.modules()):
        return
    training = network.training
    try:
        _answer_without_data(network.train(), size, samples=1)
    except ValueError as error:
        what = "batch normalisation cannot train on one image at a time"
        raise UserError(what, "--batch-size", "give at least 2 for each process") from error
    except RuntimeError:
        pass  # a network that looks at values
    finally:
        network.train(training)


def _answer_without_data(network: nn.Module, size: int, *, samples: int) -> None:
    """A forward on tensors that have a shape and no values."""
    tensors: dict[str, Tensor] = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
    with torch.no_grad():
        functional_call(network, shapes, (torch.empty(samples, 3, size, size, device="meta"),))
