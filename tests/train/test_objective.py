from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.loop import Plan, fit
from vtk_cli.engine.update import Clock
from vtk_cli.errors import JobError, UserError
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.train.classifier import Classifier
from vtk_cli.train.losses import criterion, point_loss, relaxed_target
from vtk_cli.train.mixing import Mixer
from vtk_cli.train.objective import Objective, PointTerm, SubTerm
from vtk_cli.train.sub import SubRatio, choose_sub

PIXELS = PixelConfig(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.5))
CLASSES, SAMPLES = 5, 6
CLOCK = Clock(epoch=0, step=3, shared_seed=11)
Batch = tuple[Tensor, ...]


def vit(**arguments: Any) -> Any:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2, num_classes=CLASSES, **arguments
    )


def classifier(network: nn.Module | None = None, *, points: int = 0, method: str = "mask", ratio: float = 0.5) -> Any:
    network = vit() if network is None else network
    sub = None if method == "none" else choose_sub(network, method, "auto", ratio, 32, console=Console())
    return Classifier(network, points=points, sub=sub, image_size=32).train()


def objective(
    model: Any, *, mixer: Mixer | None = None, fused: bool = False, target: Any = "relaxed", **rest: Any
) -> Any:
    sub = None if model.sub is None else SubTerm(model.sub, target=target, fused=fused)
    return Objective(PIXELS, mixer or Mixer(CLASSES), classes=CLASSES, sub=sub, **rest)


def batch(samples: int = SAMPLES, seed: int = 0, points: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (samples, 3, 32, 32), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, CLASSES, (samples,), generator=generator)
    if not points:
        return torch.arange(samples), images, targets
    places = torch.rand(samples, 1, 2, generator=generator)
    return torch.arange(samples), images, targets, places, torch.rand(samples, 1, generator=generator) < 0.7


def losses(model: Any, loss: Any, data: Batch, clock: Clock = CLOCK) -> list[float]:
    """Each yielded loss; its gradient is added to the model's."""
    values = []
    for value in loss(model, data, clock):
        value.backward()
        values.append(value.item())
    return values


def gradients(model: Any, run: Callable[[], object]) -> dict[str, Tensor]:
    model.zero_grad()
    run()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], **tolerance: float) -> None:
    assert set(one) == set(other)
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, other[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_the_losses_are_halves_of_the_papers(kind: Any) -> None:
    model = classifier()
    _, images, targets = batch()
    pixels = (images.float() / 255 - torch.tensor(PIXELS.mean).view(3, 1, 1)) / torch.tensor(PIXELS.std).view(3, 1, 1)
    draw = model.sub.draw(SAMPLES, CLOCK.seed, CLOCK.step, torch.device("cpu"))
    label = nn.functional.one_hot(targets, CLASSES).float()
    main, sub = model(pixels)[0], model(pixels, draw)[0]
    expected = [criterion(main, label, kind) / 2, criterion(sub, relaxed_target(main, kind), kind) / 2]
    found = losses(model, objective(model, kind=kind), batch())
    assert found == pytest.approx([value.item() for value in expected], abs=1e-6)


@pytest.mark.parametrize("method", ["mask", "droppath", "dropout"])
@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_at_ratio_0_the_sub_loss_is_the_targets_own_entropy_and_has_no_gradient(method: str, kind: Any) -> None:
    model = classifier(method=method, ratio=0.0)
    loss = objective(model, kind=kind)
    main, sub = loss(model, batch(), CLOCK), None
    for place, value in enumerate(main):
        model.zero_grad()
        value.backward()
        sub = value.item() if place else sub
    largest = max(weight.grad.abs().max().item() for weight in model.parameters())
    assert largest < 1e-6
    taught = relaxed_target(model(loss.normalised(batch()[1]))[0], kind)
    logits = taught.log() if kind == "ce" else taught.logit()
    assert sub == pytest.approx(criterion(logits, taught, kind).item() / 2, abs=1e-5)


@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_the_sub_losss_gradient_is_that_of_a_constant_target(kind: Any) -> None:
    model = classifier()
    loss = objective(model, kind=kind)
    pixels = loss.normalised(batch()[1])
    constant = relaxed_target(model(pixels)[0], kind).clone()
    draw = model.sub.draw(SAMPLES, CLOCK.seed, CLOCK.step, torch.device("cpu"))

    def second_alone() -> None:
        for place, value in enumerate(loss(model, batch(), CLOCK)):
            if place == 1:
                value.backward()

    found = gradients(model, second_alone)
    expected = gradients(model, (criterion(model(pixels, draw)[0], constant, kind) / 2).backward)
    assert_close(found, expected, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("method", ["mask", "droppath", "dropout"])
@pytest.mark.parametrize("points", [0, 1])
def test_two_backward_passes_give_the_gradient_of_one(method: str, points: int) -> None:
    found = []
    for fused in (False, True):
        model = classifier(points=points, method=method)
        if points:
            with torch.no_grad():
                model.points.weight.add_(0.1)
        term = PointTerm(sub="label") if points else None
        loss = objective(model, fused=fused, mixer=Mixer(CLASSES, mixup_alpha=0.8), points=term)
        micro = [batch(seed=seed, points=bool(points)) for seed in (0, 1)]

        def run(model: Any = model, loss: Any = loss, micro: list[Batch] = micro) -> None:
            torch.manual_seed(5)
            for place, data in enumerate(micro):
                for value in loss(model, data, Clock(0, 3, 11 + place)):
                    (value / 2).backward()

        found.append(gradients(model, run))
    assert_close(*found, atol=1e-6, rtol=1e-4)


def test_a_fused_step_yields_once_and_says_so() -> None:
    model = classifier()
    separate, fused = objective(model), objective(model, fused=True)
    assert len(losses(model, fused, batch())) == 1 == len(fused.branches)
    assert len(losses(model, separate, batch())) == 2 == len(separate.branches)
    assert losses(model, fused, batch())[0] == pytest.approx(sum(losses(model, separate, batch())), abs=1e-6)


@pytest.mark.parametrize(("target", "weight"), [("relaxed", 1.0), ("mix", 0.5), ("label", 0.0)])
def test_the_sub_model_is_taught_by_the_model_the_label_or_both(target: str, weight: float) -> None:
    model = classifier()
    loss = objective(model, target=target)
    pixels = loss.normalised(batch()[1])
    draw = model.sub.draw(SAMPLES, CLOCK.seed, CLOCK.step, torch.device("cpu"))
    label = nn.functional.one_hot(batch()[2], CLASSES).float()
    taught = weight * relaxed_target(model(pixels)[0], "ce") + (1 - weight) * label
    expected = criterion(model(pixels, draw)[0], taught, "ce").item() / 2
    assert losses(model, loss, batch())[1] == pytest.approx(expected, abs=1e-6)


def test_mixing_mixes_the_label_and_the_sub_model_sees_the_same_mixture() -> None:
    model, data = classifier(), batch()
    mixer = Mixer(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0)
    loss = objective(model, mixer=mixer)
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    losses(model, loss, data)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], loss.normalised(data[1]))


def test_mixing_is_repeated_by_the_clock() -> None:
    model = classifier(method="none")
    loss = objective(model, mixer=Mixer(CLASSES, mixup_alpha=0.8))
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    for clock in (CLOCK, CLOCK, Clock(0, 3, 12)):
        losses(model, loss, batch(), clock)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_a_changing_ratio_follows_the_updates() -> None:
    network = vit()
    sub = choose_sub(network, "mask", "auto", SubRatio(0.25, 0.75), 32, console=Console())
    model: Any = Classifier(network, sub=sub, image_size=32).train()
    loss = Objective(PIXELS, Mixer(CLASSES), classes=CLASSES, sub=SubTerm(sub, steps=10))
    entered: list[int] = []
    network.blocks[0].register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0].shape[1] - 1))
    for step in (0, 5, 10):
        losses(model, loss, batch(), Clock(0, step, 1))
    assert entered[1::2] == [12, 8, 4]


def test_binarised_targets_count_every_class_of_the_mixture_fully_and_the_taught_ones_do_not() -> None:
    model, data = classifier(), batch(4)
    data = data[0], data[1], torch.tensor([0, 1, 2, 3])
    found = losses(model, objective(model, kind="bce", binarize=True, mixer=Mixer(CLASSES, mixup_alpha=0.8)), data)
    loss = objective(model, kind="bce", mixer=Mixer(CLASSES, mixup_alpha=0.8))
    seen: list[Tensor] = []
    handle = model.register_forward_hook(lambda module, inputs, output: seen.append(output[0].detach()))
    soft = losses(model, loss, data)
    handle.remove()
    both = torch.zeros(4, CLASSES)
    both[range(4), [0, 1, 2, 3]] = both[range(4), [3, 2, 1, 0]] = 1
    assert found[0] == pytest.approx(criterion(seen[0], both, "bce").item() / 2, abs=1e-6)
    assert found[0] != pytest.approx(soft[0], abs=1e-4)
    assert found[1] == pytest.approx(soft[1], abs=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "ce", "binarize": True}, "--binarize goes with binary cross-entropy only"),
        ({"kind": "bce", "binarize": True, "smoothing": 0.1}, "would turn all classes on"),
    ],
)
def test_binarising_where_it_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Objective(PIXELS, Mixer(CLASSES), classes=CLASSES, **arguments)


def test_several_labels_a_sample_are_learned() -> None:
    model = classifier(points=CLASSES)
    generator = torch.Generator().manual_seed(3)
    hot = torch.randint(0, 2, (SAMPLES, CLASSES), generator=generator).float()
    places = torch.rand(SAMPLES, CLASSES, 2, generator=generator)
    data = torch.arange(SAMPLES), batch()[1], hot, places, hot.bool()
    loss = objective(
        model, kind="bce", mixer=Mixer(CLASSES, multi_label=True), points=PointTerm(weight=10, scale=None, sub="label")
    )
    logits, points = model(loss.normalised(data[1]))
    regression = point_loss(points, places, hot)
    expected = criterion(logits, hot, "bce") + 10 / CLASSES * regression
    found = losses(model, loss, data)
    assert found[0] == pytest.approx(expected.item() / 2, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "scale", "factor"), [("ce", None, 1.0), ("bce", None, 1 / CLASSES), ("bce", 0.5, 0.5)]
)
def test_the_points_weight_suits_the_classification_loss(kind: Any, scale: float | None, factor: float) -> None:
    model, data = classifier(points=1, method="none"), batch(points=True)
    with_points = objective(model, kind=kind, points=PointTerm(weight=4.0, scale=scale))
    without = objective(model, kind=kind, points=PointTerm(weight=0.0))
    predicted = model(with_points.normalised(data[1]))[1]
    difference = losses(model, with_points, data)[0] - losses(model, without, data)[0]
    assert difference == pytest.approx(4 * factor * point_loss(predicted, data[3], data[4]).item(), abs=1e-6)


def test_after_mixup_both_points_count_by_their_share() -> None:
    model, data = classifier(points=1, method="none"), batch(points=True)
    mixer = Mixer(CLASSES, mixup_alpha=0.8)
    weighted, without = (objective(model, mixer=mixer, points=PointTerm(weight=weight)) for weight in (1.0, 0.0))
    seen: list[Any] = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(output))
    difference = losses(model, weighted, data)[0] - losses(model, without, data)[0]
    predicted, (places, present) = seen[0][1], data[3:]
    normal = weighted.normalised(data[1])
    mixture: list[Tensor] = []
    model.register_forward_pre_hook(lambda module, inputs: mixture.append(inputs[0].clone()))
    losses(model, weighted, data)
    share = ((mixture[0] - normal.flip(0)) / (normal - normal.flip(0)))[0, 0, 0, 0].item()
    expected = share * point_loss(predicted, places, present)
    expected += (1 - share) * point_loss(predicted, places.flip(0), present.flip(0))
    assert 0 < share < 1
    assert difference == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("sub", ["none", "label", "relaxed"])
def test_the_sub_models_points_are_taught_as_asked(sub: Any) -> None:
    model, data = classifier(points=1), batch(points=True)
    with torch.no_grad():
        model.points.weight.normal_(std=0.1)
    loss = objective(model, points=PointTerm(weight=2.0, sub=sub))
    pixels = loss.normalised(data[1])
    draw = model.sub.draw(SAMPLES, CLOCK.seed, CLOCK.step, torch.device("cpu"))
    (logits, points), (dropped, guessed) = model(pixels), model(pixels, draw)
    plain = criterion(dropped, relaxed_target(logits, "ce"), "ce")
    target = {"none": guessed, "label": data[3], "relaxed": points}[sub]
    expected = (plain + 2 * point_loss(guessed, target, data[4])) / 2
    assert losses(model, loss, data)[1] == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("points", [True, False])
def test_every_parameter_takes_part_in_the_last_backward_pass(points: bool) -> None:
    model = classifier(
        timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=32, window_size=4, depths=(1, 1), num_classes=CLASSES
        ),
        points=1,
    )
    loss = objective(model, points=PointTerm(sub="none"))
    for value in loss(model, batch(points=points), CLOCK):
        model.zero_grad()
        value.backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_under_autocast_the_losses_are_made_in_float32(precision: torch.dtype) -> None:
    model = classifier(points=1)
    loss = objective(model, points=PointTerm())
    with torch.autocast("cpu", precision):
        found = list(loss(model, batch(points=True), CLOCK))
    assert [value.dtype for value in found] == [torch.float32, torch.float32]


def test_erasing_is_repeated_by_the_clock_and_draws_from_no_generator() -> None:
    model = classifier(method="none")
    loss = objective(model, erasing=1.0)
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    state = torch.get_rng_state()
    for clock in (CLOCK, CLOCK, Clock(0, 4, 12)):
        losses(model, loss, batch(), clock)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    changed = (seen[0] != loss.normalised(batch()[1])).any(dim=1).flatten(1).float().mean(dim=1)
    assert bool(((changed > 0.01) & (changed < 0.5)).all())


def test_the_main_branch_is_the_same_with_and_without_a_sub_model() -> None:
    network = vit(drop_path_rate=0.3, proj_drop_rate=0.1)
    found = []
    for method in ("mask", "none"):
        model = classifier(copy.deepcopy(network), method=method)
        torch.manual_seed(1)
        loss = objective(model, mixer=Mixer(CLASSES, mixup_alpha=0.8), erasing=0.5)
        seen: list[Tensor] = []
        model.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output[0]))
        next(loss(model, batch(), CLOCK))
        found.append(seen[0])
    assert torch.equal(*found)


def trained(points: int, weight: float) -> dict[str, Tensor]:
    """A short training without sub-model; with a point head if `points`."""
    model = classifier(vit(drop_path_rate=0.2), points=points, method="none")
    data = batch(8, points=True)
    tensors = data[1:] if points else data[1:3]
    torch.manual_seed(2)
    fit(
        model,
        objective(model, mixer=Mixer(CLASSES, mixup_alpha=0.8), points=PointTerm(weight=weight) if points else None),
        TensorBatches(*tensors, batch_size=4, seed=0),
        torch.optim.AdamW(model.parameters(), lr=1e-3),
        plan=Plan(epochs=2),
        device=torch.device("cpu"),
        seed=0,
        evaluate=None,
        checkpoints=None,
        metrics=None,
        console=Console(quiet=True),
    )
    return dict(model.network.state_dict())


def test_points_without_weight_reproduce_plain_training_bit_for_bit() -> None:
    plain, idle, active = trained(0, 0.0), trained(1, 0.0), trained(1, 50.0)
    assert all(torch.equal(plain[name], idle[name]) for name in plain)
    assert not all(torch.equal(plain[name], active[name]) for name in plain)


def test_a_loss_that_is_not_finite_is_told_with_its_branch() -> None:
    model = classifier()

    def spoil(module: Any, images: Any, keywords: Any, output: Any) -> Any:
        return output if len(images) == 1 else (output[0] * torch.nan, output[1])

    model.register_forward_hook(spoil, with_kwargs=True)
    with pytest.raises(JobError, match="sub-branch"):
        fit(
            model,
            objective(model),
            TensorBatches(*batch(4)[1:], batch_size=4, seed=0),
            torch.optim.SGD(model.parameters(), lr=1e-3),
            plan=Plan(epochs=1),
            device=torch.device("cpu"),
            seed=0,
            evaluate=None,
            checkpoints=None,
            metrics=None,
            console=Console(quiet=True),
        )


def test_gradient_norms_are_those_of_the_two_losses_on_the_weights_they_share() -> None:
    model, data = classifier(points=1), batch(points=True)
    with torch.no_grad():
        model.points.weight.normal_(std=0.1)
    loss = objective(model, points=PointTerm(weight=3.0))
    found = loss.gradient_norms(model, data, CLOCK)
    pixels = loss.normalised(data[1])
    shared = [weight for name, weight in model.network.named_parameters() if not name.startswith("head.")]

    def norm(value: Tensor) -> float:
        return torch.cat([one.flatten() for one in torch.autograd.grad(value, shared)]).norm().item()

    logits, _ = model(pixels)
    label = nn.functional.one_hot(data[2], CLASSES).float()
    assert found["class"] == pytest.approx(norm(criterion(logits, label, "ce")), rel=1e-4)
    assert found["points"] == pytest.approx(norm(3 * point_loss(model(pixels)[1], data[3], data[4])), rel=1e-4)
    assert all(weight.grad is None for weight in model.parameters())


def test_images_are_handed_over_in_the_memory_format_that_is_asked_for() -> None:
    model = classifier(method="none")
    images = objective(model, channels_last=True).normalised(batch()[1])
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images, objective(model).normalised(batch()[1]))


def test_normalising_changes_no_image_of_the_batch() -> None:
    images = batch()[1].float()
    before = images.clone()
    objective(classifier(method="none")).normalised(images)
    assert torch.equal(images, before)
