from __future__ import annotations

import copy
import math
import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.data.augmentation import eval_transform
from vtk_cli.data.byproducts.targets import PointTargets
from vtk_cli.data.classification_source import ImageSource
from vtk_cli.data.evaluation_batches import EvaluationBatches
from vtk_cli.data.images import BrokenImage
from vtk_cli.engine.processes.distributed import World
from vtk_cli.errors import UserError
from vtk_cli.models.evaluation import Evaluation, MultiLabelEvaluation, evaluate, normalised
from vtk_cli.models.preprocessing import PixelConfig

SIDE = 8
PIXELS = PixelConfig(SIDE, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), crop_pct=1.0)
CPU = torch.device("cpu")
QUIET = Console(quiet=True)


class Reader:
    """Images of random bytes; those of `broken` cannot be read."""

    def __init__(self, sizes: list[tuple[int, int]], broken: tuple[int, ...] = ()) -> None:
        self.sizes, self.broken = sizes, broken

    def __call__(self, index: int) -> Image.Image:
        if index in self.broken:
            raise BrokenImage("truncated", f"{index}.jpg")
        width, height = self.sizes[index]
        values = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(values)


def source(targets: Tensor, broken: tuple[int, ...] = (), sizes: list[tuple[int, int]] | None = None) -> ImageSource:
    count = len(targets)
    reader = Reader(sizes or [(SIDE, SIDE)] * count, broken)
    return ImageSource("images", tuple("abcdefg"), targets, reader, tuple(f"{i}.jpg" for i in range(count)))


def batches(images: ImageSource, **options: Any) -> EvaluationBatches:
    defaults: dict[str, Any] = {"batch_size": 4, "workers": 0, "console": QUIET}
    return EvaluationBatches(images, eval_transform(SIDE), **(defaults | options))


def network(classes: int = 7, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * SIDE * SIDE, classes))


class Pointing(nn.Module):
    """Answers the middle of the image, and the logits of a network."""

    def __init__(self, net: nn.Module, points: int) -> None:
        super().__init__()
        self.net, self.points = net, points

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(images), torch.full((len(images), self.points, 2), 0.5)


def logits_of(net: nn.Module, images: ImageSource, indices: list[int]) -> Tensor:
    """One image at a time, in float64."""
    net = copy.deepcopy(net).double().eval()
    rows = []
    for index in indices:
        pixels = torch.from_numpy(np.array(images.read(index))).permute(2, 0, 1)[None].double() / 255
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (PIXELS.mean, PIXELS.std))
        rows.append(net((pixels - mean) / std))
    return torch.cat(rows).detach()


TARGETS = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 1, 2])


def single(**options: Any) -> Evaluation:
    images = source(TARGETS)
    found = evaluate(network(), batches(images, **options), pixels=PIXELS, device=CPU, precision="fp32")
    assert isinstance(found, Evaluation)
    return found


def test_every_number_equals_that_of_a_loop_over_single_images() -> None:
    found = single()
    logits = logits_of(network(), source(TARGETS), list(range(10)))
    chances = logits.softmax(1)
    assert found.predictions.tolist() == logits.argmax(1).tolist()
    assert found.nll == pytest.approx(F.cross_entropy(logits, TARGETS).item(), abs=1e-6)
    assert found.confidences == pytest.approx(chances.max(1).values.numpy(), abs=1e-6)
    ranks = (logits > logits.gather(1, TARGETS[:, None])).sum(1)
    assert found.top1 == (ranks == 0).double().mean().item()
    assert found.top5 == (ranks < 5).double().mean().item()
    assert found.n == 10
    assert set(found.scalars()) == {"top1", "top5", "nll", "ece"}


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    found, expected = single(batch_size=batch_size), single()
    assert found.predictions.tolist() == expected.predictions.tolist()
    assert found.nll == pytest.approx(expected.nll, abs=1e-6)


def test_workers_read_the_same() -> None:
    assert single(workers=2).nll == pytest.approx(single().nll, abs=1e-9)


def test_dropout_is_off_and_the_mode_is_as_before() -> None:
    net = network().train()
    images = source(TARGETS)
    options: dict[str, Any] = {"pixels": PIXELS, "device": CPU, "precision": "fp32"}
    first, second = (evaluate(net, batches(images), **options).scalars() for _ in range(2))
    assert first == second
    assert net.training
    evaluate(net.eval(), batches(images), **options)
    assert not net.training


def test_the_generators_stay_where_they_are() -> None:
    net = network()
    before = torch.get_rng_state(), random.getstate()
    evaluate(net, batches(source(TARGETS), workers=1), pixels=PIXELS, device=CPU)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


class _Threads(World):
    """Processes played by threads: they meet to exchange what they gather."""

    exchange: Any = None

    def gather(self, value: Any) -> list[Any]:
        values, barrier = self.exchange
        values[self.rank] = pickle.loads(pickle.dumps(value))  # noqa: S301  (as it would travel)
        barrier.wait(timeout=20)
        return list(values)


def shared(net: nn.Module, images: ImageSource, size: int, **options: Any) -> list[Any]:
    """The results, or the errors, of `size` processes that share an evaluation."""
    exchange = ([None] * size, threading.Barrier(size))

    def run(rank: int) -> Any:
        world = _Threads(rank, size, rank, CPU)
        object.__setattr__(world, "exchange", exchange)
        try:
            return evaluate(
                copy.deepcopy(net), batches(images, world=world), pixels=PIXELS, device=CPU, world=world, **options
            )
        except UserError as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_processes_together_answer_every_sample_once(size: int) -> None:
    whole = single()
    for found in shared(network(), source(TARGETS), size):
        assert found.indices.tolist() == list(range(10))
        assert found.predictions.tolist() == whole.predictions.tolist()
        assert found.nll == pytest.approx(whole.nll, abs=1e-6)


def test_more_processes_than_samples_still_answer_every_sample_once() -> None:
    for found in shared(network(), source(TARGETS[:2]), 3):
        assert found.indices.tolist() == [0, 1]


def test_an_error_of_one_process_is_raised_in_all() -> None:
    found = shared(network(), source(TARGETS[:8], broken=(1, 3, 5)), 2)
    assert all(isinstance(error, UserError) for error in found)
    assert "1.jpg (truncated)" in str(found[0])


@pytest.mark.parametrize(("broken", "refused"), [((4,), False), ((3, 4), True)])
def test_broken_files_are_counted_over_all_processes(broken: tuple[int, ...], *, refused: bool) -> None:
    """Processes of 5 samples each, of which one may be broken among all 10."""
    found = shared(network(), source(TARGETS, broken=broken), 2)
    assert [isinstance(one, UserError) for one in found] == [refused] * 2
    if refused:
        assert all(
            "at least 2 of 10 images cannot be read, first 3.jpg (truncated), 4.jpg" in str(one) for one in found
        )


def test_restricted_classes_alone_compete() -> None:
    targets = torch.tensor([1, 4, 6, 1])
    images = source(targets)
    found = evaluate(network(), batches(images), pixels=PIXELS, device=CPU, precision="fp32", restrict=(6, 1, 4))
    assert isinstance(found, Evaluation)
    logits = logits_of(network(), images, [0, 1, 2, 3])[:, [1, 4, 6]]
    assert found.predictions.tolist() == [[1, 4, 6][i] for i in logits.argmax(1).tolist()]
    assert found.nll == pytest.approx(F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).item(), abs=1e-6)
    assert found.top5 == 1.0
    assert found.classes == 7


@pytest.mark.parametrize("kept", [(1, 4), (1, 6)])
def test_a_target_that_may_not_compete_is_refused(kept: tuple[int, ...]) -> None:
    images = source(torch.tensor([1, 4, 6]))
    with pytest.raises(UserError, match="classes that it is not to have"):
        evaluate(network(), batches(images), pixels=PIXELS, device=CPU, restrict=kept)


def test_several_labels_give_average_precision_over_all_samples() -> None:
    torch.manual_seed(1)
    targets = (torch.rand(9, 7) < 0.4).float()
    images = source(targets)
    found = evaluate(network(), batches(images), pixels=PIXELS, device=CPU, precision="fp32")
    assert isinstance(found, MultiLabelEvaluation)
    logits = logits_of(network(), images, list(range(9)))
    assert found.bce == pytest.approx(F.binary_cross_entropy_with_logits(logits, targets.double()).item(), abs=1e-6)
    assert found.logits == pytest.approx(logits.numpy(), abs=1e-5)
    assert 0.0 < found.mean_ap <= 1.0


def test_a_broken_file_is_left_out_and_named_once(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    console = Console(quiet=True)
    some = batches(source(TARGETS, broken=(3,)), console=console)
    with console.log_to(log):
        for _ in range(2):
            found = evaluate(network(), some, pixels=PIXELS, device=CPU)
    assert found.indices.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert log.read_text().count("3.jpg: truncated") == 1


def test_many_broken_files_are_refused() -> None:
    with pytest.raises(UserError, match=r"at least 2 of 10 images cannot be read, first 3.jpg \(truncated\)"):
        evaluate(network(), batches(source(TARGETS, broken=(3, 7))), pixels=PIXELS, device=CPU)


def test_a_set_without_a_readable_image_is_refused() -> None:
    with pytest.raises(UserError, match="no image to evaluate on"):
        evaluate(network(), batches(source(TARGETS[:1], broken=(0,))), pixels=PIXELS, device=CPU)


def test_normalised_pixels_have_mean_and_spread_taken_out() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(0.0 - 0.5) / 0.2, (1.0 - 0.4) / 0.3, (0.2 - 0.3) / 0.4]
    torch.testing.assert_close(normalised(images, PIXELS).flatten(), torch.tensor(expected))


def test_clicks_and_boxes_are_compared_in_the_crop() -> None:
    """Of a 32 x 16 image the middle 16 x 16 are seen, at half the size; the head always answers the middle."""
    points = PointTargets(
        torch.tensor([[[0.5, 0.5]], [[0.625, 0.5]], [[0.1, 0.5]], [[0.5, 0.5]]]),
        torch.tensor([[True], [True], [True], [False]]),
        torch.tensor([[[0.4, 0.4, 0.6, 0.6]], [[0.6, 0.0, 1.0, 1.0]], [[0.0, 0.2, 0.51, 0.8]], [[0.0, 0.0, 0.0, 0.0]]]),
    )
    images = source(TARGETS[:4], sizes=[(32, 16)] * 4)
    some = batches(images, points=points)
    _, _, _, clicks, present, boxes = next(iter(some))
    torch.testing.assert_close(clicks[:, 0], torch.tensor([[0.5, 0.5], [0.75, 0.5], [0.5, 0.5], [0.5, 0.5]]))
    assert present[:, 0].tolist() == [True, True, False, False]
    torch.testing.assert_close(boxes[1, 0], torch.tensor([0.7, 0.0, 1.5, 1.0]))
    torch.testing.assert_close(boxes[2, 0], torch.tensor([-0.5, 0.2, 0.52, 0.8]))
    assert boxes[3, 0].tolist() == [0.0] * 4
    found = evaluate(Pointing(network(), 1), some, pixels=PIXELS, device=CPU)
    assert found.points is not None
    assert found.points.click_error_px == pytest.approx((0.0 + 0.25 * SIDE) / 2)
    assert found.points.pointing_hits == pytest.approx(2 / 3)
    assert {"click_error", "click_error_px", "pointing_hits"} <= set(found.scalars())


@pytest.mark.parametrize(("width", "height", "pct"), [(500, 375, 0.875), (33, 90, 0.9), (16, 16, 1.0), (1, 3, 0.95)])
def test_a_box_goes_where_its_corners_go(width: int, height: int, pct: float) -> None:
    """A small box at the middle, whose corners stay in the crop, so that they can be followed as points."""
    box = torch.tensor([[0.45, 0.48, 0.52, 0.53]])
    corners = torch.stack([box[:, :2], box[:, 2:]], dim=1)
    images = source(TARGETS[:1], sizes=[(width, height)])
    targets = PointTargets(corners, torch.ones(1, 2, dtype=torch.bool), box[:, None].repeat(1, 2, 1))
    transform = eval_transform(24, pct)
    some = EvaluationBatches(images, transform, batch_size=1, workers=0, console=QUIET, points=targets)
    _, _, _, clicks, _, boxes = next(iter(some))
    torch.testing.assert_close(boxes[0, 0], clicks.flatten(), rtol=0, atol=1e-5)


def test_without_clicks_the_point_head_is_not_measured() -> None:
    found = evaluate(Pointing(network(), 1), batches(source(TARGETS)), pixels=PIXELS, device=CPU)
    assert found.points is None


def test_an_untrained_head_of_a_class_pair_is_at_chance() -> None:
    """Equal logits: the loss is log C whatever the target."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 7))
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    found = evaluate(net, batches(source(TARGETS)), pixels=PIXELS, device=CPU)
    assert isinstance(found, Evaluation)
    assert found.nll == pytest.approx(math.log(7), abs=1e-6)
    assert found.confidences == pytest.approx(np.full(10, 1 / 7), abs=1e-6)
