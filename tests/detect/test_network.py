from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vtk_cli.detect.configurations import detector_config
from vtk_cli.detect.epff import projection
from vtk_cli.detect.network import FoldedDetector, _projected, build_detector, first_layers, parameter_count
from vtk_cli.detect.predictions import Outputs, PaddedImages
from vtk_cli.errors import UserError

Make = Callable[..., Any]
ALL = ("vidt-micro", "vidt-plus-micro", "vidt-neck-free-micro")
DECODING = ALL[:2]


def same(a: Outputs, b: Outputs) -> bool:
    pairs = zip(a.levels, b.levels, strict=True)
    return all(torch.equal(x.logits, y.logits) and torch.equal(x.boxes, y.boxes) for x, y in pairs)


@pytest.mark.parametrize("name", DECODING)
def test_a_fresh_detector_predicts_the_same_boxes_at_all_levels(name: str, padded: Make) -> None:
    torch.manual_seed(0)
    network = build_detector(detector_config(name, 5, decoder_layers=6)).eval()
    levels = network(padded((64, 96), (50, 70)), for_losses=True).levels
    assert len(levels) == 7
    for level in levels:
        torch.testing.assert_close(level.boxes, levels[0].boxes, atol=1e-6, rtol=0)
        torch.testing.assert_close(level.boxes[..., 2:], torch.full((2, 20, 2), 0.1192), atol=1e-4, rtol=0)
    references = network.constants().references
    torch.testing.assert_close(levels[0].boxes[..., :2], references.expand(2, -1, -1), atol=1e-5, rtol=0)


def test_in_training_and_for_losses_everything_comes_out(detector: Make, padded: Make) -> None:
    network = detector("vidt-plus-micro", mask_coefficients=6)
    batch = padded((64, 96), (50, 70))
    outputs = network(batch, for_losses=True)
    assert len(outputs.levels) == 3
    assert [tuple(each.shape) for each in outputs.token_logits] == [
        (2, 4, 1, 2),
        (2, 4, 2, 3),
        (2, 4, 4, 6),
        (2, 4, 8, 12),
    ]
    assert outputs.distil.decoder.shape == (3, 2, 7, 64)
    assert torch.equal(outputs.distil.decoder[0], outputs.distil.body)
    assert [each.shape[1] for each in outputs.distil.patches] == [2, 6, 24, 96]
    assert all(level.vectors.shape == (2, 7, 6) and level.iou_logits.shape == (2, 7) for level in outputs.levels)
    alone = network(batch)
    assert len(alone.levels) == 1
    assert alone.token_logits is None
    assert alone.distil is None
    assert torch.equal(alone.final.logits, outputs.final.logits)
    assert torch.equal(alone.final.vectors, outputs.final.vectors)
    assert len(network.train()(batch).levels) == 3


def test_without_auxiliary_losses_the_last_level_comes_alone(detector: Make, padded: Make) -> None:
    network = detector("vidt-micro", aux=False)
    assert len(network(padded((64, 64)), for_losses=True).levels) == 1


def test_each_level_starts_from_the_boxes_of_the_one_before(detector: Make, padded: Make) -> None:
    """Written out: box = sigmoid(offset + logit of the box before), and the layer samples around that box."""
    network, batch = detector("vidt-micro"), padded((64, 96), (50, 70))
    seen = []
    for layer in network.decoder:
        layer.cross_attn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    outputs = network(batch, for_losses=True)
    assert torch.equal(seen[0], outputs.levels[0].boxes)
    assert torch.equal(seen[1], outputs.levels[1].boxes)
    offset = network.heads.bbox_embed[2](outputs.distil.decoder[2])
    expected = (offset + torch.logit(outputs.levels[1].boxes, eps=1e-5)).sigmoid()
    torch.testing.assert_close(outputs.levels[2].boxes, expected)


def test_without_refinement_every_level_starts_from_the_first_points(detector: Make, padded: Make) -> None:
    network, batch = detector("vidt-micro", refine=False), padded((64, 96), (50, 70))
    seen = []
    for layer in network.decoder:
        layer.cross_attn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    outputs = network(batch, for_losses=True)
    first = network.constants().references.expand(2, -1, -1)
    assert all(torch.equal(references, first) for references in seen)
    offset = network.heads.bbox_embed[0](outputs.distil.decoder[2])
    expected = (offset[..., :2] + torch.logit(first, eps=1e-5)).sigmoid()
    torch.testing.assert_close(outputs.final.boxes[..., :2], expected)
    torch.testing.assert_close(outputs.final.boxes[..., 2:], offset[..., 2:].sigmoid())


@pytest.mark.parametrize("level", [0, 1, 2])
def test_boxes_of_a_level_teach_only_its_own_box_head(detector: Make, padded: Make, level: int) -> None:
    """References are not differentiated; only the first points learn, and from the body's boxes alone."""
    network = detector("vidt-micro")
    network(padded((64, 96)), for_losses=True).levels[level].boxes.sum().backward()
    for other, head in enumerate(network.heads.bbox_embed):
        learns = any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in head.parameters())
        assert learns == (other == level)
    assert (network.reference_points.weight.grad is not None) == (level == 0)


def test_without_refinement_every_level_teaches_the_first_points(detector: Make, padded: Make) -> None:
    network = detector("vidt-micro", refine=False)
    network(padded((64, 96)), for_losses=True).final.boxes.sum().backward()
    assert bool(network.reference_points.weight.grad.any())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("changes", [{}, {"aux": False}, {"refine": False}, {"refine": False, "aux": False}])
def test_every_parameter_that_learns_gets_a_gradient(
    name: str, changes: dict[str, bool], detector: Make, padded: Make
) -> None:
    """So that processes that train together have nothing to wait for."""
    network = detector(name, **changes, **({"mask_coefficients": 6} if "plus" in name else {})).train()
    outputs = network(padded((64, 96), (50, 70)))
    terms = [each for level in outputs.levels for each in vars(level).values() if each is not None]
    torch.stack([each.square().mean() for each in (*terms, *(outputs.token_logits or ()))]).sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("cross_stages", [(3,), (2, 3), ()])
def test_a_folded_detector_predicts_the_same_bits(
    name: str, cross_stages: tuple[int, ...], detector: Make, padded: Make
) -> None:
    network, batch = detector(name, cross_stages=cross_stages), padded((64, 96), (50, 70))
    folded = FoldedDetector(network)
    assert same(folded(batch), network(batch))


def test_a_folded_detector_does_not_ask_what_it_folded(detector: Make, padded: Make) -> None:
    network, batch = detector("vidt-micro"), padded((64, 96))
    folded, before = FoldedDetector(network), network(batch)
    with torch.no_grad():
        for parameter in (
            network.backbone.det_token,
            network.reference_points.weight,
            network.query_pos_proj[0].weight,
            network.backbone.layers[2].blocks[0].det_pos_linear.weight,
        ):
            parameter.zero_()
    assert same(folded(batch), before)
    assert not same(network(batch), before)


@pytest.mark.parametrize("name", DECODING)
def test_a_detector_cut_after_k_layers_is_the_kth_level_of_the_whole(name: str, detector: Make, padded: Make) -> None:
    network, batch = detector(name, decoder_layers=3), padded((64, 96), (50, 70))
    levels = network(batch, for_losses=True).levels
    for layers in range(4):
        cut = first_layers(network, layers)
        final = cut(batch).final
        assert torch.equal(final.boxes, levels[layers].boxes)
        assert torch.equal(final.logits, levels[layers].logits)
        assert len(cut.decoder) == layers
        assert len(cut.heads.class_embed) == layers + 1
        assert cut.backbone.det_token is network.backbone.det_token
    assert len(network.decoder) == 3


def test_a_detector_without_refinement_can_be_cut_too(detector: Make, padded: Make) -> None:
    network, batch = detector("vidt-micro", refine=False), padded((64, 96))
    levels = network(batch, for_losses=True).levels
    assert torch.equal(first_layers(network, 1)(batch).final.boxes, levels[1].boxes)


def test_layers_that_are_not_there_cannot_stay(detector: Make) -> None:
    with pytest.raises(UserError, match="give 0 to 2"):
        first_layers(detector("vidt-micro"), 3)
    with pytest.raises(UserError, match="no decoder"):
        first_layers(detector("vidt-neck-free-micro"), 1)


@pytest.mark.parametrize("name", ALL)
def test_predictions_follow_their_images_through_a_batch(name: str, detector: Make, padded: Make) -> None:
    network, batch = detector(name), padded((64, 96), (50, 70), (33, 96))
    together = network(batch).final
    order = [2, 0, 1]
    shuffled = network(PaddedImages(batch.images[order], batch.mask[order], batch.sizes[order])).final
    torch.testing.assert_close(shuffled.boxes, together.boxes[order], atol=1e-5, rtol=1e-5)
    alone = network(PaddedImages(batch.images[1:2], batch.mask[1:2], batch.sizes[1:2])).final
    torch.testing.assert_close(alone.logits[0], together.logits[1], atol=1e-4, rtol=1e-4)


def test_queries_are_coupled_by_the_group_norm(detector: Make, padded: Make) -> None:
    """Even those of the body: a token of one query moves the prediction of another at level 0."""
    network, batch = detector("vidt-micro", cross_stages=()), padded((64, 96))
    before = network(batch, for_losses=True).levels[0].logits
    tokens = network.backbone(batch.images, batch.mask).tokens.clone()
    tokens[:, 0] += 1
    moved = network.tgt_proj(tokens.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
    after = network.heads.level(0, moved, before[..., :1]).logits
    assert not torch.equal(after[:, 1], before[:, 1])


def test_the_neck_free_detector_has_a_column_for_no_object(detector: Make, padded: Make) -> None:
    outputs = detector("vidt-neck-free-micro", classes=3)(padded((64, 96), (50, 70)))
    assert outputs.final.logits.shape == (2, 7, 4)
    assert outputs.final.boxes.shape == (2, 7, 4)
    assert outputs.distil is None


def test_without_cross_attention_neck_free_boxes_are_the_same_for_every_image(detector: Make, padded: Make) -> None:
    network = detector("vidt-neck-free-micro", cross_stages=())
    outputs = [network(padded((64, 96), (50, 70), seed=seed)).final for seed in (0, 1)]
    assert torch.equal(outputs[0].boxes, outputs[1].boxes)
    assert torch.equal(outputs[0].boxes[0], outputs[0].boxes[1])
    seeing = detector("vidt-neck-free-micro")(padded((64, 96), (50, 70))).final
    assert not torch.equal(seeing.boxes[0], seeing.boxes[1])


def test_padding_by_the_batch_leaks_only_through_norms_and_windows(detector: Make, padded: Make) -> None:
    """Where no window is shifted and the necks' norms are constant, padding by whole windows changes nothing."""
    network = detector("vidt-micro")
    for level in network.neck.levels:
        level[1] = torch.nn.Identity()
    tight, loose = network(padded((128, 128))).final, network(padded((128, 128), extent=(256, 384))).final
    torch.testing.assert_close(loose.boxes, tight.boxes, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(loose.logits, tight.logits, atol=2e-3, rtol=1e-3)


def test_autocast_keeps_boxes_and_logits_in_float32(detector: Make, padded: Make) -> None:
    network, batch = detector("vidt-plus-micro"), padded((64, 96), (50, 70))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = network.train()(batch)
    assert all(level.boxes.dtype == level.logits.dtype == torch.float32 for level in outputs.levels)
    assert all(each.dtype == torch.float32 for each in outputs.token_logits)
    sum(level.logits.sum() + level.boxes.sum() for level in outputs.levels).backward()
    exact = network.eval()(batch).final
    torch.testing.assert_close(outputs.final.boxes, exact.boxes, atol=0.1, rtol=0.1)


def test_micro_detectors_have_the_measured_sizes() -> None:
    """0.562M for ViDT; 0.644M for ViDT+ with the 8,608 dead weights of its fusion."""
    assert parameter_count(build_detector(detector_config("vidt-micro", 10))) == 562_056
    assert parameter_count(build_detector(detector_config("vidt-plus-micro", 10))) == 644_438 - 8_608


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("vidt-nano", 75.5e9),
        ("vidt-tiny", 233e9),
        ("vidt-small", 426e9),
        ("vidt-base", 736e9),
        ("vidt-plus-nano", 92.6e9),
        ("vidt-plus-tiny", 260e9),
        ("vidt-plus-small", 464e9),
        ("vidt-plus-base", 791e9),
    ],
)
def test_the_work_is_that_of_the_published_modules_without_what_they_throw_away(name: str, published: float) -> None:
    """2 x multiply-adds of matrices and convolutions at 800 x 1328, and what the published modules do in vain.

    They project padded cells after attention, make queries of the patches that DET tokens look at, merge the final DET
    tokens, and move every box twice.
    """
    config = detector_config(name, 91).box_only()
    with torch.device("meta"):
        network = build_detector(config).eval().requires_grad_(requires_grad=False)
        batch = PaddedImages(
            torch.zeros(1, 3, 800, 1328), torch.zeros(1, 800, 1328, dtype=torch.bool), torch.zeros(1, 2)
        )
        with FlopCounterMode(display=False) as counter:
            network(batch, for_losses=True)
    in_vain = 0
    for stage, (width, depth) in enumerate(zip(config.backbone.widths, config.backbone.depths, strict=True)):
        height, length = (-(-side // (4 * 2**stage)) for side in (800, 1328))
        padded = (height + -height % 7) * (length + -length % 7)
        in_vain += depth * 2 * (padded - height * length) * width**2
        if stage == 3:
            in_vain += depth * 2 * height * length * width**2 + 2 * config.queries * 4 * width * 256
    in_vain += 6 * 2 * config.queries * (256 * 256 * 2 + 256 * 4)
    assert counter.get_total_flops() + in_vain == pytest.approx(published, rel=2e-3)


def test_a_projection_of_tokens_in_training_is_that_of_evaluation_but_for_rounding() -> None:
    torch.manual_seed(0)
    layer = projection(128, 64, 16)
    tokens = torch.randn(16, 40, 128).requires_grad_()
    weights = torch.randn(16, 40, 64)
    results = []
    for training in (True, False):
        made = _projected(layer.train(training), tokens)
        results.append((made, *torch.autograd.grad((made * weights).sum(), (tokens, *layer.parameters()))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.detach().abs().amax()))
