"""White-box, untargeted, L-infinity attacks on one network, in pixels.

The attack of SAT (arXiv 2210.11407) is PGD (Madry et al., arXiv 1706.06083):

    x_0 = clip(x + U(-eps, eps)),  x_{k+1} = clip_[0,1](clip_{x,eps}(x_k + a sign(d CE(A(x_k), y) / d x_k))),

and the last iterate is the adversarial image. Beside it: PGD on the margin (for networks whose cross-entropy gradients
vanish), MI-FGSM (arXiv 1710.06081), Auto-PGD (arXiv 2003.01690) and the single step FGSM (arXiv 1412.6572).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_kernels import uniform

AttackName = Literal["pgd", "pgd-margin", "apgd", "mifgsm", "fgsm"]
Loss = Callable[[Tensor, Tensor], Tensor]

_START_DOMAIN, _NOISE_DOMAIN = 1, 2
_MOMENTUM = 1.0
"""mu of MI-FGSM, the value of arXiv 1710.06081, Section 4."""


@dataclass(frozen=True)
class Attack:
    """What is done to an image.

    Args:
        name: the method.
        eps: radius of the L-infinity ball, in [0, 1] pixel units.
        steps: gradient steps, at least 1.
        step_size: length of a step in pixel units; APGD starts at 2 eps and FGSM takes one step of eps whatever it is.
        random_start: begin at a point of the ball drawn for the image, not at the image; never for FGSM.
        seed: of the random start; the point depends on (seed, image number) alone.
    """

    name: AttackName = "pgd"
    eps: float = 8 / 255
    steps: int = 50
    step_size: float = 0.1 * 8 / 255
    random_start: bool = True
    seed: int = 0


def adversarial(
    model: nn.Module, pixels: Tensor, labels: Tensor, attack: Attack, image_numbers: Tensor
) -> tuple[Tensor, Tensor]:
    """Adversarial images of `model`, which is used as it is: the caller sets eval mode (`networks.as_function`).

    Args:
        model: pixels (B, 3, H, W) in [0, 1] -> logits (B, C).
        pixels: (B, 3, H, W) in [0, 1].
        labels: (B,) int64, the true classes.
        attack: what to do.
        image_numbers: (B,) int64, what keys the random start, so that batch and order do not matter.

    Returns:
        The images (B, 3, H, W), within eps of `pixels` and in [0, 1]; and (B,) bool, whether the loss had no gradient
        at all at the first step (the sign of gradient masking).
    """
    low, high = (pixels - attack.eps).clamp(min=0), (pixels + attack.eps).clamp(max=1)
    start = pixels
    if attack.random_start and attack.name != "fgsm":
        start = (pixels + attack.eps * (2 * _uniform(pixels, image_numbers, attack.seed, _START_DOMAIN) - 1)).clamp(
            0, 1
        )
    loss = _margin if attack.name == "pgd-margin" else _cross_entropy
    first = _gradient(model, start, labels, loss)[1]
    masked = first.flatten(1).abs().amax(dim=1) == 0 if first.numel() else torch.zeros(0, dtype=torch.bool)
    if attack.name == "fgsm":
        return (pixels + attack.eps * first.sign()).clamp(min=low, max=high), masked
    if attack.name == "apgd":
        return _auto_pgd(model, pixels, start, labels, attack), masked
    momentum = _MOMENTUM if attack.name == "mifgsm" else 0.0
    image, gradient, direction = start, first, torch.zeros_like(start)
    for step in range(attack.steps):
        if step > 0:
            gradient = _gradient(model, image, labels, loss)[1]
        if momentum:
            scale = gradient.flatten(1).abs().mean(dim=1).clamp(min=torch.finfo(gradient.dtype).tiny)
            gradient = direction = momentum * direction + gradient / scale.view(-1, 1, 1, 1)
        image = (image + attack.step_size * gradient.sign()).clamp(min=low, max=high)
    return image, masked


def noisy(pixels: Tensor, eps: float, seed: int, image_numbers: Tensor) -> Tensor:
    """`pixels` (B, 3, H, W) plus eps times a random sign a pixel, clipped to [0, 1]: the control of an attack."""
    signs = (_uniform(pixels, image_numbers, seed, _NOISE_DOMAIN) < 0.5).to(pixels.dtype) * 2 - 1
    return (pixels + eps * signs).clamp(0, 1)


def to_bytes(images: Tensor, originals: Tensor, eps: float) -> Tensor:
    """Round adversarial images to 8 bits without leaving the ball.

    Args:
        images: (B, 3, H, W) in [0, 1], within eps of the originals.
        originals: (B, 3, H, W) uint8.
        eps: the radius; a step of 1/255 that would cross it is not taken.

    Returns:
        (B, 3, H, W) uint8 with |result - originals| <= eps * 255.
    """
    radius = int(eps * 255 + 1e-6)
    centre = originals.to(torch.int16)
    rounded = (images * 255).round().to(torch.int16)
    return rounded.clamp(min=centre - radius, max=centre + radius).clamp(0, 255).to(torch.uint8)


def _uniform(like: Tensor, image_numbers: Tensor, seed: int, domain: int) -> Tensor:
    numbers = uniform(image_numbers.to(like.device), like[0].numel() if len(like) else 0, seed=seed, domain=domain)
    return numbers.view(like.shape).to(like.dtype)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    # The sum, not the mean: a batch's size must not scale an image's gradient.
    return F.cross_entropy(logits, labels, reduction="sum")


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y, summed: its gradient does not vanish where the softmax saturates."""
    true = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return (others - true).sum()


def _gradient(model: nn.Module, image: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Logits (B, C), and d loss / d image."""
    image = image.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(image)
        (gradient,) = torch.autograd.grad(loss(logits.float(), labels), image)
    return logits.detach(), gradient


def _auto_pgd(model: nn.Module, pixels: Tensor, start: Tensor, labels: Tensor, attack: Attack) -> Tensor:
    """Auto-PGD on the cross-entropy (arXiv 2003.01690, Algorithm 1): momentum 0.75, halving steps, the best iterate."""
    low, high = (pixels - attack.eps).clamp(min=0), (pixels + attack.eps).clamp(max=1)
    checkpoints = _auto_pgd_checkpoints(attack.steps)
    column = (-1, 1, 1, 1)
    size = torch.full((len(pixels),), 2 * attack.eps, dtype=pixels.dtype, device=pixels.device)
    image = previous = best = start
    logits, gradient = _gradient(model, image, labels, _cross_entropy)
    value = best_value = F.cross_entropy(logits.float(), labels, reduction="none")
    best_gradient = gradient
    increases = torch.zeros_like(size)
    last_checkpoint, size_then, best_then = 0, size, best_value
    for step in range(1, attack.steps + 1):
        probe = (image + size.view(column) * gradient.sign()).clamp(min=low, max=high)
        weight = 0.75 if step > 1 else 1.0
        moved = image + weight * (probe - image) + (1 - weight) * (image - previous)
        previous, image = image, moved.clamp(min=low, max=high)
        logits, gradient = _gradient(model, image, labels, _cross_entropy)
        before, value = value, F.cross_entropy(logits.float(), labels, reduction="none")
        increases = increases + (value > before)
        better = value > best_value
        best = torch.where(better.view(column), image, best)
        best_gradient = torch.where(better.view(column), gradient, best_gradient)
        best_value = torch.maximum(value, best_value)
        if step in checkpoints:
            stalled = increases < 0.75 * (step - last_checkpoint)
            stalled |= (size == size_then) & (best_value == best_then)
            size_then, best_then = size, best_value
            size = torch.where(stalled, size / 2, size)
            image = torch.where(stalled.view(column), best, image)
            gradient = torch.where(stalled.view(column), best_gradient, gradient)
            increases, last_checkpoint = torch.zeros_like(increases), step
    return best


def _auto_pgd_checkpoints(steps: int) -> set[int]:
    """ceil(p_j N) with p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)."""
    earlier, fraction = 0.0, 0.22
    found = set()
    while fraction <= 1:
        found.add(-int(-fraction * steps // 1))
        earlier, fraction = fraction, fraction + max(fraction - earlier - 0.03, 0.06)
    return found
