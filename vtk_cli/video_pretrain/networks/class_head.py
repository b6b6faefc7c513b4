"""A classifier on features, filled from a checkpoint where its classes are as many."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from vtk_cli.errors import UserError


def fill_class_head(head: nn.Linear, stored: Mapping[str, Tensor]) -> str:
    """Load a checkpoint's classifier; where it has another number of classes, or there is none, `head` stays as it is.

    Args:
        head: from features (B, D) to logits (B, K).
        stored: `weight` (K', D) and `bias` (K'); empty for a checkpoint without a classifier.

    Returns:
        What to tell the user: that the classifier starts anew, and why. Empty where it was loaded.

    Raises:
        UserError: the stored one is for features of another width.
    """
    if not stored:
        return "no classifier there: it starts anew"
    classes, width = stored["weight"].shape
    if width != head.in_features:
        what = f"its classifier is for {width} features, not {head.in_features}"
        raise UserError(what, fix="name a checkpoint of the same network")
    if classes != head.out_features:
        return f"{classes} classes there, {head.out_features} here: the classifier starts anew"
    head.load_state_dict(dict(stored))
    return ""
