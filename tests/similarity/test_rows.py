"""Rows: what is computed, how often, and what it may depend on."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision
from torchvision.transforms.v2.functional import InterpolationMode

from vtk_cli.errors import UserError
from vtk_cli.files import Busy
from vtk_cli.similarity.images import View
from vtk_cli.similarity.networks import PixelModel
from vtk_cli.similarity.sat import sat_matrix
from vtk_cli.similarity.store import Store

from .conftest import CLASSES, PIXELS, reordered, small_images, small_member, small_net


def test_n_networks_cost_n_attacks_and_n_squared_evaluations_and_nothing_the_second_time(make_rows):
    first = make_rows([small_member(seed) for seed in range(5)])
    bits = first.bits()
    assert (first.work.attacks, first.work.evaluations) == (5, 25)
    second = make_rows([small_member(seed) for seed in range(5)])
    assert np.array_equal(second.bits().wrong, bits.wrong)
    assert (second.work.attacks, second.work.evaluations) == (0, 0)


def test_a_new_network_costs_its_own_attack_and_a_row_and_a_column_of_evaluations(make_rows):
    make_rows([small_member(seed) for seed in range(4)]).bits()
    grown = make_rows([small_member(seed) for seed in range(5)])
    bits = grown.bits()
    assert (grown.work.attacks, grown.work.evaluations) == (1, 2 * 4 + 1)
    fresh = make_rows([small_member(seed) for seed in range(5)], folder="fresh").bits()
    assert np.array_equal(bits.wrong, fresh.wrong)


def test_without_kept_images_a_new_network_costs_every_attack_and_gives_the_same_bits(make_rows):
    make_rows([small_member(seed) for seed in range(3)], keep_images="no").bits()
    grown = make_rows([small_member(seed) for seed in range(4)], keep_images="no")
    bits = grown.bits()
    assert grown.work.attacks == 4
    assert np.array_equal(bits.wrong, make_rows([small_member(seed) for seed in range(4)], folder="fresh").bits().wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"attack": {"eps": 16 / 255}},
        {"attack": {"steps": 5}},
        {"attack": {"seed": 1}},
        {"attack": {"name": "mifgsm"}},
        {"attack": {"random_start": False}},
        {"attack_precision": "bf16"},
        {"precision": "bf16"},
        {"images": small_images(seed=7)},
    ],
)
def test_whatever_shapes_a_row_is_in_its_key(make_rows, change):
    plain, other = make_rows(), make_rows(**change)
    assert plain.key(0) != other.key(0)
    other.bits()
    assert other.work.attacks == 3


def test_weights_and_normalisation_are_in_the_key_and_the_batch_size_is_not(make_rows):
    plain = make_rows()
    changed_net = small_net(0)
    changed_net[0].weight.data[0, 0, 0, 0] += 1e-3
    members = [small_member(0, changed_net), small_member(1), small_member(2)]
    assert make_rows(members).key(0) != plain.key(0)
    darker = dataclasses.replace(small_member(0), pixels=dataclasses.replace(PIXELS, mean=(0.4,) * 3))
    assert make_rows([darker, small_member(1)]).key(0) != plain.key(0)
    assert make_rows(batch_size=7).key(0) == plain.key(0)


def two_sizes():
    """A network for 8 x 8 images and one for 12 x 12, and images that can be seen at any size."""
    torch.manual_seed(5)
    larger = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 100, CLASSES))
    second = small_member(1, larger, label="larger")
    pixels_12 = dataclasses.replace(PIXELS, input_size=12)
    second = dataclasses.replace(second, pixels=pixels_12, load=lambda: PixelModel(larger, 12, (0.5,) * 3, (0.5,) * 3))
    images = small_images()
    whole = images.pixels(None).float()

    def pixels(view):
        return F.interpolate(whole, size=(view.size, view.size)).to(torch.uint8)

    return [small_member(0), second], dataclasses.replace(images, fingerprint="any size", pixels=pixels)


def test_one_crop_as_large_as_the_largest_input_serves_all_networks(make_rows):
    members, images = two_sizes()
    rows = make_rows(members, images)
    assert [rows.attacked_images(source)[0].shape[-1] for source in range(2)] == [12, 12]


def test_by_the_paper_s_protocol_each_network_has_its_own_and_the_other_gets_it_resized(make_rows):
    members, images = two_sizes()
    rows = make_rows(members, images, protocol="paper")
    made, attacked = rows.attacked_images(0)
    assert made.shape[-1] == 8
    assert rows.attacked_images(1)[0].shape[-1] == 12
    other = members[1].load().eval()
    resized = vision.resize(made.float() / 255, [12, 12], InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
    with torch.no_grad():
        fooled = (other(resized).argmax(dim=1) != rows.comparison.labels[attacked]).numpy()
    assert np.array_equal(rows.bits().wrong[0, 1, attacked], fooled)
    own = other(images.pixels(View(12)).float() / 255).argmax(dim=1)
    assert np.array_equal(rows.comparison.correct[1], (own == images.labels).numpy())


def test_networks_that_do_not_fit_in_memory_are_loaded_again_and_answer_the_same(make_rows, monkeypatch):
    loads = []

    def counted(seed):
        member = small_member(seed)
        return dataclasses.replace(member, load=lambda: loads.append(seed) or member.load())

    expected = make_rows([counted(seed) for seed in range(3)]).bits()
    assert loads == [0, 1, 2]
    loads.clear()
    monkeypatch.setattr("vtk_cli.similarity.members._memory", lambda _: 1.0)
    bits = make_rows([counted(seed) for seed in range(3)], folder="cramped").bits()
    assert len(loads) > 9
    assert np.array_equal(bits.wrong, expected.wrong)


@pytest.mark.parametrize(("keep", "kept"), [("auto", 0), ("yes", 3), ("no", 0)])
def test_attacked_images_are_kept_where_there_is_room_or_when_told_to(make_rows, monkeypatch, keep, kept):
    monkeypatch.setattr(Store, "has_room", lambda *_: False)
    rows = make_rows(keep_images=keep)
    rows.bits()
    assert len(list(rows.passes.store.folder.glob("adversarial/*.npz"))) == kept


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_batch_size_changes_no_bit(make_rows, batch_size):
    expected = make_rows().bits()
    bits = make_rows(folder="other", batch_size=batch_size).bits()
    assert np.array_equal(bits.wrong, expected.wrong)
    assert np.array_equal(bits.noisy_wrong, expected.noisy_wrong)


def test_the_order_of_images_changes_no_image_s_bits(make_rows):
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3)).numpy()
    expected = make_rows().bits()
    bits = make_rows(images=reordered(small_images(), order), folder="other").bits()
    assert np.array_equal(bits.wrong, expected.wrong[:, :, order])
    assert np.array_equal(bits.noisy_wrong, expected.noisy_wrong[:, order])


def test_only_images_that_the_source_gets_right_are_attacked(make_rows):
    rows = make_rows()
    made, attacked = rows.attacked_images(1)
    assert np.array_equal(attacked, np.flatnonzero(rows.comparison.correct[1]))
    originals = rows.comparison.images.pixels(None)[attacked]
    assert (made.int() - originals.int()).abs().max() <= 32
    assert 0 < len(attacked) < 40
    assert not rows.bits().wrong[1][:, ~rows.comparison.correct[1]].any()


def test_examples_are_the_images_of_the_row_and_cost_no_attack_of_a_row(make_rows):
    kept = make_rows()
    made, attacked = kept.attacked_images(1)
    shown = attacked[[0, 3, 7]]
    assert torch.equal(kept.attacked_examples(1, shown), made[[0, 3, 7]])
    alone = make_rows(folder="empty", keep_images="no")
    assert torch.equal(alone.attacked_examples(1, shown), made[[0, 3, 7]])
    assert alone.work.attacks == 0


def test_sat_of_a_network_with_itself_is_log_100_when_the_attack_always_succeeds(make_rows):
    twice = [small_member(0), small_member(0, label="again")]
    rows = make_rows(twice, attack={"eps": 0.5, "steps": 10, "step_size": 0.1})
    bits = rows.bits()
    assert rows.work.attacks == 1  # one network under two names is attacked once
    assert bits.wrong[0, 0].all()
    matrix = sat_matrix(bits)
    assert matrix.score[0, 1] == matrix.score[0, 0] == pytest.approx(np.log(100), abs=1e-12)


def test_permuting_the_classes_of_all_networks_leaves_sat_unchanged(make_rows):
    permutation = torch.tensor([2, 0, 3, 1])

    def permuted(seed):
        net = small_net(seed)
        net[-1].weight.data = net[-1].weight.data[permutation]
        net[-1].bias.data = net[-1].bias.data[permutation]
        return net

    images = small_images()
    relabelled = dataclasses.replace(images, labels=permutation.argsort()[images.labels], fingerprint="relabelled")
    expected = sat_matrix(make_rows().bits()).score
    members = [small_member(seed, permuted(seed)) for seed in range(3)]
    assert np.array_equal(sat_matrix(make_rows(members, images=relabelled).bits()).score, expected)


class Unsteady(nn.Module):
    """Drops features at test time as well."""

    def __init__(self):
        super().__init__()
        self.net = small_net(0)

    def forward(self, x):
        return self.net(F.dropout(x, 0.5, training=True))


def test_a_network_that_answers_differently_each_time_is_named_in_every_run(make_rows, capsys):
    for _ in range(2):
        make_rows([small_member(0, Unsteady(), label="unsteady"), small_member(1)])
        assert "unsteady answers the same images differently" in capsys.readouterr().err
    make_rows([small_member(0), small_member(1)])
    assert capsys.readouterr().err == ""


def test_a_gradient_that_vanishes_is_named_in_every_run(make_rows, capsys):
    net = small_net(0)
    net[-1].weight.data *= 1e5
    net[-1].bias.data *= 1e5
    for _ in range(2):
        rows = make_rows([small_member(0, net, label="saturated"), small_member(1)])
        assert capsys.readouterr().err == ""
        rows.bits()
        assert "saturated: the loss has no gradient" in capsys.readouterr().err
    assert rows.work.attacks == 0


def test_logits_that_are_not_finite_are_an_error_with_network_and_batch(make_rows):
    net = small_net(1)
    net[-1].bias.data[2] = torch.nan
    with pytest.raises(UserError, match="broken: gives NaN or infinite logits on 16 of the 16 images of batch 1"):
        make_rows([small_member(0), small_member(1, net, label="broken")])


class BreaksBelow(nn.Module):
    """NaN for an image whose first pixel is darker than half grey."""

    def __init__(self):
        super().__init__()
        self.net = small_net(1)

    def forward(self, x):
        return torch.where(x[:, :1, 0, 0] < 0, torch.nan, self.net(x))


def test_logits_that_are_finite_on_clean_images_only_are_an_error_too(make_rows):
    images = small_images()
    pixels = images.pixels(None).clone()
    pixels[:, :, 0, 0] = 130
    bright = dataclasses.replace(images, fingerprint="bright", pixels=lambda _: pixels)
    with pytest.raises(UserError, match="fragile: gives NaN or infinite logits"):
        make_rows([small_member(0), small_member(1, BreaksBelow(), label="fragile")], bright)


def test_networks_of_different_classes_cannot_be_compared(make_rows):
    wider = small_net(1)
    wider[-1] = nn.Linear(8 * 36, CLASSES + 1)
    with pytest.raises(UserError, match="net0 has 4 classes, wide has 5"):
        make_rows([small_member(0), small_member(1, wider, label="wide")])


def test_more_classes_of_images_than_of_the_network_ask_for_a_class_map(make_rows):
    images = dataclasses.replace(small_images(), classes=10)
    with pytest.raises(UserError, match="10 classes of images, but net0 has 4; give --class-map"):
        make_rows(images=images)


def test_without_labels_the_class_is_the_one_all_networks_agree_on(make_rows):
    rows = make_rows(images=small_images(labels="nobody"))
    predictions = rows.comparison.logits.argmax(axis=2)
    agree = (predictions == predictions[0]).all(axis=0)
    assert 0 < agree.sum() < 40
    assert np.array_equal(rows.comparison.labels.numpy() >= 0, agree)
    assert all(np.array_equal(right, agree) for right in rows.comparison.correct)
    assert (sat_matrix(rows.bits()).n_common == agree.sum()).all()


def test_a_row_that_is_interrupted_leaves_nothing_half_done(make_rows):
    calls = 0

    class Stop(Exception):
        pass

    def check():
        nonlocal calls
        calls += 1
        if calls > 12:
            raise Stop

    complete = make_rows()  # the clean passes are done
    rows = make_rows(check=check)
    with pytest.raises(Stop):
        rows.bits()
    again = make_rows()
    finished = sum(again.finished(source) is not None for source in range(3))
    assert finished < 3
    assert not list(again.passes.store.folder.rglob(".tmp-*"))
    bits = again.bits()
    assert again.work.attacks == 3 - finished or again.work.attacks == 2 - finished
    assert np.array_equal(bits.wrong, make_rows(folder="fresh").bits().wrong)
    assert complete.work.attacks == 0


@pytest.mark.parametrize("kind", ["clean", "noise", "rows", "masked", "adversarial"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "flipped", "garbage"])
def test_a_torn_file_of_the_store_is_made_again(make_rows, kind, damage):
    expected = make_rows().bits()
    for path in (make_rows().passes.store.folder / kind).iterdir():
        content = path.read_bytes()
        middle = len(content) // 2
        damaged = {
            "cut": content[: len(content) // 2],
            "emptied": b"",
            "flipped": content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :],
            "garbage": b"not an array" * 10,
        }[damage]
        path.write_bytes(damaged)
    bits = make_rows([small_member(seed) for seed in range(3)]).bits()
    assert np.array_equal(bits.wrong, expected.wrong)
    assert np.array_equal(bits.correct, expected.correct)


def test_a_row_that_another_process_holds_is_not_waited_for(make_rows):
    rows = make_rows()
    with rows.passes.store.working_on(rows.key(0)), pytest.raises(Busy, match="another process is at work on this"):
        rows.row(0)
    rows.row(0)


def test_the_measures_beside_sat_are_one_for_a_network_with_itself(make_rows):
    from vtk_cli.similarity import other_measures

    rows = make_rows([small_member(0), small_member(0, label="again"), small_member(1)])
    for name in ("agreement", "grad-cos", "cka"):
        matrix = other_measures.measure(name, rows.passes, rows.comparison, seed=0)
        assert matrix[0, 1] == pytest.approx(1.0, abs=1e-6), name
        assert matrix[0, 2] < 1.0, name
    divergence = other_measures.measure("jsd", rows.passes, rows.comparison, seed=0)
    assert divergence[0, 1] == pytest.approx(0.0, abs=1e-9)
    assert divergence[0, 2] > 0


def test_rows_and_the_library_function_give_the_same_bits(make_rows):
    from vtk_cli.similarity import Attack, transfer_bits

    attack = {"eps": 32.5 / 255, "steps": 4, "step_size": 12 / 255}  # no whole number of grey levels
    rows = make_rows()
    images = rows.comparison.images
    # The library numbers images by place; key the store's the same way.
    numbered = dataclasses.replace(images, fingerprint="by place")
    numbered.__dict__["numbers"] = torch.arange(len(images))
    expected = make_rows(images=numbered, attack=attack).bits()
    networks = {member.label: member.load().eval() for member in rows.comparison.members}
    bits = transfer_bits(networks, images.pixels(None), images.labels, Attack(**attack))
    assert bits.names == expected.names
    assert np.array_equal(bits.correct, expected.correct)
    assert np.array_equal(bits.wrong, expected.wrong)
    assert np.array_equal(bits.noisy_wrong, expected.noisy_wrong)
