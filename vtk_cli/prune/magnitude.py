"""Magnitude pruning, in one step or iteratively with rewinding (arXiv 1803.03635, arXiv 1903.01611)."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.prune.masking import MaskedNetwork, Selection, set_masks
from vtk_cli.prune.search import MaskedSearch, weights_of
from vtk_cli.prune.selection import select


class IterativeMagnitude(MaskedSearch):
    """Train, drop the smallest weights, set the others back to what they were after `rewind` steps, and again.

    `steps` are shared equally by `rounds + 1` trainings; after number r of them, keep^(r / rounds) of the weights stay.

    Args:
        twin: everything is kept yet.
        steps: updates that will be made.
        rounds: how often weights are dropped.
        rewind: to the weights after so many steps of the first training.

    Raises:
        UserError: there are too few steps, or `rewind` lies behind the first training.
    """

    needs_all_weights = True

    def __init__(self, twin: MaskedNetwork, steps: int, rounds: int, rewind: int) -> None:
        if rounds < 1 or steps <= rounds:
            raise UserError(
                f"{rounds} rounds cannot share {steps} steps", "--rounds", "give fewer rounds or more steps"
            )
        if not 0 <= rewind < steps // (rounds + 1):
            what = f"the first training has {steps // (rounds + 1)} steps, so nothing is set back to step {rewind}"
            raise UserError(what, "--rewind", "choose an earlier step")
        if twin.selection.structure != "none" and rounds > 1:
            what = "2:4 is reached in one round, not several"
            raise UserError(what, "--structure", "give --rounds 1, or --structure none")
        super().__init__(twin, weights_of(twin))
        self.round_steps, self.rounds, self.rewind = steps // (rounds + 1), rounds, rewind
        for number, weight in enumerate(weights_of(twin)):
            self.register_buffer(f"early{number}", weight.detach().clone())

    def begin_step(self, step: int, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Remember the weights, or drop some and set the others back, when it is time."""
        if step == self.rewind:
            self._remember()
        finished, rest = divmod(step, self.round_steps)
        if rest == 0 and 0 < finished <= self.rounds:
            self._prune(finished)
            if optimizer is not None:
                optimizer.state.clear()

    @torch.no_grad()
    def _remember(self) -> None:
        for number, weight in enumerate(weights_of(self.twin)):
            self.get_buffer(f"early{number}").copy_(weight)

    @torch.no_grad()
    def _prune(self, finished: int) -> None:
        choice = self.twin.selection
        part = finished / self.rounds
        keep = choice.keep if finished == self.rounds else Fraction(float(choice.keep) ** part)
        selection = Selection(keep, choice.scope, choice.structure)
        set_masks(self.twin.network, magnitude_masks(self.twin, selection))
        for number, weight in enumerate(weights_of(self.twin)):
            weight.copy_(self.get_buffer(f"early{number}"))


@torch.no_grad()
def magnitude_masks(twin: MaskedNetwork, selection: Selection) -> dict[str, Tensor]:
    """The masks of the largest |weight|; what is pruned already stays so."""
    layers = twin.layers
    amounts = {name: layer.weight.abs().masked_fill(~layer.mask, -1.0) for name, layer in layers.items()}
    return select(layers, amounts, selection.keep, selection.scope, selection.structure)
