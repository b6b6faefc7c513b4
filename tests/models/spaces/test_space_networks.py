"""The networks that are trained by themselves: blocks, initialisation, maps, drop-path and the second classifier."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.models.spaces.small_spaces import on_meta, randomise, small_shape
from vtk_cli.errors import UserError
from vtk_cli.models.spaces.catalog import RELEASED, SPACES
from vtk_cli.models.spaces.chain import Layer
from vtk_cli.models.spaces.cost import halved
from vtk_cli.models.spaces.darts_network import Cell
from vtk_cli.models.spaces.darts_operations import FactorizedReduce, operation_module
from vtk_cli.models.spaces.shufflenetv2_network import ShuffleBlock

DARTS, NASBENCH, SHUFFLE, MOBILE = (SPACES[name] for name in ("darts", "nasbench201", "shufflenetv2", "mobilenet"))
RELEASED_GENES = RELEASED["genas-angle-flatness-cifar100"][1].genes
"""With every operation: pools, skips, separable and dilated convolutions."""


@pytest.mark.parametrize("resolution", [32, 33, 47])
def test_feature_maps_have_the_channels_and_sizes_they_say(space, rng, resolution) -> None:
    images = torch.randn(2, space.input_channels, resolution, resolution, device="meta")
    for form in space.forms:
        if form != "supernet":
            network = on_meta(space.network, space.sample(rng), small_shape(space, form, resolution=resolution)).eval()
            maps = network.feature_maps(images)
            sides = [-(-resolution // stride) for _, stride in network.feature_info]
            assert [tuple(m.shape) for m in maps] == [
                (2, info.channels, side, side) for info, side in zip(network.feature_info, sides, strict=True)
            ]
            assert network(images).shape == (2, 7)
            assert network.classify(maps[-1]).shape == (2, 7)


def test_backbones_for_imagenet_offer_maps_at_strides_that_detectors_use() -> None:
    darts = on_meta(DARTS.network, RELEASED_GENES, DARTS.shape("imagenet", 1000, width=48))
    assert darts.feature_info == ((192, 8), (384, 16), (768, 32))
    shuffle = on_meta(SHUFFLE.network, (0,) * 20, SHUFFLE.shape("stand-alone", 1000))
    assert shuffle.feature_info == ((16 * 4, 4), (160, 8), (320, 16), (640, 32))
    mobile = on_meta(MOBILE.network, (0,) * 21, MOBILE.shape("stand-alone", 1000))
    assert [stride for _, stride in mobile.feature_info] == [4, 8, 16, 32]


def test_shufflenet_halves_224_pixels_to_7() -> None:
    network = on_meta(SHUFFLE.network, (0, 1, 2, 3) * 5, SHUFFLE.shape("stand-alone", 1000)).eval()
    images = torch.empty(1, 3, 224, 224, device="meta")
    assert network.stem(images).shape == (1, 16, 112, 112)
    assert [tuple(m.shape[2:]) for m in network.feature_maps(images)] == [(56, 56), (28, 28), (14, 14), (7, 7)]


@pytest.mark.parametrize("choice", range(4))
def test_even_channels_pass_a_shuffle_block_of_stride_1_unchanged(choice) -> None:
    block = randomise(ShuffleBlock(Layer(16, 16, 1), choice, affine=True))
    x = torch.randn(2, 16, 9, 9)
    out = block(x)
    assert torch.equal(out[:, :8], x[:, 0::2])
    torch.testing.assert_close(out[:, 8:], block.branch_main(x[:, 1::2]))
    changed = x.clone()
    changed[:, 0::2] += 1
    assert torch.equal(block(changed)[:, 8:], out[:, 8:])


def test_shufflenet_starts_as_in_the_released_code() -> None:
    torch.manual_seed(0)
    supernet = SHUFFLE.supernet(SHUFFLE.shape("supernet", 1000, resolution=32))
    assert supernet.stem[0].weight.detach().std() == pytest.approx(0.01, rel=0.1)
    block = supernet.layers[9]["0"].branch_main
    assert block[0].weight.detach().std() == pytest.approx(1 / 160, rel=0.02)
    assert block[3].weight.detach().std() == pytest.approx(1.0, rel=0.1)  # depthwise: one input a group
    assert supernet.head[-1].weight.detach().std() == pytest.approx(0.01, rel=0.01)
    assert supernet.head[-1].bias is None
    network = SHUFFLE.network((0,) * 20, SHUFFLE.shape("stand-alone", 10, resolution=32))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert torch.equal(torch.cat([norm.bias for norm in norms]).unique(), torch.tensor([1e-4]))
    assert torch.equal(torch.cat([norm.weight for norm in norms]).unique(), torch.tensor([1.0]))
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.1]


def test_mobilenet_starts_as_in_the_released_code() -> None:
    torch.manual_seed(0)
    network = MOBILE.network((5,) * 21, MOBILE.shape("stand-alone", 100, resolution=32))
    expand, depthwise, project = (network.layers[17].conv[at] for at in (0, 3, 6))
    assert expand.weight.detach().std() == pytest.approx(math.sqrt(2 / 1536), rel=0.02)
    assert depthwise.weight.detach().std() == pytest.approx(math.sqrt(2 / (49 * 1536)), rel=0.02)
    assert project.weight.detach().std() == pytest.approx(math.sqrt(2 / 256), rel=0.02)


def test_mobilenet_adds_the_input_exactly_where_shapes_agree_and_leaves_layers_out() -> None:
    network = randomise(MOBILE.network((0,) * 21, small_shape(MOBILE, "stand-alone")))
    first, second = network.layers[0], network.layers[1]
    x = torch.randn(2, 24, 8, 8)
    torch.testing.assert_close(first(x), first.conv(x))
    torch.testing.assert_close(second(first(x)), first(x) + second.conv(first(x)))
    wider = network.layers[12]  # 112 to 128 channels at stride 1
    y = torch.randn(2, 112, 4, 4)
    torch.testing.assert_close(wider(y), wider.conv(y))
    shallow = MOBILE.network(
        tuple(0 if at in {0, 4, 8, 12, 16, 20} else -1 for at in range(21)), small_shape(MOBILE, "stand-alone")
    )
    assert sum(isinstance(layer, nn.Identity) for layer in shallow.layers) == 15


def test_darts_and_nasbench201_and_tiny_networks_start_as_pytorch_does(rng) -> None:
    """Uniform within 1 / sqrt(fan in), normalisations 1 and 0."""
    for space in (DARTS, NASBENCH, SPACES["chain-a"]):
        network = space.network(space.sample(rng), small_shape(space, space.alone))
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                bound = 1 / math.sqrt(module.weight[0].numel())
                assert module.weight.abs().max() <= bound
            elif isinstance(module, nn.BatchNorm2d):
                assert module.weight.unique().tolist() == [1.0]
                assert module.bias.unique().tolist() == [0.0]


@pytest.mark.parametrize("stride", [1, 2])
def test_darts_convolutions_are_those_of_the_paper(stride) -> None:
    """(kernel, stride, padding, dilation, groups) of each convolution."""

    def convolutions(operation):
        convs = [m for m in operation_module(operation, 8, stride).modules() if isinstance(m, nn.Conv2d)]
        assert not any(conv.bias is not None for conv in convs)
        return [(c.kernel_size[0], c.stride[0], c.padding[0], c.dilation[0], c.groups) for c in convs]

    pointwise = (1, 1, 0, 1, 1)
    for operation, kernel in ((4, 3), (5, 5)):
        across = [(kernel, s, kernel // 2, 1, 8) for s in (stride, 1)]
        assert convolutions(operation) == [across[0], pointwise, across[1], pointwise]
    for operation, kernel, padding in ((6, 3, 2), (7, 5, 4)):
        assert convolutions(operation) == [(kernel, stride, padding, 2, 8), pointwise]


def test_factorized_reduction_takes_even_cells_and_odd_cells_and_pads_odd_maps() -> None:
    reduce = FactorizedReduce(2, 4).eval()
    reduce.bn.eps = 0.0
    for conv in (reduce.conv_1, reduce.conv_2):
        conv.weight.data = torch.eye(2).view(2, 2, 1, 1)
    x = torch.rand(1, 2, 6, 6)
    out = reduce(x)
    torch.testing.assert_close(out[:, :2], x[:, :, 0::2, 0::2])
    torch.testing.assert_close(out[:, 2:], x[:, :, 1::2, 1::2])
    odd = torch.rand(1, 2, 5, 7)
    out = reduce(odd)
    assert out.shape == (1, 4, 3, 4)
    torch.testing.assert_close(out[:, :2], odd[:, :, 0::2, 0::2])
    torch.testing.assert_close(out[:, 2:, :2, :3], odd[:, :, 1::2, 1::2])
    assert not out[:, 2:, 2].any()
    assert not out[:, 2:, :, 3].any()


def test_average_pooling_does_not_count_the_padding() -> None:
    network = DARTS.network(
        (2, 2, 2, 2, 0, 2, 2, 0, 0, 2, 2, 0, 0, 0, *RELEASED_GENES[14:]), small_shape(DARTS, "cifar")
    )
    ones = torch.ones(1, 4, 5, 5)
    assert torch.equal(network.cells[0]._ops[0](ones), ones)


def test_drop_path_drops_whole_images_of_an_edge_and_never_identities() -> None:
    shape = small_shape(DARTS, "cifar")
    torch.manual_seed(0)
    network = DARTS.network(RELEASED_GENES, shape, drop_path=0.3)
    cell = network.cells[0]
    assert isinstance(cell, Cell)
    cell.train()
    x = torch.randn(4000, 4, 4, 4)
    skip, other = (
        next(at for at, operation in enumerate(cell._ops) if isinstance(operation, nn.Identity) == identity)
        for identity in (True, False)
    )
    nodes = [x] * 6
    assert torch.equal(cell._edge(skip, nodes), x)
    cell._ops[other] = nn.ReLU()
    out, kept = cell._edge(other, nodes), torch.relu(x) / 0.7
    dropped = out.flatten(1).eq(0).all(dim=1)
    torch.testing.assert_close(out[~dropped], kept[~dropped])
    assert dropped.float().mean() == pytest.approx(0.3, abs=0.03)
    network.eval()
    torch.testing.assert_close(cell._edge(other, nodes), torch.relu(x))
    network.set_drop_path(0.0)
    network.train()
    torch.testing.assert_close(cell._edge(other, nodes), torch.relu(x))


@pytest.mark.parametrize(("form", "resolution", "stride", "norms"), [("imagenet", 224, 2, 1), ("cifar", 32, 3, 2)])
def test_second_classifier_sits_on_the_later_reduction_in_training_only(form, resolution, stride, norms) -> None:
    shape = small_shape(DARTS, form, resolution=resolution)
    network = randomise(DARTS.network(RELEASED_GENES, shape, auxiliary=True))
    plain = DARTS.network(RELEASED_GENES, shape)
    head = network.auxiliary_head
    assert head.features[1].stride == stride
    assert head.features[2].in_channels == 4 * 4 * 4  # of the width 4: doubled twice, four nodes
    assert [sum(isinstance(m, kind) for m in head.modules()) for kind in (nn.BatchNorm2d, nn.Conv2d)] == [norms, 2]
    images = torch.randn(2, 3, resolution, resolution)
    with torch.no_grad():
        evaluated = network(images)
        network.train()
        logits, second = network(images)
        plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("auxiliary_head.")})
        assert plain.train()(images).shape == logits.shape == second.shape == evaluated.shape == (2, 7)


def test_second_classifier_is_that_of_the_published_networks() -> None:
    shape = DARTS.shape("imagenet", 1000, width=48)
    network = on_meta(DARTS.network, RELEASED_GENES, shape, auxiliary=True)
    head = {name: tuple(value.shape) for name, value in network.auxiliary_head.named_parameters()}
    assert head == {
        "features.2.weight": (128, 768, 1, 1),
        "features.3.weight": (128,),
        "features.3.bias": (128,),
        "features.5.weight": (768, 128, 2, 2),
        "classifier.weight": (1000, 768),
        "classifier.bias": (1000,),
    }
    names = set(network.state_dict())
    assert {"stem0.0.weight", "stem0.4.bias", "stem1.1.weight", "stem1.2.running_mean"} <= names
    assert {f"cells.0.preprocess0.{name}.weight" for name in ("conv_1", "conv_2", "bn")} <= names
    assert {int(name.split(".")[3]) for name in names if name.startswith("cells.") and "._ops." in name} <= set(
        range(8)
    )


def test_second_classifier_that_has_no_room_is_refused() -> None:
    with pytest.raises(UserError, match="the second classifier needs a map of at least 8 x 8, this one has 4"):
        DARTS.network(RELEASED_GENES, small_shape(DARTS, "cifar", resolution=16), auxiliary=True)
    with pytest.raises(UserError, match="networks of mobilenet have no second classifier"):
        MOBILE.network((0,) * 21, small_shape(MOBILE, "stand-alone"), auxiliary=True)
    with pytest.raises(UserError, match="networks of nasbench201 have no drop-path"):
        NASBENCH.network((0,) * 6, small_shape(NASBENCH, "stand-alone"), drop_path=0.2)


def test_architectures_outside_a_space_get_no_network() -> None:
    with pytest.raises(UserError, match="darts needs 28 genes"):
        DARTS.network((0,) * 27, small_shape(DARTS, "cifar"))


def test_tiny_operations_are_those_of_their_names() -> None:
    shape = SPACES["chain-a"].shape("stand-alone", 10)
    conv1, pool, sep3, conv3 = (SPACES["chain-a"].network((choice,) * 3, shape).layers[1] for choice in range(4))
    assert [type(m).__name__ for m in conv1] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert [type(m).__name__ for m in pool] == ["AvgPool2d", "Conv2d", "BatchNorm2d", "ReLU"]
    assert [type(m).__name__ for m in sep3] == ["Conv2d", "BatchNorm2d", "Conv2d", "BatchNorm2d", "ReLU"]
    assert (sep3[0].groups, sep3[0].stride, sep3[2].stride) == (12, (2, 2), (1, 1))
    assert (conv1[0].kernel_size, conv3[0].kernel_size) == ((1, 1), (3, 3))
    sep5 = SPACES["chain-b"].network((2,) * 3, SPACES["chain-b"].shape("stand-alone", 10)).layers[0]
    assert sep5[0].kernel_size == (5, 5)


def test_digits_mini_is_chain_a_on_grey_images_of_half_the_size() -> None:
    """Three equal channels and 32 x 32 pixels: averaged down, the stem sees what the grey one's would."""
    mini, chain = SPACES["digits-mini"], SPACES["chain-a"]
    large = randomise(mini.network((0, 1, 2), mini.shape("stand-alone", 10)))
    small = chain.network((0, 1, 2), chain.shape("stand-alone", 10)).eval()
    state = {name.replace("stem.1", "stem.0").replace("stem.2", "stem.1"): v for name, v in large.state_dict().items()}
    state["stem.0.weight"] = state["stem.0.weight"].sum(dim=1, keepdim=True)
    small.load_state_dict(state)
    grey = torch.rand(2, 1, 16, 16)
    blown_up = grey.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).expand(-1, 3, -1, -1)
    torch.testing.assert_close(large(blown_up), small(grey), atol=1e-5, rtol=1e-5)
    assert halved(halved(32)) == large.layers[0](large.stem(blown_up)).shape[-1]
