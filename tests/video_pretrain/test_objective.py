"""What a training minimises: which views are filtered, which losses there are, and their sum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.video_pretrain.tiny_methods import moco, simclr, views
from vtk_cli.engine.update import Clock
from vtk_cli.video_pretrain.flow_labels import FlowLabels
from vtk_cli.video_pretrain.freqaug import FreqAug
from vtk_cli.video_pretrain.networks.building import create_backbone
from vtk_cli.video_pretrain.objective import ClassifiedVideo, PretrainedVideo, SSLObjective, SupervisedObjective
from vtk_cli.video_pretrain.simclr import SimCLR
from vtk_cli.video_pretrain.temporal_losses import TemporalHeads, debias_loss, shuffling
from vtk_kernels.frequency import high

NONE = FreqAug("none")
CLOCK = Clock(0, 0, 7)


def right(first: Tensor, _: Tensor) -> Tensor:
    return torch.ones(len(first), 2, *first.shape[1:])


def stacked(count: int, batch: int) -> Tensor:
    return torch.stack(views(count, batch), dim=1)


def test_each_view_is_filtered_where_it_was_drawn_and_comes_as_it_is_elsewhere():
    seen: list[list[Tensor]] = []

    class Listening(PretrainedVideo):
        def forward(self, each: list[Tensor], *_: object, **__: object) -> Tensor:
            seen.append(each)
            return torch.zeros(())

    given = stacked(2, 3)
    flags = torch.tensor([[True, False], [False, False], [True, True]])
    freqaug = FreqAug("t", high(0.1), probability=0.5)
    list(SSLObjective(freqaug, 10)(Listening(simclr(), None), (None, given, flags, None), CLOCK))
    for sample in range(3):
        for view in range(2):
            raw = given[sample, view]
            expected = raw - raw.mean(1, keepdim=True) if flags[sample, view] else raw
            torch.testing.assert_close(seen[0][view][sample], expected)


@pytest.mark.parametrize(("make", "count"), [(simclr, 1), (moco, 3)])
def test_there_are_as_many_losses_as_the_framework_has_passes(make, count):
    model = PretrainedVideo(make(), None)
    given = stacked(4, 2)[:, :3] if make is moco else stacked(2, 2)
    flags = torch.zeros(given.shape[:2], dtype=torch.bool)
    losses = list(SSLObjective(NONE, 10)(model, (None, given, flags, None), CLOCK))
    assert len(losses) == count


def transformer() -> tuple[torch.nn.Module, TemporalHeads]:
    torch.manual_seed(0)
    backbone = create_backbone("timesformer_tiny", frames=4, side=12)
    labels = FlowLabels(right, 6, still=0.5)
    return backbone, TemporalHeads(32, 4, {"order": 1.0, "flow": 0.5}, labels=labels, smoothing=0.1)


def test_the_temporal_losses_of_the_first_view_come_with_the_last_loss():
    backbone, heads = transformer()
    model = PretrainedVideo(SimCLR(backbone, torch.nn.Linear(32, 5), temperature=0.2), heads)
    given = torch.randn(3, 2, 3, 4, 12, 12)
    flags = torch.zeros(3, 2, dtype=torch.bool)
    (both,) = SSLObjective(NONE, 10, ("order", "flow"))(model, (None, given, flags, None), CLOCK)
    (alone,) = SSLObjective(NONE, 10)(model, (None, given, flags, None), CLOCK)
    tokens = backbone.tokens(given[:, 0])[1]
    expected = alone + heads.order_loss(tokens) + heads.flow_loss(tokens, given[:, 0])
    torch.testing.assert_close(both, expected)


def test_motion_is_labelled_before_frequencies_are_taken_out():
    heard: list[Tensor] = []

    def listening(first: Tensor, _: Tensor) -> Tensor:
        heard.append(first)
        return torch.zeros(len(first), 2, *first.shape[1:])

    torch.manual_seed(0)
    backbone = create_backbone("timesformer_tiny", frames=4, side=12)
    heads = TemporalHeads(32, 4, {"flow": 1.0}, labels=FlowLabels(listening, 6, still=0.5), smoothing=0.0)
    given, flags = torch.randn(3, 2, 3, 4, 12, 12), torch.ones(3, 2, dtype=torch.bool)
    freqaug = FreqAug("t", high(0.1), probability=1.0)
    supervised = SupervisedObjective(freqaug, smoothing=0.0, temporal={"flow": 1.0})
    supervised(ClassifiedVideo(backbone, 5, temporal=heads), (None, given[:, :1], flags[:, :1], torch.arange(3)), CLOCK)
    pretrained = PretrainedVideo(SimCLR(backbone, torch.nn.Linear(32, 5), temperature=0.2), heads)
    list(SSLObjective(freqaug, 10, ("flow",))(pretrained, (None, given, flags, None), CLOCK))
    gray = 128 * (0.299 * given[:, 0, 0] + 0.587 * given[:, 0, 1] + 0.114 * given[:, 0, 2])
    assert len(heard) == 2
    for first in heard:
        torch.testing.assert_close(first, gray[:, :3].flatten(0, 1))


def test_the_supervised_loss_is_the_weighted_sum_of_its_four_terms():
    backbone, heads = transformer()
    model = ClassifiedVideo(backbone, 5, temporal=heads).eval()
    clips, labels = torch.randn(3, 1, 3, 4, 12, 12), torch.tensor([0, 4, 2])
    weights = {"order": 1.0, "debias": 0.3, "flow": 0.5}
    objective = SupervisedObjective(NONE, smoothing=0.2, temporal=weights)
    flags = torch.zeros(3, 1, dtype=torch.bool)
    found = objective(model, (None, clips, flags, labels), CLOCK)
    order = shuffling(4, 3, torch.Generator().manual_seed(CLOCK.seed), each=False)
    tokens = backbone.tokens(clips[:, 0])[1]
    log_p = F.log_softmax(model(clips[:, 0]), dim=1)
    smoothed = -(0.8 * log_p[range(3), labels] + 0.2 * log_p.mean(dim=1)).mean()
    expected = smoothed + heads.order_loss(tokens) + heads.flow_loss(tokens, clips[:, 0])
    expected = expected + 0.3 * debias_loss(model(clips[:, 0][:, :, order[0]]))
    torch.testing.assert_close(found, expected)
    plain = SupervisedObjective(NONE, smoothing=0.2, temporal={})
    torch.testing.assert_close(plain(model, (None, clips, flags, labels), CLOCK), smoothed)


def test_only_the_classes_of_a_frozen_network_learn_and_its_statistics_stay():
    for adapt in (False, True):
        torch.manual_seed(0)
        model = ClassifiedVideo(create_backbone("c3d_tiny", frames=4, side=24), 3, frozen=True, adapt=adapt).train()
        before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
        model(torch.randn(2, 3, 4, 24, 24)).sum().backward()
        assert all(weight.grad is None for weight in model.backbone.parameters())
        assert model.head.weight.grad.abs().sum() > 0
        changed = {
            name for name, tensor in model.backbone.state_dict().items() if not torch.equal(tensor, before[name])
        }
        assert bool(changed) == adapt
        assert all("running" in name or "batches" in name for name in changed)
