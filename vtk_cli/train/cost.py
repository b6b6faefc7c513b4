"""What a step costs with a sub-model: multiply-accumulates, and where the memory peaks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from vtk_cli.train.classifier import Classifier
from vtk_cli.train.sub.model import SubDraw


@dataclass(frozen=True)
class StepCost:
    """What one image costs in a training step.

    Args:
        main: multiply-accumulates (MACs) of the model's forward.
        sub: of the sub-model's forward; None without one.
        fused: whether both graphs are kept for one backward pass.
    """

    main: int
    sub: int | None
    fused: bool = False

    @property
    def factor(self) -> float:
        """A step's cost over that of plain training; a backward pass costs in proportion to its forward."""
        return 1.0 if self.sub is None or not self.main else (self.main + self.sub) / self.main

    @property
    def memory(self) -> str:
        """Where activation memory peaks, in words."""
        if self.sub is None:
            return "activations peak in the forward of the network"
        if self.fused:
            return f"activations of both forwards are kept: {self.factor:.2f}x those of plain training"
        peak = "main" if self.sub <= self.main else "sub-branch's"
        return f"activations peak in the {peak} forward; the two graphs are never kept together"


def measured_macs(classifier: Classifier, image_size: int, draw: SubDraw | None = None) -> int:
    """Multiply-accumulates of one image's forward: matrix products, convolutions and attention.

    Nothing is computed: the forward runs on tensors without data; of two images where there is no draw, since batch
    normalisation may refuse to train on one.

    Args:
        classifier: of any network; neither changed nor moved.
        image_size: side of the image.
        draw: of some samples, for the sub-model's forward; None for the model's own.

    Raises:
        RuntimeError: the network looks at values of its tensors.
    """
    tensors: dict[str, Tensor] = {**dict(classifier.named_parameters()), **dict(classifier.named_buffers())}
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
    samples = 2
    if draw is not None and draw.keep is not None:
        samples = len(draw.keep)
        draw = draw._replace(keep=draw.keep.to("meta"))
    images = torch.empty(samples, 3, image_size, image_size, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), counter:
        functional_call(classifier, shapes, (images, draw))
    return int(counter.get_total_flops()) // samples // 2


def step_cost(classifier: Classifier, image_size: int, *, fused: bool = False) -> StepCost | None:
    """What a step costs; None for a network whose forward cannot be run without data.

    Args:
        classifier: with its sub-model, if there is one.
        image_size: side of the training images.
        fused: whether both losses share a backward pass.
    """
    training = classifier.training
    try:
        classifier.train()
        for part in classifier.modules():
            if isinstance(part, _BatchNorm):
                part.eval()  # in training it would look for the other processes' batches
        sub = classifier.sub
        draw = None if sub is None else sub.draw(2, 0, 0, torch.device("cpu"), 0.5)
        main = measured_macs(classifier, image_size)
        return StepCost(main, None if draw is None else measured_macs(classifier, image_size, draw), fused)
    except RuntimeError:
        return None
    finally:
        classifier.train(training)
