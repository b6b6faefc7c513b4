"""When the training loop evaluates, what it evaluates, and that this changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.engine.linear_trainings import line, squared, train, weights
from vtk_cli.engine.loop import Clock


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_evaluation_comes_as_planned_and_after_the_last_epoch(every: int, epochs: list[int]) -> None:
    result = train(line(), evaluate=lambda model: {"accuracy": 0.5}, plan={"epochs": 5, "evaluate_epochs": every})
    assert [row["epoch"] for row in result.history if "accuracy" in row] == epochs


def test_the_model_and_the_averaged_one_are_evaluated_in_eval_mode() -> None:
    seen = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        seen.append((model, model.training))
        return {"first": weights(model)[0].item(), "drawn": torch.rand(()).item()}

    modes = []

    def watching(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        modes.append(model.training)
        return squared(model, batch, clock)

    model = line()
    result = train(model, watching, evaluate=evaluate, plan={"epochs": 2, "ema_decay": 0.5})
    assert seen == [(model, False), (result.ema, False)] * 2
    assert result.ema is not None
    assert result.metrics["first"] == weights(model)[0].item()
    assert result.metrics["ema_first"] == weights(result.ema)[0].item() != weights(model)[0].item()
    assert [row["drawn"] for row in result.history] == [row["ema_drawn"] for row in result.history]
    result = train(model, watching, evaluate=evaluate, plan={"epochs": 2})
    assert seen[4:] == [(model, False)] * 2
    assert not any(name.startswith("ema_") for row in result.history for name in row)
    assert set(modes) == {True}
    assert not model.training


def test_what_an_evaluation_draws_does_not_change_the_training() -> None:
    def noisy(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        return squared(model, (batch[0], batch[1] + torch.randn_like(batch[1]), batch[2]), clock)

    ends = []
    for draws in (0, 5):
        torch.manual_seed(3)
        model = line()
        train(model, noisy, evaluate=lambda model, draws=draws: {"x": torch.rand(draws).sum()}, plan={"epochs": 3})
        ends.append(weights(model))
    assert torch.equal(*ends)


def test_an_evaluation_may_not_overwrite_the_loops_own_values() -> None:
    with pytest.raises(ValueError, match=r"\['loss'\]"):
        train(line(), evaluate=lambda model: {"loss": 1.0})
