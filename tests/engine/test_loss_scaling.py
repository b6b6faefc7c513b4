"""The loss scaler that fp16 needs, played on the CPU: a step of several losses is one step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from vtk_cli.engine import update
from vtk_cli.engine.loss_meter import LossMeter
from vtk_cli.engine.processes.distributed import World

CPU = torch.device("cpu")


def weights_after_a_step(factors: tuple[float, float], clip_norm: float | None) -> Tensor:
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False)
    world = World(0, 1, 0, CPU)

    def loss(model: nn.Module, batch: tuple[Tensor, ...], clock: update.Clock) -> Iterator[Tensor]:
        for factor in factors:
            yield model(batch[1]).square().mean() * factor

    updater = update.Updater(
        model,
        loss,
        torch.optim.SGD(model.parameters(), lr=0.1),
        None,
        clip_norm=clip_norm,
        ema_decay=None,
        precision="fp32",
        seed=0,
        world=world,
    )
    batch = (torch.arange(4), torch.arange(12.0).view(4, 3) / 12)
    updater([batch], 0, 0, LossMeter(world))
    return model.weight.detach().clone()


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_scaled_losses_make_the_step_of_unscaled_ones(clip_norm: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = weights_after_a_step((1.0, 0.5), clip_norm)
    monkeypatch.setattr(update, "grad_scaler", lambda *_: torch.amp.GradScaler("cpu", init_scale=1024.0))
    torch.testing.assert_close(weights_after_a_step((1.0, 0.5), clip_norm), plain)


@pytest.mark.parametrize("factors", [(1.0, float("inf")), (float("inf"), 1.0)])
def test_a_step_in_which_one_loss_overflows_is_skipped_whole(
    factors: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    before = nn.Linear(3, 1, bias=False).weight.detach()
    monkeypatch.setattr(update, "grad_scaler", lambda *_: torch.amp.GradScaler("cpu", init_scale=1024.0))
    assert torch.equal(weights_after_a_step(factors, None), before)
