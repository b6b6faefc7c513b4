"""Checkpoints in the layout of the published ones, written here name by name."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor

from tests.models.spaces.small_spaces import WITHOUT_POOLS, randomise, small_shape
from vtk_cli.errors import UserError
from vtk_cli.models.spaces.catalog import space_named
from vtk_cli.search.official import compared, load_network, load_supernet, read_checkpoint

WIDTH, CLASSES = 4, 7
SPOS_GENES = (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)


class Layout:
    """Names and tensors as they are added; every value is drawn."""

    def __init__(self, prefix: str = "") -> None:
        self.state: dict[str, Tensor] = {}
        self._prefix, self._generator = prefix, torch.Generator().manual_seed(0)

    def weight(self, name: str, *shape: int) -> None:
        self.state[f"{self._prefix}{name}"] = torch.randn(shape, generator=self._generator) / 3

    def norm(self, name: str, channels: int, *, affine: bool = True) -> None:
        for part in ("weight", "bias") if affine else ():
            self.weight(f"{name}.{part}", channels)
        self.weight(f"{name}.running_mean", channels)
        self.state[f"{self._prefix}{name}.running_var"] = 1 + torch.rand(channels, generator=self._generator)
        self.state[f"{self._prefix}{name}.num_batches_tracked"] = torch.tensor(3)

    def pointwise(self, name: str, inputs: int, outputs: int) -> None:
        self.weight(f"{name}.op.1.weight", outputs, inputs, 1, 1)
        self.norm(f"{name}.op.2", outputs)

    def reduction(self, name: str, inputs: int, outputs: int) -> None:
        for half in ("conv_1", "conv_2"):
            self.weight(f"{name}.{half}.weight", outputs // 2, inputs, 1, 1)
        self.norm(f"{name}.bn", outputs)

    def convolutions(self, name: str, width: int, kernel: int, *, twice: bool) -> None:
        for first in (1, 5) if twice else (1,):
            self.weight(f"{name}.op.{first}.weight", width, 1, kernel, kernel)
            self.weight(f"{name}.op.{first + 1}.weight", width, width, 1, 1)
            self.norm(f"{name}.op.{first + 2}", width)


def supernet_of_darts() -> dict[str, Tensor]:
    """8 cells; 2 and 5 reduce, so that 3 and 6 bring a larger input to size."""
    made = Layout()
    made.weight("stem.0.weight", 3 * WIDTH, 3, 3, 3)
    made.norm("stem.1", 3 * WIDTH)
    older = newer = 3 * WIDTH
    width = WIDTH
    for cell in range(8):
        width *= 2 if cell in (2, 5) else 1
        older_input = made.reduction if cell in (3, 6) else made.pointwise
        older_input(f"cells.{cell}.preprocess0", older, width)
        made.pointwise(f"cells.{cell}.preprocess1", newer, width)
        for edge in range(14):
            from_input = edge in (0, 1, 2, 3, 5, 6, 9, 10)
            place = f"cells.{cell}._ops.{edge}._ops"
            made.norm(f"{place}.1.1", width)
            made.norm(f"{place}.2.1", width)
            if cell in (2, 5) and from_input:
                made.reduction(f"{place}.3", width, width)
            for operation, kernel, twice in ((4, 3, True), (5, 5, True), (6, 3, False), (7, 5, False)):
                made.convolutions(f"{place}.{operation}", width, kernel, twice=twice)
        older, newer = newer, 4 * width
    made.weight("classifier.weight", CLASSES, newer)
    made.weight("classifier.bias", CLASSES)
    return made.state


def retrained_darts(genes: tuple[int, ...], cells: int = 14) -> dict[str, Tensor]:
    made = Layout("module.")
    for name, inputs, outputs in (
        ("stem0.0", 3, WIDTH // 2),
        ("stem0.3", WIDTH // 2, WIDTH),
        ("stem1.1", WIDTH, WIDTH),
    ):
        made.weight(f"{name}.weight", outputs, inputs, 3, 3)
        stem, number = name.split(".")
        made.norm(f"{stem}.{int(number) + 1}", outputs)
    edges = [(node, source) for node in range(2, 6) for source in range(node)]
    older = newer = width = WIDTH
    reductions = (cells // 3, 2 * cells // 3)
    after = True
    for cell in range(cells):
        width *= 2 if cell in reductions else 1
        (made.reduction if after else made.pointwise)(f"cells.{cell}.preprocess0", older, width)
        made.pointwise(f"cells.{cell}.preprocess1", newer, width)
        own = genes[14:] if cell in reductions else genes[:14]
        there = [(edge, gene) for edge, gene in zip(edges, own, strict=True) if gene]
        for number, ((_, source), gene) in enumerate(there):
            place = f"cells.{cell}._ops.{number}"
            if gene == 3 and cell in reductions and source < 2:
                made.reduction(place, width, width)
            elif gene >= 4:
                made.convolutions(place, width, {4: 3, 5: 5, 6: 3, 7: 5}[gene], twice=gene in (4, 5))
        older, newer, after = newer, 4 * width, cell in reductions
        if cell == reductions[1]:
            made.weight("auxiliary_head.features.2.weight", 128, newer, 1, 1)
            made.norm("auxiliary_head.features.3", 128)
            made.weight("auxiliary_head.features.5.weight", 768, 128, 2, 2)
            made.weight("auxiliary_head.classifier.weight", CLASSES, 768)
            made.weight("auxiliary_head.classifier.bias", CLASSES)
    made.weight("classifier.weight", CLASSES, newer)
    made.weight("classifier.bias", CLASSES)
    return made.state


def write(path, state, epoch=249, **more):
    torch.save({"epoch": epoch, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}, **more}, path)
    return path


def test_a_supernet_of_the_released_code_loads_name_by_name(tmp_path):
    state = supernet_of_darts()
    supernet, checkpoint = load_supernet(write(tmp_path / "checkpoint_epoch_250.pth.tar", state), space_named("darts"))
    assert (supernet.shape.width, supernet.shape.cells, supernet.shape.classes) == (WIDTH, 8, CLASSES)
    loaded = supernet.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert checkpoint.epoch == 249
    assert not checkpoint.is_initial


def test_the_file_of_epoch_minus_one_holds_the_initial_weights(tmp_path):
    path = write(tmp_path / "checkpoint_epoch_0.pth.tar", supernet_of_darts(), epoch=-1)
    assert read_checkpoint(path, space_named("darts")).is_initial


def test_a_retrained_network_loads_without_the_prefix_and_the_second_classifier(tmp_path):
    state = retrained_darts(WITHOUT_POOLS)
    path = write(tmp_path / "checkpoint.pth.tar", state, best_acc_top1=76.1)
    network, shape = load_network(path, space_named("darts"), WITHOUT_POOLS, resolution=64)
    assert (shape.form, shape.width, shape.cells, shape.classes) == ("imagenet", WIDTH, 14, CLASSES)
    loaded = network.state_dict()
    kept = {name.removeprefix("module."): value for name, value in state.items() if "auxiliary" not in name}
    assert loaded.keys() == kept.keys()
    assert all(torch.equal(loaded[name], value) for name, value in kept.items())
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, CLASSES)


def test_a_network_with_a_second_classifier_takes_it_too(tmp_path):
    space = space_named("darts")
    path = write(tmp_path / "checkpoint.pth.tar", retrained_darts(WITHOUT_POOLS))
    shape = space.shape("imagenet", CLASSES, width=WIDTH)
    network = space.network(WITHOUT_POOLS, shape, auxiliary=True)
    assert compared(network, read_checkpoint(path, space).state).fits


def test_another_genotype_is_refused_with_the_names_that_differ(tmp_path):
    path = write(tmp_path / "checkpoint.pth.tar", retrained_darts(WITHOUT_POOLS))
    other = (5, *WITHOUT_POOLS[1:])
    with pytest.raises(
        UserError, match=r"of another shape \(cells\.0\._ops\.0\.op\.1\.weight \(4, 1, 3, 3\)"
    ) as refused:
        load_network(path, space_named("darts"), other)
    assert "\n" not in str(refused.value)


def test_missing_and_unexpected_tensors_are_listed(tmp_path):
    space = space_named("darts")
    state = supernet_of_darts()
    state["foreign.weight"] = state.pop("cells.1.preprocess1.op.2.bias")
    checkpoint = read_checkpoint(write(tmp_path / "a.pth.tar", state), space)
    supernet = space.supernet(space.shape("supernet", CLASSES, width=WIDTH))
    report = compared(supernet, checkpoint.state)
    assert (report.missing, report.unexpected) == (("cells.1.preprocess1.op.2.bias",), ("foreign.weight",))
    with pytest.raises(
        UserError, match=r"1 missing \(cells.1.preprocess1.op.2.bias\); 1 unexpected \(foreign.weight\)"
    ):
        load_supernet(tmp_path / "a.pth.tar", space)


def test_a_file_that_would_run_code_is_refused_before_it_does(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "a.pth.tar"
    torch.save({"epoch": 1, "state_dict": {}, "more": Trap()}, path, pickle_module=pickle)
    with pytest.raises(UserError, match="holds code"):
        read_checkpoint(path, space_named("darts"))
    assert not (tmp_path / "ran").exists()


def test_a_file_of_another_network_is_refused(tmp_path):
    path = write(tmp_path / "a.pth.tar", {"conv1.weight": torch.zeros(4, 3, 7, 7), "fc.weight": torch.zeros(10, 4)})
    with pytest.raises(UserError, match=r"is no supernet network of darts: it has no stem\.0\.weight"):
        load_supernet(path, space_named("darts"))


def renamed_as_spos(name: str) -> str:
    if name.startswith("head.6."):
        return f"classifier.0.{name.removeprefix('head.6.')}"
    for ours, theirs in (("stem.", "first_conv."), ("layers.", "features."), ("head.", "conv_last.")):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AssertionError(name)


@pytest.mark.parametrize("form", ["supernet", "stand-alone"])
def test_a_shufflenet_of_spos_sees_red_first_what_it_saw_blue_first(tmp_path, form):
    space = space_named("shufflenetv2")
    shape = small_shape(space, form, CLASSES)
    mine = space.supernet(shape) if form == "supernet" else space.network(SPOS_GENES, shape)
    randomise(mine)
    path = write(tmp_path / "a.pth.tar", {f"module.{renamed_as_spos(n)}": v for n, v in mine.state_dict().items()})
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    genes = [SPOS_GENES] if form == "supernet" else []
    if form == "supernet":
        loaded, _ = load_supernet(path, space, resolution=64)
    else:
        loaded, _ = load_network(path, space, SPOS_GENES, resolution=64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images, *genes), mine(images.flip(1), *genes), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(loaded.stem(images), mine.stem(images.flip(1)))
        assert not torch.allclose(loaded.stem(images), mine.stem(images), atol=0.1)


@pytest.mark.parametrize("name", ["nasbench201", "mobilenet", "digits-mini", "chain-a"])
def test_the_shape_of_a_supernet_is_read_from_its_tensors(tmp_path, name):
    space = space_named(name)
    supernet = space.supernet(small_shape(space, classes=CLASSES))
    path = write(tmp_path / "a.pth.tar", supernet.state_dict())
    found, _ = load_supernet(path, space, resolution=supernet.shape.resolution)
    assert found.shape == supernet.shape
