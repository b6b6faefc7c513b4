"""A simulated person, who knows every label of the target and answers what was asked, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vtk_cli.adapt.labels import Given
from vtk_cli.adapt.ledger import LabelRow
from vtk_cli.adapt.state import AdaptState, pending
from vtk_cli.errors import UserError


class Oracle:
    """Answers questions from labels that nobody else gets to see.

    Args:
        truth: numbers of classes by sample id; a label is looked up when it was bought, not before.
        class_names: by number.

    Raises:
        UserError: there is no label at all.
    """

    def __init__(self, truth: Mapping[str, int], class_names: Sequence[str]) -> None:
        if not truth:
            raise UserError("the target has no labels to simulate a person with", "--oracle", "give a labelled target")
        self._truth, self._class_names = truth, tuple(class_names)

    def answers(self, state: AdaptState, rows: Sequence[LabelRow]) -> tuple[Given, ...]:
        """The labels of what waits for an answer in the open round, in the order of the query."""
        return tuple(self._given(name) for name in pending(state, rows))

    def audit(self, state: AdaptState) -> tuple[Given, ...]:
        """The labels of the audit, which are measured with and never trained on."""
        return tuple(self._given(name) for name in state.audit)

    def _given(self, name: str) -> Given:
        if name not in self._truth:
            raise UserError(f"{name} has no label to simulate a person with", "--oracle", "label it, or leave it out")
        return Given(name, self._class_names[self._truth[name]], "oracle")
