"""The losses of the stages; all are means over the batch, in fp32, of logits (B, C)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-5
"""Inside the logarithms of information maximisation."""


def ranking_loss(predicted: Tensor, true: Tensor, margin: float = 1.0) -> Tensor:
    """The hinge on pairs of predicted losses (arXiv 1905.03677, Equation 2): mean of max(0, margin - s (p_i - p_j)).

    Image i is paired with B - 1 - i; s is 1 where its true loss is the larger, else -1. Of an odd batch the last image
    is left out. 0 for a single image.

    Args:
        predicted: (B,).
        true: (B,), the losses; no gradient flows into them.
        margin: above 0.
    """
    apart, sign = _pairs(predicted, true)
    return F.relu(margin - sign * apart).sum() / max(1, len(apart))


def ranking_cross_entropy(predicted: Tensor, true: Tensor) -> Tensor:
    """Binary cross-entropy of which image of a pair has the larger loss; pairs as in `ranking_loss`.

    The form of TA-VAAL (arXiv 2002.04709).
    """
    apart, sign = _pairs(predicted, true)
    return F.binary_cross_entropy_with_logits(apart, (sign > 0).to(apart.dtype), reduction="sum") / max(1, len(apart))


def _pairs(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of the predicted losses of pairs (B // 2,), and the signs of those of the true ones."""
    half = len(predicted) // 2
    predicted, true = predicted.float()[: 2 * half], true.detach().float()[: 2 * half]
    apart = (predicted - predicted.flip(0))[:half]
    sign = torch.where((true > true.flip(0))[:half], 1.0, -1.0)
    return apart, sign


def information_maximisation(logits: Tensor, prior: Tensor | None = None) -> Tensor:
    """Mean entropy of the predictions minus the entropy of their mean (SHOT, arXiv 2002.08546, Equation 3).

    Between -log C and, but for `EPSILON`, 0: the negative mutual information of image and class.

    Args:
        logits: (B, C).
        prior: (C,), what the mean prediction is drawn to, by KL(mean || prior) - log C in place of the second entropy;
            the same for a uniform one. None: uniform.
    """
    mean = logits.float().softmax(dim=1).mean(dim=0)
    spread = (mean * (mean + EPSILON).log()).sum()
    if prior is not None:
        spread = spread - (mean * (prior.float() * len(mean)).log()).sum()
    return mean_entropy(logits) + spread


def mean_entropy(logits: Tensor) -> Tensor:
    """The first term of `information_maximisation`."""
    chances = logits.float().softmax(dim=1)
    return -(chances * (chances + EPSILON).log()).sum(dim=1).mean()


def class_prior(labels: Tensor, classes: int) -> Tensor:
    """Shares of classes (C,) among labels (n,), each class counted once more than it occurs."""
    counts = torch.bincount(labels, minlength=classes).float() + 1.0
    return counts / counts.sum()


def pseudo_label_loss(losses: Tensor, kept: Tensor) -> Tensor:
    """The mean of the cross-entropies (B,) of those images that are `kept` (B,); 0 where none is."""
    chosen = losses[kept]
    return chosen.mean() if len(chosen) else losses.sum() * 0.0


def kept_pseudo_labels(labels: Tensor, predicted: Tensor, share: float) -> Tensor:
    """Of every class n_c the ceil(share n_c) images with the lowest predicted losses; of equals the first.

    Args:
        labels: (N,), pseudo labels.
        predicted: (N,), losses.
        share: in (0, 1].

    Returns:
        (N,) bool.
    """
    kept = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    for label in labels.unique():
        of_class = (labels == label).nonzero().squeeze(1)
        order = predicted[of_class].argsort(stable=True)
        count = math.ceil(share * len(of_class) - 1e-9)  # 0.07 * 100 is a little more than 7
        kept[of_class[order[:count]]] = True
    return kept


def minimum_class_confusion(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """How much the classes are confused with one another, 0 to 1 (MCC, arXiv 1912.03699, Equations 2 to 6).

    Args:
        logits: (B, C).
        temperature: of the softmax, above 0.
    """
    chances = (logits.float() / temperature).softmax(dim=1)
    entropy = -(chances * (chances + EPSILON).log()).sum(dim=1)
    weights = 1.0 + (-entropy.detach()).exp()
    weights = len(weights) * weights / weights.sum()
    confusion = (chances * weights[:, None]).T @ chances
    confusion = confusion / confusion.sum(dim=1, keepdim=True)
    return (confusion.sum() - confusion.trace()) / logits.shape[1]


def discriminator_loss(source: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of telling source (0) from target (1), one mean over both.

    Args:
        source, target: logits (B,) and (B',) of being of the target.
    """
    both = torch.cat((source.float(), target.float()))
    truth = torch.cat((torch.zeros_like(source, dtype=torch.float32), torch.ones_like(target, dtype=torch.float32)))
    return F.binary_cross_entropy_with_logits(both, truth)


def adversarial_loss(target: Tensor) -> Tensor:
    """Cross-entropy of images of the target passing for source; `target`: logits (B,) of being of the target."""
    return F.binary_cross_entropy_with_logits(target.float(), torch.zeros_like(target, dtype=torch.float32))
