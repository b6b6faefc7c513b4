"""The training that a protocol is: fine-tuning, or a linear probe by SGD (arXiv 2104.14558)."""

from __future__ import annotations

from dataclasses import asdict

from vtk_cli.video_pretrain.data_options import MOVING_DIGITS
from vtk_cli.video_pretrain.eval_options import EvalOptions
from vtk_cli.video_pretrain.named_videos import named_videos, options_of_run
from vtk_cli.video_pretrain.options import VideoOptions
from vtk_cli.video_pretrain.trained import SavedNetwork

_RATES, _RATES_FOR = {"linear": 0.5, "finetune": 0.005}, 64
"""Learning rates, and the videos of an update that they are meant for."""

_GIVEN = (
    *("epochs", "optimizer", "weight_decay", "schedule", "milestones", "warmup", "dropout"),
    *("jitter", "jitter_hue", "gray_prob", "batch_size"),
    *("backend", "decode_timeout", "short", "in_memory", "workers"),
    *("test_clips", "test_crops", "test_scale", "views_offset", "ensemble", "allow_missing"),
    *("precision", "compile", "checkpoint_seconds", "skip_nonfinite", "seed"),
    *("device", "out", "dry_run"),
    *("nproc", "parallel", "sync_bn"),
)
"""What the options of an evaluation say of it."""

_VIEWS = (
    *("crop", "short_side_min", "short_side_max", "crop_area_min", "crop_area_max", "crop_aspect"),
    *("hflip", "jitter_prob", "blur_prob", "blur_min", "blur_max"),
)
"""What it has of the views of the network's own training."""


def further_training(options: EvalOptions, saved: SavedNetwork, protocol: str) -> VideoOptions:
    """The options of the training: no FreqAug, no temporal losses, plain labels.

    Raises:
        UserError: no videos are named.
    """
    run, videos, config = options_of_run(saved), named_videos(options, saved), saved.config
    recipe = "digits-supervised" if videos.data == MOVING_DIGITS else "supervised"
    rate = {"lr": options.lr, "lr_base_size": options.lr_base_size}
    if options.lr is None:
        rate = {"lr": _RATES[protocol], "lr_base_size": options.lr_base_size or _RATES_FOR}
    return VideoOptions(
        **{
            **VideoOptions.recipes[recipe],
            "hflip": 0.5,
            **{name: run[name] for name in _VIEWS if name in run},
            **({} if options.hflip is None else {"hflip": options.hflip}),
            **{name: getattr(options, name) for name in _GIVEN},
            **rate,
            **asdict(videos),
            "recipe": recipe,
            "objective": "supervised",
            "model": config.name,
            "model_arg": tuple(f"{name}={value}" for name, value in config.model_args.items()),
            "weights": str(saved.path),
            "sampling": options.sampling or config.sampling,
            "img_size": config.side,
            "mean": config.mean,
            "std": config.std,
            "time": "none",
            "freqaug": "none",
            "smoothing": 0.0,
            "amsgrad": False,
            "freeze": protocol == "linear",
            "probe_bn": options.probe_bn,
        }
    )
