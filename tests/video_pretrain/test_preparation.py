"""What a training is built of: where its weights start, when MoCo's queue is full, what the plan says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from tests.video_pretrain.tiny_runs import SSL, SUPERVISED, Call
from vtk_cli.console import Console
from vtk_cli.data.video.records import VideoFile
from vtk_cli.data.video.sets import VideoSet
from vtk_cli.engine.processes.distributed import World
from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.job import spread
from vtk_cli.video_pretrain.options import VideoOptions
from vtk_cli.video_pretrain.preparation import Data, Training, prepare, source_of

QUIET = Console(quiet=True)


def prepared(**given: object) -> Training:
    """Of 40 videos, which are never decoded."""
    options = VideoOptions(**{**VideoOptions.recipes["digits-ssl"], "workers": 0, "batch_size": 8, **given})  # type: ignore[arg-type]
    videos = VideoSet("none", tuple(VideoFile(Path(f"{number}.mp4"), 0, "") for number in range(40)), ("0",))
    data = Data(videos, None, source_of(videos, options), None)
    return prepare(options, data, World(0, 1, 0, torch.device("cpu")), QUIET)


@pytest.mark.parametrize(("queue", "accumulate", "idle"), [(48, 1, 3), (48, 2, 2), (64, 2, 2), (160, 1, 5)])
def test_nothing_moves_until_the_queue_is_full_but_in_the_first_epoch_only(queue, accumulate, idle):
    rate = prepared(method="moco", queue=queue, accumulate=accumulate).scheduler
    assert rate.idle == idle
    rate.step_update(idle - 1)
    assert rate.optimizer.param_groups[0]["lr"] == 0
    rate.step_update(idle)
    assert rate.optimizer.param_groups[0]["lr"] > 0


def test_a_transformer_starts_from_a_file_of_an_image_vit(clips: Path, run: Call) -> None:
    torch.manual_seed(1)
    image = timm.create_model("test_vit")
    safetensors.torch.save_file(image.state_dict(), "vit.safetensors")
    torch.save(image.state_dict(), "vit.pth")
    vit = [
        "--model",
        "timesformer:test_vit",
        "--img-size",
        "32",
        "--lr",
        "1e-9",
        "--epochs",
        "1",
        "--weight-decay",
        "0",
    ]
    code, _, err = run(
        "run", clips, *SUPERVISED, *vit, "--weights", "vit.safetensors", "--time", "none", "--out", "run"
    )
    assert code == 0, err
    assert "starts from file: vit.safetensors" in err
    found = safetensors.torch.load_file("run/model.safetensors")["backbone.blocks.0.mlp.fc1.weight"]
    torch.testing.assert_close(found, image.state_dict()["blocks.0.mlp.fc1.weight"], atol=1e-6, rtol=0)
    assert run("run", clips, *SUPERVISED, *vit, "--weights", "vit.pth", "--dry-run")[0] == 0


def test_a_file_that_is_no_network_is_called_that(clips: Path, run: Call) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, "a.safetensors")
    code, _, err = run("run", clips, *SSL, "--weights", "a.safetensors")
    assert code == 2
    assert "a.safetensors: holds no video network" in err


def test_the_plan_has_the_highest_rate_scaled_to_the_batch(clips: Path, run: Call) -> None:
    rate = ["--lr", "0.4", "--lr-base-size", "16", "--warmup", "1", "--warmup-lr", "0.001", "--dry-run", "--json"]
    code, out, err = run("run", clips, *SSL, *rate)
    assert code == 0, err
    assert json.loads(out)["lr"] == pytest.approx(0.2)


def test_without_epochs_for_them_there_are_no_nearest_neighbours(clips: Path, run: Call) -> None:
    code, out, err = run("run", clips, *SSL, "--epochs", "1", "--knn-epochs", "0", "--json")
    assert code == 0, err
    assert "top1" not in json.loads(out)


def test_the_videos_to_compare_with_are_from_all_over_the_list():
    assert spread(3, 10) == [0, 1, 2]
    assert spread(10, 5) == [0, 2, 4, 6, 8]
    assert spread(10, 3) == [0, 3, 6]


def test_a_temporal_loss_needs_whole_patches_and_tokens():
    with pytest.raises(UserError, match="gives no token"):
        prepared(time="order")
