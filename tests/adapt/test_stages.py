"""The stages: what each changes and what it leaves, what it may see, and that it goes on exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.adapt.tiny_domains import (
    QUIET,
    SHORT,
    SIDE,
    SOURCE_DOMAIN,
    TARGET_DOMAIN,
    changed,
    domain,
    here,
    learner,
    trained,
)
from vtk_cli.adapt.domain_norm import SOURCE, TARGET, norm_layers
from vtk_cli.adapt.images import MemoryImages
from vtk_cli.adapt.learner import Learner, build_learner, load_learner, save_learner
from vtk_cli.adapt.measuring import accuracy, network_outputs
from vtk_cli.adapt.method import Method, SourceTraining
from vtk_cli.adapt.networks import build_network
from vtk_cli.adapt.objectives import LabelledObjective, UnlabelledObjective
from vtk_cli.adapt.source_stage import begin_target, train_source
from vtk_cli.adapt.stages import (
    Labelled,
    StageOutcome,
    adapt_jointly,
    adapt_to_labelled,
    adapt_to_unlabelled,
)
from vtk_cli.console import Console
from vtk_cli.errors import UserError

ASKED = (3, 7, 11, 19, 23)
REST = tuple(row for row in range(len(TARGET_DOMAIN.images)) if row not in ASKED)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def labelled_stage(one: Learner, method: Method = SHORT, *, rows: tuple[int, ...] = ASKED, **further: Any) -> Any:
    given = {"round_number": 1, "asked": 5, "method": method, "place": None, "circumstances": here()} | further
    return adapt_to_labelled(one, TARGET_DOMAIN.images, TARGET_DOMAIN.labelled(rows), **given)


def unlabelled_stage(
    one: Learner,
    method: Method = SHORT,
    *,
    rows: tuple[int, ...] = REST,
    asked: tuple[int, ...] = ASKED,
    **further: Any,
) -> StageOutcome | None:
    labelled = TARGET_DOMAIN.labelled(asked)
    given = {"round_number": 1, "labelled": labelled, "method": method, "place": None, "circumstances": here()}
    return adapt_to_unlabelled(one, TARGET_DOMAIN.images, rows, **(given | further))


def on_target(one: Learner, rows: tuple[int, ...] = REST) -> float:
    found = network_outputs(one.network, TARGET_DOMAIN.images, rows, batch_size=16)
    return accuracy(found.logits, TARGET_DOMAIN.labels[list(rows)]) or 0.0


@pytest.mark.parametrize("stage", [labelled_stage, unlabelled_stage])
def test_the_classifier_and_the_normalisation_of_the_source_stay_bit_for_bit(stage: Callable[[Learner], Any]) -> None:
    one = learner()
    head = state(one.network.head)
    source = [state(layer) for layer in norm_layers(one.network, SOURCE)]
    rest = state(one.network.backbone)
    stage(one)
    assert same(head, state(one.network.head))
    assert all(same(old, state(new)) for old, new in zip(source, norm_layers(one.network, SOURCE), strict=True))
    assert not same(rest, state(one.network.backbone))


def test_with_a_discriminator_the_source_reaches_its_statistics_and_nothing_of_the_network() -> None:
    method = changed(adversarial=1.0)
    one = learner(method)
    assert one.parts.discriminator is not None
    head, judge = state(one.network.head), state(one.parts.discriminator)
    (source,) = norm_layers(nn.ModuleList([one.network.norm]), SOURCE)
    mean, weight = source.running_mean.clone(), source.weight.clone()
    unlabelled_stage(one, method, source=SOURCE_DOMAIN.images)
    assert same(head, state(one.network.head))
    assert not same(judge, state(one.parts.discriminator))
    assert not torch.equal(mean, source.running_mean)
    assert torch.equal(weight, source.weight)


def test_the_loss_predictor_rests_in_the_second_half_of_the_unlabelled_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    one, seen = learner(), []
    losses = UnlabelledObjective.__call__

    def watched(self: Any, *given: Any) -> Tensor:
        seen.append(state(one.parts.predictor))
        return losses(self, *given)

    monkeypatch.setattr(UnlabelledObjective, "__call__", watched)
    unlabelled_stage(one)
    assert len(seen) == 8
    moved = [not same(seen[step], seen[step + 1]) for step in range(7)]
    assert moved == [True] * 4 + [False] * 3
    assert same(seen[-1], state(one.parts.predictor))


@pytest.mark.parametrize("stage", [labelled_stage, unlabelled_stage])
def test_the_network_is_the_same_with_the_loss_predictor_on_and_off(stage: Callable[..., Any]) -> None:
    on, off = learner(), learner()
    resting = state(off.parts.predictor)
    stage(on)
    stage(off, changed(lpm_weight=0.0))
    assert same(state(on.network), state(off.network))
    assert same(resting, state(off.parts.predictor))
    assert not same(resting, state(on.parts.predictor))


def test_the_unlabelled_stage_uses_no_label_but_those_that_were_bought() -> None:
    one, other = learner(), learner()
    unlabelled_stage(one)
    poisoned = TARGET_DOMAIN.labels.clone()
    poisoned[list(REST)] = 99  # a label that cannot be used without an error
    labelled = Labelled(ASKED, poisoned[list(ASKED)])
    unlabelled_stage(other, labelled=labelled)
    assert same(state(one.parts), state(other.parts))


def test_without_replay_the_labels_change_nothing() -> None:
    one, other = learner(), learner()
    faithful = changed(replay=0.0)
    unlabelled_stage(one, faithful)
    wrong = Labelled(ASKED, (TARGET_DOMAIN.labels[list(ASKED)] + 1) % 3)
    unlabelled_stage(other, faithful, labelled=wrong)
    assert same(state(one.parts), state(other.parts))
    unlabelled_stage(replayed := learner(), labelled=wrong)
    assert not same(state(one.network), state(replayed.network))


def test_pseudo_labels_are_the_predictions_under_the_targets_normalisation() -> None:
    one = learner()
    found = network_outputs(one.network, TARGET_DOMAIN.images, REST, domain=TARGET, batch_size=16)
    outcome = unlabelled_stage(one, changed(unlabelled_steps=1))
    assert outcome is not None
    assert outcome.pseudo_labels is not None
    assert torch.equal(outcome.pseudo_labels, found.logits.argmax(1))
    assert outcome.agreement is None
    later = unlabelled_stage(one)
    assert later is not None
    assert later.agreement is not None
    assert 0 <= later.agreement <= 1


def test_all_pseudo_labels_or_none_at_first_are_what_the_settings_say() -> None:
    plain, kept, half = learner(), learner(), learner()
    unlabelled_stage(plain)
    unlabelled_stage(kept, changed(pl_keep=1.0))
    unlabelled_stage(half, changed(pl_keep=0.5))
    assert same(state(plain.parts), state(kept.parts))
    assert not same(state(plain.network), state(half.network))
    early = changed(unlabelled_steps=2, pl_refreshes=1)
    unlabelled_stage(late := learner(), changed(early, pl_late=True))
    unlabelled_stage(without := learner(), changed(early, pl_weight=0.0))
    assert same(state(late.network), state(without.network))


def test_confusion_takes_the_place_of_information_maximisation_in_round_0_alone() -> None:
    plain, confused = learner(), learner()
    unlabelled_stage(plain, round_number=0, labelled=None)
    unlabelled_stage(confused, changed(uda="mcc"), round_number=0, labelled=None)
    assert not same(state(plain.network), state(confused.network))
    unlabelled_stage(plain := learner())
    unlabelled_stage(confused := learner(), changed(uda="mcc"))
    assert same(state(plain.network), state(confused.network))
    before = state((still := learner()).parts)
    assert unlabelled_stage(still, changed(uda="none"), round_number=0, labelled=None) is None
    assert same(before, state(still.parts))


@pytest.mark.parametrize("prior", ["L", "none"])
def test_another_prior_is_another_training(prior: str) -> None:
    unlabelled_stage(plain := learner())
    unlabelled_stage(other := learner(), changed(im_prior=prior))
    assert not same(state(plain.network), state(other.network))


def test_an_exhausted_pool_leaves_the_unlabelled_stage_out_and_a_single_image_is_refused() -> None:
    before = state((one := learner()).parts)
    assert unlabelled_stage(one, rows=()) is None
    assert same(before, state(one.parts))
    with pytest.raises(UserError, match="single image"):
        unlabelled_stage(one, rows=(4,))


def test_no_label_leaves_the_stages_that_need_one_out() -> None:
    one = learner()
    before = state(one.parts)
    assert labelled_stage(one, rows=()) is None
    assert joint_stage(one, rows=()) is None
    assert same(before, state(one.parts))


def test_a_single_labelled_image_can_be_learnt() -> None:
    one = learner()
    outcome = labelled_stage(one, rows=(3,))
    assert outcome.steps == 4
    assert unlabelled_stage(one, asked=(3,)) is not None


def test_a_discriminator_without_source_is_refused() -> None:
    method = changed(adversarial=1.0)
    with pytest.raises(UserError, match="needs images of the source"):
        unlabelled_stage(learner(method), method)


def test_more_classes_than_a_batch_holds_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    unlabelled_stage(learner(), changed(batch_size=2), circumstances=replace(here(), console=Console()))
    assert "3 classes do not all fit in a batch of 2" in " ".join(capsys.readouterr().err.split())


def test_lengths_follow_the_published_rules_where_no_number_is_given() -> None:
    rules = changed(labelled_steps=None, unlabelled_steps=None, joint_steps=None)
    assert labelled_stage(learner(), rules, round_number=2, asked=2).steps == (1 + 2) * (2 + 2)  # 5 images, by 2
    free, bound = unlabelled_stage(learner(), rules), unlabelled_stage(learner(), rules, source=SOURCE_DOMAIN.images)
    assert free is not None
    assert bound is not None
    assert (free.steps, bound.steps) == (2 * 2, 2 * 3)  # 35 images in whole batches of 16; 48 of the source
    first = unlabelled_stage(learner(), rules, round_number=0, labelled=None)
    assert first is not None
    assert first.steps == 2 * 3  # before any label, what is left over too
    assert joint_stage(learner(), rules).steps == 2 * 3


def joint_stage(one: Learner, method: Method = SHORT, *, rows: tuple[int, ...] = ASKED, **further: Any) -> Any:
    given = {"round_number": 1, "method": method, "place": None, "circumstances": here()} | further
    target = TARGET_DOMAIN.labelled(rows)
    source = SOURCE_DOMAIN.images, SOURCE_DOMAIN.labels
    return adapt_jointly(one, *source, TARGET_DOMAIN.images, target, **given)


def test_the_joint_baseline_trains_the_classifier_and_both_domains() -> None:
    method = changed(train_head=True)
    one = learner(method)
    head = state(one.network.head)
    norms = [state(norm_layers(one.network, number)[0]) for number in (SOURCE, TARGET)]
    outcome = joint_stage(one, method)
    assert outcome.steps == 4
    assert not same(head, state(one.network.head))
    assert not any(same(norms[number], state(norm_layers(one.network, number)[0])) for number in (SOURCE, TARGET))


def test_optimiser_and_modules_go_on_from_stage_to_stage_and_rates_start_again() -> None:
    one = learner()
    labelled_stage(one)
    momenta = [entry["momentum_buffer"].abs().sum() for entry in one.optimizer.state.values()]
    assert momenta
    assert one.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 11**-0.75)
    rates: list[float] = []
    one.optimizer.register_step_pre_hook(lambda made, *_: rates.append(made.param_groups[1]["lr"]))
    unlabelled_stage(one)
    assert rates[0] == 0.05
    assert rates == sorted(rates, reverse=True)


class Stop(Exception):
    """Ends a stage in its middle, as a kill does."""


@pytest.mark.parametrize("at", [1, 3, 6])
def test_a_stage_that_was_killed_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    method = changed(adversarial=1.0, pl_keep=0.5)

    def adapt(one: Learner, place: Path | None) -> StageOutcome | None:
        labelled_stage(one, method, place=place and place / "labelled", circumstances=here(1))
        rest = place and place / "unlabelled"
        return unlabelled_stage(one, method, place=rest, circumstances=here(1), source=SOURCE_DOMAIN.images)

    whole = learner(method)
    expected = adapt(whole, None)
    for kind, last in ((LabelledObjective, min(at, 3)), (UnlabelledObjective, at)):
        with monkeypatch.context() as patch:
            losses = kind.__call__

            def killed(self: Any, model: Any, batch: Any, clock: Any, losses: Any = losses, last: int = last) -> Tensor:
                if clock.step == last:
                    raise Stop
                return losses(self, model, batch, clock)

            patch.setattr(kind, "__call__", killed)
            with pytest.raises(Stop):
                adapt(learner(method), tmp_path)
    resumed = learner(method)
    outcome = adapt(resumed, tmp_path)
    assert same(state(whole.parts), state(resumed.parts))
    assert expected is not None
    assert outcome is not None
    assert (outcome.loss, outcome.agreement) == (expected.loss, expected.agreement)
    momenta = [[entry["momentum_buffer"] for entry in one.optimizer.state.values()] for one in (whole, resumed)]
    assert all(torch.equal(first, second) for first, second in zip(*momenta, strict=True))


def test_a_saved_learner_goes_on_as_the_one_that_was_kept(tmp_path: Path) -> None:
    kept, anew = learner(), learner()
    labelled_stage(kept)
    save_learner(tmp_path / "round_01.pt", kept, {"round": 1})
    assert load_learner(tmp_path / "round_01.pt", anew) == {"round": 1}
    unlabelled_stage(kept)
    unlabelled_stage(anew)
    assert same(state(kept.parts), state(anew.parts))


def test_a_saved_learner_of_another_method_or_file_is_refused(tmp_path: Path) -> None:
    save_learner(tmp_path / "round.pt", learner())
    with pytest.raises(UserError, match="do not fit"):
        load_learner(tmp_path / "round.pt", learner(changed(lpm_inputs="stages")))
    torch.save({"a": 1}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds no state of an adaptation"):
        load_learner(tmp_path / "other.pt", learner())


def test_the_source_is_learnt_and_the_hold_out_is_not_trained_on(tmp_path: Path) -> None:
    training = SourceTraining(epochs=6, batch_size=16, lr=0.05, holdout=0.25)
    torch.manual_seed(0)
    network = build_network("digits-cnn", classes=3, console=QUIET, size=SIDE)
    start = state(network)
    labels = SOURCE_DOMAIN.labels
    outcome = train_source(
        network, SOURCE_DOMAIN.images, labels, training=training, place=tmp_path / "a", circumstances=here()
    )
    assert outcome.steps == 6 * 2 + 6 * 1  # 36 images by 16: 16, 16 and 4
    assert outcome.holdout_accuracy is not None
    assert outcome.holdout_accuracy > 80
    order = torch.randperm(48, generator=torch.Generator().manual_seed(training.holdout_seed))
    poisoned = labels.clone()
    poisoned[order[:12]] = (poisoned[order[:12]] + 1) % 3
    again = build_network("digits-cnn", classes=3, console=QUIET, size=SIDE)
    again.load_state_dict(start)
    other = train_source(again, SOURCE_DOMAIN.images, poisoned, training=training, place=None, circumstances=here())
    assert same(state(network), state(again))
    assert other.holdout_accuracy != outcome.holdout_accuracy


def test_the_best_weights_of_the_source_are_a_copy_and_not_the_last(tmp_path: Path) -> None:
    training = SourceTraining(epochs=4, batch_size=16, lr=0.05, holdout=0.25, keep="best")
    torch.manual_seed(0)
    network = build_network("digits-cnn", classes=3, console=QUIET, size=SIDE)
    outcome = train_source(
        network, SOURCE_DOMAIN.images, SOURCE_DOMAIN.labels, training=training, place=tmp_path, circumstances=here()
    )
    held = torch.randperm(48, generator=torch.Generator().manual_seed(2020))[:12].sort().values.tolist()
    found = network_outputs(network, SOURCE_DOMAIN.images, held, domain=SOURCE, batch_size=16)
    assert accuracy(found.logits, SOURCE_DOMAIN.labels[held]) == outcome.holdout_accuracy
    rows = [line for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines() if line]
    assert outcome.holdout_accuracy == max(json.loads(row)["accuracy"] for row in rows)


def test_adabn_gives_the_targets_layers_the_statistics_of_the_whole_pool() -> None:
    network = trained()
    first = norm_layers(network, TARGET)[0]
    pixels = network.pixels
    inputs = (torch.cat(list(TARGET_DOMAIN.images.plain(range(40), batch_size=40))).float() / 255 - 0.5) / 0.5
    assert pixels.mean == (0.5, 0.5, 0.5)
    block = network.backbone.blocks[0]  # type: ignore[union-attr, index]
    expected = block[0](inputs).mean(dim=(0, 2, 3))
    assert torch.allclose(first.running_mean, expected, atol=0.02)  # batches of 13 and 14, each counted alike
    source = norm_layers(network, SOURCE)[0]
    assert torch.equal(first.weight, source.weight)
    assert not torch.allclose(first.running_mean, source.running_mean, atol=0.02)


def test_target_layers_may_start_as_those_of_the_source_or_as_they_were() -> None:
    torch.manual_seed(0)
    network = build_network("digits-cnn", classes=3, console=QUIET, size=SIDE)
    fresh = [state(layer) for layer in norm_layers(network, TARGET)]
    training = SourceTraining(epochs=1, batch_size=16, holdout=0.0)
    train_source(
        network, SOURCE_DOMAIN.images, SOURCE_DOMAIN.labels, training=training, place=None, circumstances=here()
    )
    begin_target(network, TARGET_DOMAIN.images, start="pretrained", circumstances=here())
    assert all(same(old, state(new)) for old, new in zip(fresh, norm_layers(network, TARGET), strict=True))
    begin_target(network, TARGET_DOMAIN.images, start="source", circumstances=here())
    pairs = zip(norm_layers(network, SOURCE), norm_layers(network, TARGET), strict=True)
    assert all(same(state(one), state(other)) for one, other in pairs)
    with pytest.raises(UserError, match="no layers of its own"):
        begin_target(trained(domain_norm=False), TARGET_DOMAIN.images, start="pretrained", circumstances=here())
    with pytest.raises(UserError, match="no target"):
        begin_target(trained(), MemoryImages(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)), circumstances=here())


def test_adapting_to_the_source_itself_costs_at_most_two_points() -> None:
    again = domain(48, 1)
    network = trained()
    begin_target(network, again.images, circumstances=here())
    one = build_learner(network, SHORT, seed=0, device=torch.device("cpu"))
    before = network_outputs(network, again.images, range(48), domain=SOURCE, batch_size=16)
    adapt_to_unlabelled(one, again.images, range(48), round_number=0, method=SHORT, place=None, circumstances=here())
    after = network_outputs(network, again.images, range(48), batch_size=16)
    first, last = accuracy(before.logits, again.labels), accuracy(after.logits, again.labels)
    assert first is not None
    assert last is not None
    assert first > 90
    assert last >= first - 2.1


def test_labels_help() -> None:
    method = changed(labelled_steps=30, unlabelled_steps=30)
    one = learner(method)
    before = on_target(one)
    asked = tuple(range(20))
    rest = tuple(range(20, 40))
    labelled_stage(one, method, rows=asked, asked=16)
    unlabelled_stage(one, method, rows=rest, asked=asked)
    assert on_target(one, rest) >= before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pl_keep": 0.0}, "pl_keep"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"batch_size": 1}, "batch_size"),
        ({"replay": -1.0}, "replay"),
        ({"unlabelled_steps": 0}, "unlabelled_steps"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Method(**settings)


def test_a_source_without_hold_out_cannot_keep_its_best() -> None:
    with pytest.raises(UserError, match="best"):
        SourceTraining(holdout=0.0, keep="best")
