"""What a training leaves behind: weights for anybody, the best epoch, and runs that equal one another bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.shared_runs import run_together
from tests.train.conftest import Vtk
from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.update import Clock
from vtk_cli.models.best_weights import BestWeights
from vtk_cli.train.input_check import require_batch, require_size
from vtk_cli.train.kept_weights import best_weights
from vtk_cli.train.options import TrainOptions
from vtk_cli.train.outcome import _duration
from vtk_cli.train.preparation import Training, open_data, prepare
from vtk_cli.train.recipes import RECIPES
from vtk_cli.train.trained import open_trained

DIGITS = ("--images-per-class", "2", "--epochs", "2", "--batch-size", "10", "--workers", "0")
SWIN = ("--model", "swin_tiny_patch4_window7_224", "--model-arg", "window_size=4", "--model-arg", "embed_dim=12")
ONE = World(0, 1, 0, torch.device("cpu"))


def weights(folder: Path, name: str = "model") -> dict[str, Tensor]:
    return load_file(folder / f"{name}.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def training(**values: Any) -> Training:
    options = TrainOptions(**{**RECIPES["digits"], "images_per_class": 2, "batch_size": 10, "workers": 0, **values})
    quiet = Console(quiet=True)
    return prepare(options, open_data(options, quiet), ONE, quiet)


# Weights for anybody


@pytest.mark.parametrize(
    "network",
    [
        (),
        ("--model", "test_vit", "--sub", "dropout", "--img-size", "32"),
        ("--model", "test_resnet", "--img-size", "64", "--sub", "droppath"),
        (*SWIN, "--img-size", "32"),
    ],
    ids=["tokens", "dropout", "drop-path", "mask-token"],
)
def test_plain_timm_loads_the_weights_strictly_and_answers_as_the_run_did(
    vtk: Vtk, tmp_path: Path, network: tuple[str, ...]
) -> None:
    found = vtk(*DIGITS, *network, "--epochs", 1, "--out", "run", "--ema-decay", 0.5, "--json").object
    for name in ("model", "ema", "best"):
        path = tmp_path / "run" / f"{name}.safetensors"
        with safe_open(path, "pt") as file:
            said = file.metadata()
        plain = timm.create_model(
            said["architecture"], num_classes=10, **{**json.loads(said["model_args"]), "pretrained": False}
        )
        plain.load_state_dict(load_file(path), strict=True)
        ours = open_trained(str(tmp_path / "run"), name.replace("model", "last")).network
        images = torch.rand(3, 3, ours.config.input_size, ours.config.input_size)
        assert torch.equal(plain.eval()(images), ours.module.eval()(images))
    assert vtk("eval", "run", "--json").object["nll"] == pytest.approx(found["nll"], rel=1e-6)


def test_byproducts_and_masks_leave_no_weight_behind(vtk: Vtk, tmp_path: Path, shared_pictures: Path) -> None:
    lines = [f"{name}/{name}{index}.png,0.4,0.6" for name in ("ant", "bee") for index in range(6)]
    (tmp_path / "clicks.csv").write_text("\n".join(["file,x,y", *lines]))
    tiny = ("--model", "test_vit", "--img-size", 32, "--epochs", 1, "--batch-size", 4, "--workers", 0)
    said = vtk(
        shared_pictures, *tiny, "--out", "run", "--byproducts", "clicks.csv", "--ab-sub", "relaxed", "--mixup", 1
    )
    assert said.code == 0, said.err
    assert "pull of the points against the classes" in said.out
    norms = json.loads((tmp_path / "run" / "summary.json").read_text())["gradient_norms"]
    assert norms["points"] > 0
    assert norms["class"] > 0
    plain = timm.create_model("test_vit", num_classes=2, img_size=32)
    assert weights(tmp_path / "run").keys() == plain.state_dict().keys()
    assert "nothing is known of the combination" in (tmp_path / "run" / "report.html").read_text()


def test_looking_at_the_pull_of_the_points_leaves_the_weights_as_the_last_epoch_left_them(
    vtk: Vtk, tmp_path: Path, shared_pictures: Path
) -> None:
    """A forward in training mode would move batch normalisation's statistics."""
    (tmp_path / "clicks.csv").write_text("file,x,y\nant/ant0.png,0.4,0.6\nbee/bee0.png,0.4,0.6\n")
    flags = ("--model", "test_resnet", "--img-size", 64, "--epochs", 2, "--batch-size", 12, "--workers", 0)
    assert vtk(shared_pictures, *flags, "--byproducts", "clicks.csv", "--out", "run").code == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert vtk("eval", "run", "--json").object["nll"] == pytest.approx(last["nll"], rel=1e-6)


# Runs that equal one another


def test_without_a_sub_branch_its_options_change_no_bit(vtk: Vtk, tmp_path: Path) -> None:
    for name, flags in (("plain", ()), ("other", ("--sub-ratio", "0.9", "--sub-target", "label", "--sub-fused"))):
        assert vtk(*DIGITS, "--sub", "none", *flags, "--out", name).code == 0
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "other"))


def test_a_point_loss_of_weight_0_changes_no_bit(vtk: Vtk, tmp_path: Path, shared_pictures: Path) -> None:
    """The head for points takes part in the forward and the optimiser, and in nothing that is kept."""
    lines = [f"{name}/{name}{index}.png,0.4,0.6" for name in ("ant", "bee") for index in range(6)]
    (tmp_path / "clicks.csv").write_text("\n".join(["file,x,y", *lines]))
    tiny = ("--model", "test_vit", "--img-size", 32, "--epochs", 2, "--batch-size", 4, "--workers", 0)
    for name, flags in (("plain", ()), ("points", ("--byproducts", "clicks.csv", "--ab-weight", "0"))):
        assert vtk(shared_pictures, *tiny, *flags, "--out", name).code == 0
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "points"))


def test_the_number_of_workers_and_the_data_s_place_change_no_bit(vtk: Vtk, tmp_path: Path) -> None:
    flags = ("--mixup", 0.4, "--hflip", 0.5, "--erasing", 0.5)
    assert vtk(*DIGITS, *flags, "--out", "none").code == 0
    assert vtk(*DIGITS, *flags, "--out", "two", "--workers", 2).code == 0
    assert same(weights(tmp_path / "none"), weights(tmp_path / "two"))
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("none", "two")]
    assert rows[0] == rows[1]


def test_at_the_first_step_the_main_branch_answers_as_without_a_sub_branch() -> None:
    """The masks are drawn from a generator of their own: batches, mixing and dropout are as in plain training."""
    answers = []
    for sub in ("none", "mask", "droppath"):
        made = training(sub=sub, mixup=0.8, drop=0.3, drop_path=0.2)
        made.classifier.train()
        seen: list[Tensor] = []
        made.classifier.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out[0].detach()))
        batch = next(made.batches.epoch(0, 0))
        list(made.objective(made.classifier, batch, Clock(0, 0, 7)))
        assert len(seen) == (1 if sub == "none" else 2)
        answers.append(seen)
    assert torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][0], answers[2][0])
    assert not torch.equal(answers[1][0], answers[1][1])


def test_what_a_sub_branch_is_asked_for_does_not_change_what_is_evaluated() -> None:
    plain = training(sub="none").classifier.eval()
    images = torch.rand(4, 3, 32, 32)
    for sub in ("mask", "dropout", "droppath"):
        with_sub = training(sub=sub).classifier.eval()
        assert torch.equal(plain(images)[0], with_sub(images)[0])


# The best epoch


def test_the_best_weights_are_the_first_of_equals_and_forget_nothing_when_epochs_are_made_again(
    tmp_path: Path,
) -> None:
    made = training(sub="none")
    options = TrainOptions(**RECIPES["digits"])
    path = tmp_path / "best.safetensors"

    def hear(epoch: int, top1: float | None, mark: float, keep: BestWeights) -> None:
        with torch.no_grad():
            made.classifier.network.head.bias.fill_(mark)  # type: ignore[union-attr]
        keep({"epoch": epoch} | ({} if top1 is None else {"top1": top1}), made.classifier, None)

    keep = best_weights(options, made, path)
    assert keep.kept() is None
    hear(1, None, 0.5, keep)
    assert not path.exists(), "an epoch without an evaluation says nothing"
    for epoch, top1 in enumerate((0.3, 0.7, 0.7, 0.6), 2):
        hear(epoch, top1, epoch, keep)
    assert keep.kept() == {"epoch": 3, "top1": 0.7}
    assert load_file(path)["head.bias"][0] == 3
    again = best_weights(options, made, path)  # the run was killed and makes epochs 2 to 5 again
    for epoch, top1 in enumerate((0.3, 0.7, 0.7, 0.6), 2):
        hear(epoch, top1, epoch, again)
        assert again.kept() == {"epoch": 3, "top1": 0.7}, "what is kept was never worse in between"
    assert again.kept() == {"epoch": 3, "top1": 0.7}
    assert load_file(path)["head.bias"][0] == 3
    hear(6, 0.71, 6, again)
    assert again.kept() == {"epoch": 6, "top1": 0.71}


def test_the_averaged_weights_are_the_best_where_they_do_better(tmp_path: Path) -> None:
    made, other = training(sub="none"), training(sub="none", seed=1)
    keep = best_weights(TrainOptions(**RECIPES["digits"]), made, tmp_path / "best.safetensors")
    keep({"epoch": 1, "top1": 0.5, "ema_top1": 0.6}, made.classifier, other.classifier)
    assert same(weights(tmp_path, "best"), other.classifier.inference_state())
    keep({"epoch": 2, "top1": 0.7, "ema_top1": 0.7}, made.classifier, other.classifier)
    assert same(weights(tmp_path, "best"), made.classifier.inference_state())


# Everything a recipe asks for can be made


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in {"coco-ab", "digits"}])
def test_a_recipe_builds_its_training_on_a_network_like_its_own(
    vtk: Vtk, tmp_path: Path, shared_pictures: Path, name: str
) -> None:
    network = str(RECIPES[name].get("model", "test_vit"))
    like: dict[str, tuple[object, ...]] = {"resn": ("--model", "test_resnet"), "swin": SWIN}
    flags = (*like.get(network[:4], ("--model", "test_vit")), "--img-size", 64, "--eval-size", 64, "--batch-size", 4)
    if name.endswith("-ab"):
        (tmp_path / "clicks.csv").write_text("file,x,y\nant/ant0.png,0.5,0.5\n")
        flags += ("--byproducts", "clicks.csv", "--ab-format", "csv")
    plan = vtk(shared_pictures, "--recipe", name, *flags, "--weights", "scratch", "--dry-run", "--json").object
    assert plan["epochs"] == RECIPES[name]["epochs"]
    assert plan["lr"] > 0


def test_the_recipe_of_coco_ab_trains_on_several_labels_and_points(vtk: Vtk, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    rows = ["file,x,y,class"]
    for split in ("train", "val"):
        (tmp_path / f"{split}2014").mkdir()
        images = [{"id": n, "file_name": f"{split}{n}.png", "width": 40, "height": 30} for n in range(1, 9)]
        for image in images:
            Image.new("RGB", (40, 30), (20 * image["id"], 90, 40)).save(tmp_path / f"{split}2014" / image["file_name"])
        boxes = [
            {"id": n, "image_id": 1 + n % 8, "category_id": 1 + n % 2, "bbox": [2, 3, 9, 9], "area": 81, "iscrowd": 0}
            for n in range(1, 13)
        ]
        rows += [f"{split}{n}.png,0.2,0.3,ant" for n in range(1, 9) if split == "train"]
        content = {"images": images, "annotations": boxes}
        content["categories"] = [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}]
        (tmp_path / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(content))
    (tmp_path / "clicks.csv").write_text("\n".join(rows))
    tiny = ("--model", "test_resnet", "--img-size", 64, "--epochs", 6, "--batch-size", 4, "--workers", 0)
    recipe = ("--recipe", "coco-ab", "--byproducts", "clicks.csv", "--ab-format", "csv", "--sub", "mask")
    found = vtk(tmp_path, *recipe, *tiny, "--out", "run", "--json").object
    assert 0 <= found["map"] <= 1
    assert "map" in found["best"]
    assert open_trained(str(tmp_path / "run")).multi_label
    assert vtk(tmp_path, *tiny, "--out", "ce").complaint.endswith("give --loss bce")


# Many ways at once, and several processes


@pytest.mark.parametrize(
    "flags",
    [
        ("--accumulate", "3", "--batch-size", "7", "--mixup", "0.8", "--cutmix", "1", "--repeats", "3"),
        ("--mix-mode", "pair", "--mixup", "0.8", "--batch-size", "7", "--clip-norm", "1"),
        ("--mix-mode", "elem", "--mixup", "0.8", "--batch-size", "1", "--sub-ratio", "0.25:0.75"),
        ("--precision", "bf16", "--channels-last", "--grad-checkpointing", "--ema-decay", "0.9"),
        ("--batch-size", "1000", "--layer-decay", "0.7", "--schedule-on", "epochs", "--loss", "bce", "--binarize"),
        ("--sub-target", "mix", "--sub-fused", "--warmup", "1", "--evaluate-epochs", "2", "--optimizer", "lamb"),
    ],
    ids=lambda flags: flags[0],
)
def test_options_go_together(vtk: Vtk, flags: tuple[str, ...]) -> None:
    found = vtk(*DIGITS, *flags, "--out", "run", "--json").object
    assert found["updates"] > 0
    assert 0 <= found["top1"] <= 1


@pytest.mark.slow
def test_a_compiled_network_learns_what_the_plain_one_learns(vtk: Vtk, tmp_path: Path) -> None:
    small = ("--model-arg", "depth=1", "--model-arg", "embed_dim=16", "--model-arg", "num_heads=1", "--epochs", 1)
    for name, flags in (("plain", ()), ("compiled", ("--compile",))):
        said = vtk(*DIGITS, *small, *flags, "--out", name)
        assert said.code == 0, said.err
    one, other = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, atol=2e-3, rtol=0.05)


@pytest.mark.slow
def test_two_processes_finish_write_once_and_measure_what_one_measures(
    vtk: Vtk, train_cache: Path, tmp_path: Path
) -> None:
    flags = [*DIGITS, "--device", "cpu", "--out", "run", "--ema-decay", "0.5", "--json"]
    flags += ["--model", "test_resnet", "--img-size", "32"]  # with running statistics, which no gradient makes equal
    commands = [["train", *flags, "--dry-run"], ["train", *flags]]
    (plan, _), (done, _) = run_together(commands, folder=tmp_path, cache=train_cache, preload="vtk_cli.train.job")
    assert plan.object["epochs"] == 2
    found = done.object
    assert (found["processes"], found["updates"]) == (2, 4)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    for prefix, which in (("", "last"), ("ema_", "ema")):
        alone = vtk("eval", "run", "--which", which, "--json").object
        assert alone["images"] == 360
        for name in ("top1", "top5", "nll", "ece"):
            assert alone[name] == pytest.approx(found[prefix + name], rel=1e-4, abs=1e-4)


# Images and batches that a network cannot take


def test_a_network_that_looks_at_values_is_asked_with_values() -> None:
    class Looks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3 * 64, 2)

        def forward(self, images: Tensor) -> Tensor:
            if images.abs().max().item() > 9:
                raise ValueError("too bright")
            return self.layer(images.flatten(1))  # type: ignore[no-any-return]

    network = Looks().train()
    require_size(network, 8, "--img-size")
    assert network.training
    with pytest.raises(Exception, match="--eval-size: a Looks does not take images of 9 x 9 pixels"):
        require_size(network, 9, "--eval-size")
    require_batch(network, 8, 1)


def test_only_batch_normalisation_over_a_single_value_refuses_a_single_image() -> None:
    network = timm.create_model("test_resnet")
    require_batch(network, 64, 1)
    require_batch(network, 32, 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(Exception, match="--batch-size: batch normalisation cannot train on one image"):
        require_batch(network, 32, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("seconds", "words"), [(0.25, "0.2 s"), (59, "59.0 s"), (90, "1.5 min"), (5400, "1.50 h")])
def test_times_are_told_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert _duration(seconds) == words
