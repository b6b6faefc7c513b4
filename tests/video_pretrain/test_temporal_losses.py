"""Order, debiasing and flow direction: closed forms, cases worked by hand, and what one frame cannot know."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.video_pretrain.flow_labels import FlowLabels, directions
from vtk_cli.video_pretrain.networks.building import create_backbone
from vtk_cli.video_pretrain.networks.timesformer import TimeSformer
from vtk_cli.video_pretrain.objective import ClassifiedVideo
from vtk_cli.video_pretrain.temporal_losses import FlowHead, TemporalHeads, debias_loss, shuffled, shuffling


def heads(
    frames: int, *names: str, smoothing: float = 0.0, width: int = 6, labels: FlowLabels | None = None
) -> TemporalHeads:
    torch.manual_seed(0)
    return TemporalHeads(width, frames, dict.fromkeys(names, 1.0), labels=labels, smoothing=smoothing)


def zeroed(made: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for weight in made.parameters():
            weight.zero_()
    return made


def tokens(batch: int = 3, frames: int = 8, patches: int = 4, width: int = 6) -> Tensor:
    return torch.randn(batch, frames, patches, width, generator=torch.Generator().manual_seed(0))


def up(_: Tensor, after: Tensor) -> Tensor:
    flow = torch.zeros(len(after), 2, *after.shape[1:])
    flow[:, 1] = -1
    return flow


def test_debiasing_uniform_classes_costs_log_k_and_has_no_gradient():
    for K in (2, 4, 174):
        logits = torch.full((5, K), 3.0, requires_grad=True)
        loss = debias_loss(logits)
        loss.backward()
        assert loss.item() == pytest.approx(math.log(K), rel=1e-6)
        assert logits.grad is not None
        assert logits.grad.abs().max() < 1e-8


def test_debiasing_is_log_k_and_the_divergence_from_the_uniform_distribution():
    logits = 4 * torch.randn(20, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    divergence = sum((1 / 7) * (math.log(1 / 7) - F.log_softmax(logits, 1)[:, k]) for k in range(7))
    assert debias_loss(logits).item() == pytest.approx(math.log(7) + divergence.mean().item(), rel=1e-6)
    assert (divergence > 0).all()


def test_the_debiasing_gradient_pulls_every_probability_to_1_over_k():
    logits = torch.randn(4, 5, requires_grad=True)
    debias_loss(logits).backward()
    torch.testing.assert_close(logits.grad, (logits.softmax(1) - 1 / 5).detach() / 4)


def test_heads_of_zeros_cost_the_log_of_their_classes():
    order = zeroed(heads(8, "order"))
    assert order.order_loss(tokens()).item() == pytest.approx(2.0794, abs=1e-4)
    flow = zeroed(heads(8, "flow", labels=FlowLabels(up, 2)))
    clips = torch.randn(3, 3, 8, 4, 4)
    assert flow.flow_loss(tokens(), clips).item() == pytest.approx(2.1972, abs=1e-4)


@pytest.mark.parametrize(("K", "floor"), [(8, 0.8043), (9, 0.8377), (174, 1.5235)])
def test_smoothing_by_a_fifth_leaves_at_least_its_floor(K, floor):
    """The least of the smoothed cross entropy is the entropy of the smoothed label."""
    made = heads(K, "order", smoothing=0.2, width=K)
    with torch.no_grad():
        made.order.bias.zero_()
        made.order.weight.copy_(torch.eye(K))
    right = math.log((0.8 + 0.2 / K) / (0.2 / K))
    best = (right * torch.eye(K)).view(1, K, 1, K)
    assert made.order_loss(best).item() == pytest.approx(floor, abs=1e-4)
    for factor in (0.9, 1.1):
        assert made.order_loss(best * factor).item() > floor


def test_order_labels_are_the_places_of_frames_and_follow_them_when_shuffled():
    made = heads(3, "order", width=3)
    with torch.no_grad():
        made.order.bias.zero_()
        made.order.weight.copy_(20 * torch.eye(3))
    in_order = torch.eye(3).view(1, 3, 1, 3)  # a frame's token says which frame it is
    assert made.order_loss(in_order).item() < 1e-6
    order = torch.tensor([[2, 0, 1]])
    moved = in_order[:, order[0]]
    assert made.order_loss(moved).item() == pytest.approx(20, abs=1e-3)
    assert made.order_loss(moved, order).item() < 1e-6


def test_weights_multiply_the_losses():
    torch.manual_seed(0)
    made = TemporalHeads(6, 8, {"order": 0.25}, labels=None, smoothing=0.0)
    assert made.order_loss(tokens()).item() == pytest.approx(heads(8, "order").order_loss(tokens()).item() / 4)


def test_shuffled_frames_are_where_the_order_says():
    clips = torch.arange(2 * 4).view(2, 1, 4, 1, 1).float()
    order = torch.tensor([[2, 0, 3, 1], [1, 2, 3, 0]])
    assert shuffled(clips, order).flatten().tolist() == [2, 0, 3, 1, 5, 6, 7, 4]
    identity = torch.arange(4).expand(2, 4)
    assert torch.equal(shuffled(clips, identity), clips)


def test_every_order_but_that_of_time_is_as_likely():
    generator = torch.Generator().manual_seed(0)
    drawn = shuffling(3, 5000, generator, each=True)
    counts: dict[tuple[int, ...], int] = {}
    for row in drawn.tolist():
        counts[tuple(row)] = counts.get(tuple(row), 0) + 1
    assert len(counts) == 5
    assert (0, 1, 2) not in counts
    assert max(abs(count - 1000) for count in counts.values()) < 4 * 800**0.5
    shared = shuffling(8, 5, generator, each=False)
    assert (shared == shared[0]).all()
    assert sorted(shared[0].tolist()) == list(range(8))
    with pytest.raises(ValueError, match="one frame"):
        shuffling(1, 2, generator, each=True)


def one_frame_model() -> TimeSformer:
    """Each frame's tokens, whatever its place: neither attention over time nor temporal positions."""
    torch.manual_seed(0)
    made = create_backbone("timesformer_tiny", frames=6, side=12, zero_temporal=True)
    assert isinstance(made, TimeSformer)
    return made.eval()


@torch.no_grad()
def test_a_model_that_sees_one_frame_at_a_time_cannot_beat_chance_at_order():
    """Where a frame is at every place equally often, -mean log p(place | frame) >= log T for every head (Jensen)."""
    backbone, T = one_frame_model(), 6
    clips = torch.randn(2, 3, T, 12, 12, generator=torch.Generator().manual_seed(1))
    turned = torch.cat([clips.roll(turn, 2) for turn in range(T)])
    seen = backbone.tokens(turned)[1]
    for scale in (0.1, 1.0, 30.0):
        made = heads(T, "order", width=32)
        made.order.weight.mul_(scale)
        assert made.order_loss(seen).item() >= math.log(T) - 1e-6
    assert zeroed(made).order_loss(seen).item() == pytest.approx(math.log(T))  # type: ignore[operator]
    # With temporal positions the same head is not bound: here it reads them.
    backbone.time_embed.copy_(20 * F.one_hot(torch.arange(T), 32))
    seen = backbone.tokens(turned)[1]
    made = heads(T, "order", width=32)
    made.order.weight.copy_(50 * F.normalize((seen.mean((0, 2)) - seen.mean((0, 1, 2))), dim=1))
    made.order.bias.zero_()
    assert made.order_loss(seen).item() < 0.5 * math.log(T)


@torch.no_grad()
def test_copies_of_one_frame_tell_nothing_of_their_order():
    backbone = one_frame_model()
    still = torch.randn(2, 3, 1, 12, 12).expand(-1, -1, 6, -1, -1)
    made = heads(6, "order", width=32)
    assert made.order_loss(backbone.tokens(still)[1]).item() >= math.log(6) - 1e-6


def test_flow_attends_from_the_later_frame_to_the_one_before_with_one_head():
    made, seen = FlowHead(6), tokens()
    found = made(seen)
    assert found.shape == (3, 7, 4, 9)
    for b, t in ((0, 0), (2, 6)):
        query, key, value = made.query(seen[b, t + 1]), made.key(seen[b, t]), made.value(seen[b, t])
        share = (query @ key.T / math.sqrt(6)).softmax(dim=1)
        torch.testing.assert_close(found[b, t], made.classify(made.norm(made.project(share @ value))))


def test_directions_are_eighths_of_a_turn_from_right_by_way_of_down():
    angles = torch.arange(8) * 45.0 + 22.5
    flow = 3 * torch.stack((torch.cos(torch.deg2rad(angles)), torch.sin(torch.deg2rad(angles))))[None, :, None]
    assert directions(flow, 1, still=0.5).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    axes = torch.tensor([[1.0, 0, -1, 0, 1, -1, -1, 1], [0, 1.0, 0, -1, 1, 1, -1, -1]])[None, :, None]
    assert directions(axes, 1, still=0.5, bins="centred").tolist() == [[1, 3, 5, 7, 2, 4, 6, 8]]
    nearly = torch.tensor([[1.0, 1.0], [-1e-9, 1e-9]])[None, :, None]
    assert directions(nearly, 1, still=0.5).tolist() == [[8, 1]]
    assert directions(nearly, 1, still=0.5, bins="centred").tolist() == [[1, 1]]


def test_what_moves_less_than_the_threshold_stands_still():
    flow = torch.zeros(1, 2, 2, 4)
    flow[0, 0] = torch.tensor([[0.4, 0.4, 0.6, 0.6], [0.4, 0.4, 0.6, 0.6]])
    flow[0, 1] = 1e-3
    assert directions(flow, 2, still=0.5).tolist() == [[0, 1]]
    assert directions(flow[..., :2], 1, still=0.5).tolist() == [[0, 0, 0, 0]]


def test_the_published_threshold_is_a_hundredth_of_the_range_of_the_pair():
    lengths = torch.tensor([2.0, 2.0099, 2.0101, 3.0])
    flow = torch.stack((lengths, torch.full((4,), 1e-6)))[None, :, None]
    assert directions(flow, 1).tolist() == [[0, 0, 1, 1]]
    alike = torch.ones(1, 2, 1, 4)
    assert directions(alike, 1).tolist() == [[0, 0, 0, 0]]
    both = torch.cat((flow, 100 * flow))  # each pair has its own range
    assert directions(both, 1).tolist() == [[0, 0, 1, 1]] * 2


def test_a_patchs_direction_is_that_of_its_mean_flow():
    flow = torch.zeros(1, 2, 4, 4)
    flow[0, 0, :2, :2] = torch.tensor([[5.0, -1], [-1, -1]])
    flow[0, 1, :2, :2] = 1.0
    flow[0, 0, 2:, 2:] = -1.0
    flow[0, 1, 2:, 2:] = -2.0
    assert directions(flow, 2, still=0.5).tolist() == [[2, 0, 0, 6]]


def test_labels_are_of_pairs_of_frames_in_grey_values_times_128():
    heard: list[tuple[Tensor, Tensor]] = []

    def flow(first: Tensor, second: Tensor) -> Tensor:
        heard.append((first, second))
        return up(first, second)

    clips = torch.randn(2, 3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    found = FlowLabels(flow, 3, still=0.5)(clips)
    assert found.shape == (2, 3, 4)
    assert (found == 7).all()
    gray = 128 * (0.299 * clips[:, 0] + 0.587 * clips[:, 1] + 0.114 * clips[:, 2])
    torch.testing.assert_close(heard[0][0], gray[:, :3].flatten(0, 1))
    torch.testing.assert_close(heard[0][1], gray[:, 1:].flatten(0, 1))


def classified() -> ClassifiedVideo:
    torch.manual_seed(0)
    backbone = create_backbone("timesformer_tiny", frames=6, side=12)
    made = heads(6, "order", "flow", width=32, labels=FlowLabels(up, 6, still=0.5))
    return ClassifiedVideo(backbone, 5, temporal=made).eval()


def test_shuffling_by_the_identity_reproduces_the_plain_forward():
    model, clips = classified(), torch.randn(2, 3, 6, 12, 12)
    identity = torch.arange(6).expand(2, 6)
    logits, unknown, (order, again) = model(clips, identity, ("order", "order-shuffled", "debias"))
    torch.testing.assert_close(logits, model(clips))
    torch.testing.assert_close(unknown, logits)
    torch.testing.assert_close(order, again)
    turned = identity.flip(1)
    torch.testing.assert_close(model(clips, turned, ("debias",))[1], model(clips.flip(2)))


def test_classes_do_not_depend_on_the_temporal_heads():
    model, clips = classified(), torch.randn(2, 3, 6, 12, 12)
    before = model(clips)
    with torch.no_grad():
        for weight in model.temporal.parameters():
            weight.normal_()
    assert torch.equal(model(clips), before)


def test_every_loss_reaches_the_backbone():
    model, clips = classified(), torch.randn(2, 3, 6, 12, 12)
    order = shuffling(6, 2, torch.Generator().manual_seed(0), each=False)
    for names in (("order",), ("flow",), ("order-shuffled",), ("debias",)):
        model.zero_grad()
        _, unknown, terms = model(clips, order, names)
        (debias_loss(unknown) if unknown is not None else terms[0]).backward()
        assert model.backbone.patch_embed.proj.weight.grad.abs().sum() > 0, names
