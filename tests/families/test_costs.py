"""What large runs cost, on paper: counted operations and memory against closed forms and real passes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from timm import create_model
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from vtk_cli.families.cost_tables import FULL_SIZE, as_markdown, deit3_trainings, read_networks, write_networks
from vtk_cli.families.costs import ComparisonCost, PassCost, TrainingCost, attack_cost, gpu_hours, training_cost
from vtk_cli.models.names import PAPER69
from vtk_cli.similarity.attack import Attack, adversarial
from vtk_cli.similarity.command import SimilarityOptions
from vtk_cli.similarity.plan import Plan

README = Path(__file__).parents[2] / "README.md"
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def test_the_operations_of_a_vit_are_those_of_its_closed_form():
    """A block has 12 D^2 weights in matrices and 2 products of tokens with tokens; their backward pass makes 5 such."""
    width, depth, tokens, patches, classes = 192, 12, 197, 196, 1000
    matrices = 2 * (patches * 16 * 16 * 3 * width + depth * tokens * 12 * width**2 + width * classes)
    attention = 2 * depth * 2 * tokens**2 * width
    cost = attack_cost("vit_tiny_patch16_224", images=2)
    assert cost.size == 224
    assert cost.forward == matrices + attention
    assert cost.both == 2 * matrices + (1 + 5 / 2) * attention


def test_a_backward_pass_to_weights_and_inputs_costs_two_forward_passes_and_to_inputs_one():
    to_images = attack_cost("resnet18.a1_in1k", images=1)
    assert to_images.both == 2 * to_images.forward
    cost = training_cost("vit_tiny_patch16_224", images=2, size=64)
    assert cost.both / cost.forward == pytest.approx(3, rel=0.05)


def test_what_a_forward_pass_keeps_is_counted_without_computing():
    torch.manual_seed(0)
    module = create_model("vit_tiny_patch16_224", img_size=64).train()
    own = {one.untyped_storage().data_ptr() for one in module.parameters()}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        loss = module(torch.rand(3, 3, 64, 64)).float().sum()
    real = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in own)
    assert loss.isfinite()
    assert training_cost("vit_tiny_patch16_224", images=3, size=64).kept == real


class Counting(nn.Module):
    """A linear classifier that counts its passes."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 4 * 4, 5)
        self.forwards = self.backwards = 0

    def forward(self, images):
        self.forwards += 1
        logits = self.head(images.flatten(1))
        logits.register_hook(self.count_backward)
        return logits

    def count_backward(self, gradient):
        self.backwards += 1


@pytest.mark.parametrize("name", ["pgd", "mifgsm"])
def test_a_step_of_an_attack_is_one_forward_and_one_backward_pass(name):
    model, steps = Counting(), 7
    pixels, numbers = torch.rand(2, 3, 4, 4), torch.arange(2)
    adversarial(model, pixels, torch.tensor([1, 2]), Attack(name=name, steps=steps), numbers)
    assert (model.forwards, model.backwards) == (steps, steps)


def test_a_comparison_costs_what_its_plan_says_where_every_pass_costs_one():
    one = PassCost("any", 8, 1, 1.0, 2.0, 0)
    options = SimilarityOptions(networks=("a", "b"), steps=7)
    plan = Plan([("a", "a", "", None)] * 5, 11, "cpu", Path(), options)
    cost = ComparisonCost([one] * 5, images=11, steps=7)
    assert cost.total == plan.forward_equivalents
    assert cost.attacked_bytes == 11 * 5 * 3 * 8 * 8
    assert cost.weight_bytes == 5 * 4


def test_the_longest_row_is_the_dearest_attack_and_every_answer():
    networks = [PassCost("small", 1, 1, 1.0, 2.0, 0), PassCost("large", 1, 1, 10.0, 30.0, 0)]
    assert ComparisonCost(networks, images=2, steps=5).longest_row == 2 * (5 * 30 + 11)


def training(gpus, weights=1000):
    return TrainingCost(PassCost("any", 8, weights, 1.0, 3.0, 7), gpus * 4, gpus, 3, 1003, largest_part=10)


def ring_all_reduce(values):
    """Bytes that each of N sends: N - 1 times a part to be added up, N - 1 times a sum."""
    parts, sent = len(values), 0
    sums = [list(row) for row in values]
    for step in range(2 * (parts - 1)):
        moved = [((rank - step) % parts, sums[rank][(rank - step) % parts]) for rank in range(parts)]
        for rank, (part, value) in enumerate(moved):
            receiver = (rank + 1) % parts
            sums[receiver][part] = sums[receiver][part] + value if step < parts - 1 else value
        sent += 1
    assert all(row == [sum(column) for column in zip(*values, strict=True)] for row in sums)
    return sent


@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
def test_the_traffic_of_ddp_is_that_of_a_ring(gpus):
    parts_sent = ring_all_reduce([[rank * 10 + part for part in range(gpus)] for rank in range(gpus)])
    assert training(gpus).ddp_traffic == pytest.approx(parts_sent * 4 * 1000 / gpus)


def test_fsdp_sends_half_as_much_again_and_holds_a_share():
    assert training(8).fsdp_traffic == pytest.approx(1.5 * training(8).ddp_traffic)
    assert training(1).fsdp_traffic == 0
    assert training(8).ddp_memory == 6 * 4000 + 7
    assert training(8).fsdp_memory == 5 * 4000 / 8 + 3 * 40 + 7


def test_a_training_makes_whole_updates_and_its_hours_are_those_of_its_operations():
    cost = training(2)
    assert (cost.updates, cost.operations) == (3 * (1003 // 8), 3 * 1003 * 3.0)
    assert gpu_hours(3600 * 5e12, 10e12, 0.5) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet50.a1_in1k", "vit_small_patch16_224.augreg_in21k_ft_in1k", "mixnet_xl.ra_in1k"]
)
def test_the_counts_of_the_69_networks_are_those_of_timm_today(name):
    networks = {network.network: network for network in read_networks()}
    assert list(networks) == [network.timm for network in PAPER69]
    again, before = attack_cost(name, 32), networks[name]
    assert (again.size, again.parameters, again.forward) == (before.size, before.parameters, before.forward)
    assert again.both == pytest.approx(before.both, rel=0.05)
    assert again.kept == pytest.approx(before.kept, rel=0.1)


def test_counts_that_were_written_are_read_again(tmp_path):
    networks = read_networks()[:3]
    write_networks(networks, tmp_path / "some.csv")
    assert read_networks(tmp_path / "some.csv") == networks


@pytest.mark.slow
def test_the_readme_says_what_the_formulas_give_and_vit_h_has_what_its_authors_say():
    largest = deit3_trainings()[FULL_SIZE].step
    assert largest.parameters == pytest.approx(632.1e6, rel=1e-3)
    assert largest.forward == pytest.approx(2 * 167.4e9, rel=1e-2)
    shown = re.search(r"<!-- costs -->\n(.*?)<!-- end -->", README.read_text(), re.DOTALL)[1]
    made = as_markdown(read_networks())
    assert NUMBER.sub("#", shown) == NUMBER.sub("#", made)
    for there, here in zip(NUMBER.findall(shown), NUMBER.findall(made), strict=True):
        assert float(there.replace(",", "")) == pytest.approx(float(here.replace(",", "")), rel=0.05)
