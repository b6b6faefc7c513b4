"""Gem-Miner: scores are rounded, and the smallest die over the course of the search (arXiv 2202.12002)."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from vtk_cli.prune.keeping import kept_of
from vtk_cli.prune.masking import MaskedNetwork, set_masks
from vtk_cli.prune.search import MaskedSearch, scores_of
from vtk_cli.prune.selection import select_globally

CLAMP_STEPS, PRUNE_STEPS, PENALTY = 100, 500, 5e-7
"""The published rhythm, and the weight of the penalty."""
_FEWEST_CUTS = 20


class _Rounded(MaskedNetwork):
    """Kept is what is alive and scored above one half."""

    @torch.no_grad()
    def chosen(self) -> dict[str, Tensor]:
        return {name: layer.amounts > 0.5 for name, layer in self.layers.items()}


class GemMiner(MaskedSearch):
    """Scores in [0, 1] are trained and rounded; those that are smallest die, a part at a time (arXiv 2202.12002).

    Every `prune_steps` updates ceil(c n) of the n that are alive die, with c = 1 - keep^(prune_steps / steps), over all
    layers together; at the end so many as to leave the promised number, which are then all kept. The published rhythm
    is for long runs: a short one is cut at least 20 times.

    Args:
        twin: its layers have scores in [0, 1].
        steps: updates that will be made.
    """

    needs_all_weights = True

    def __init__(self, twin: MaskedNetwork, steps: int) -> None:
        rounded = _Rounded(twin.network, twin.selection)
        for layer in rounded.layers.values():
            layer.alive = torch.ones_like(layer.mask)
        super().__init__(rounded, scores_of(rounded))
        self.steps = steps
        self.prune_steps = max(1, min(PRUNE_STEPS, steps // _FEWEST_CUTS))
        self.clamp_steps = max(1, min(CLAMP_STEPS, self.prune_steps))
        self._keep = float(twin.selection.keep)

    def begin_step(self, step: int, optimizer: torch.optim.Optimizer | None = None) -> None:  # noqa: ARG002
        """Clamp the scores and let some die, when it is time."""
        if step and step % self.prune_steps == 0:  # before clamping, which makes the best ones equal
            alive = sum(int(mask.sum()) for mask in self._alive().values())
            dying = math.ceil(alive * (1 - self._keep ** (self.prune_steps / self.steps)))
            self._keep_alive(max(alive - dying, self._promised()))
        if step and step % self.clamp_steps == 0:
            self._clamp()

    def penalty(self) -> Tensor:
        """5e-7 times the sum of the squared scores."""
        total = torch.zeros((), device=next(self.parameters()).device)
        for scores in self.scores:
            total = total + scores.square().sum()
        return PENALTY * total

    def finish(self) -> None:
        """Exactly the promised number stay, all of them kept; a second time changes nothing."""
        if not self.scores:
            return
        self._keep_alive(self._promised())
        set_masks(self.twin.network, {name: mask.clone() for name, mask in self._alive().items()})

    def _promised(self) -> int:
        layers = self.twin.layers
        total = sum(layer.mask.numel() for layer in layers.values())
        return kept_of(total, self.twin.selection.keep, least=len(layers))

    def _alive(self) -> dict[str, Tensor]:
        return {name: cast("Tensor", layer.alive) for name, layer in self.twin.layers.items()}

    @torch.no_grad()
    def _clamp(self) -> None:
        for scores in self.scores:
            scores.clamp_(0, 1)

    @torch.no_grad()
    def _keep_alive(self, count: int) -> None:
        alive, layers = self._alive(), self.twin.layers
        amounts = {name: layer.amounts.masked_fill(~alive[name], -torch.inf) for name, layer in layers.items()}
        for name, mask in select_globally(amounts, count).items():
            alive[name].copy_(mask)
            cast("nn.Parameter", layers[name].scores).masked_fill_(~mask, 0.0)
