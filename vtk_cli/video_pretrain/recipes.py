"""Published trainings under a name (`--recipe`): what they set the options of `vtk video-pretrain run` to.

The contrastive trainings are those of the large-scale study (arXiv 2104.14558) of MoCo (arXiv 1911.05722, 2003.04297),
BYOL (arXiv 2006.07733), SimCLR (arXiv 2002.05709) and SwAV (arXiv 2006.09882) on SlowOnly-R50, 8 frames 8 apart, 200
epochs of Kinetics-400; learning rates are for 64 videos an update and scaled to yours. All but MoCo, which deals its
keys out anew among the processes, normalise over the batch of all processes. FreqAug (arXiv 2204.03865) adds its filter
to them, and TIME (arXiv 2207.09067) its three losses to supervised transformers on Something-Something v2.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Recipe = Mapping[str, Any]
"""Field of `VideoOptions` -> value."""

_KINETICS: Recipe = {
    "objective": "ssl",
    "model": "slow_r50",
    "sampling": "dense:8x8",
    "img_size": 224,
    "batch_size": 64,
    "epochs": 200,
    "optimizer": "sgd",
    "momentum": 0.9,
    "lr_base_size": 64,
    "schedule": "cosine",
    "warmup": 35.0,
    "warmup_lr": 0.001,
    "min_lr": 0.0,
    "crop": "random-resized",
    "crop_area_min": 0.2,
    "crop_area_max": 0.766,
    "hflip": 0.5,
    "jitter": 0.6,
    "jitter_hue": 0.15,
    "jitter_prob": 0.8,
    "gray_prob": 0.2,
    "blur_prob": 0.5,
    "mean": 0.45,
    "std": 0.225,
    "head_dim": 128,
    "head_layers": 3,
    "head_width": 2048,
    "head_bn": False,
    "test_clips": 10,
    "test_crops": "3",
}
_MOCO: Recipe = {
    **_KINETICS,
    "method": "moco",
    "views": 2,
    "temperature": 0.1,
    "momentum_encoder": 0.994,
    "momentum_anneal": True,
    "queue": 65536,
    "lr": 0.1,
    "weight_decay": 1e-4,
}
_BYOL: Recipe = {
    **_KINETICS,
    "sync_bn": True,
    "method": "byol",
    "views": 2,
    "temperature": 0.5,
    "head_layers": 2,
    "head_width": 4096,
    "head_dim": 256,
    "head_bn": True,
    "predictor_width": 4096,
    "momentum_encoder": 0.996,
    "momentum_anneal": True,
    "optimizer": "nlars",
    "lr": 0.6,
    "weight_decay": 1e-6,
}
_SIMCLR: Recipe = {
    **_KINETICS,
    "sync_bn": True,
    "method": "simclr",
    "views": 2,
    "temperature": 0.1,
    "optimizer": "nlars",
    "lr": 1.2,
    "weight_decay": 1e-6,
}
_SWAV: Recipe = {
    **_KINETICS,
    "sync_bn": True,
    "method": "swav",
    "views": 2,
    "temperature": 0.1,
    "head_bn": True,
    "prototypes": 1000,
    "sinkhorn_eps": 0.05,
    "sinkhorn_iterations": 3,
    "optimizer": "nlars",
    "lr": 0.6,
    "weight_decay": 1e-6,
}
_FREQAUG: Recipe = {"freqaug": "t", "freq_prob": 0.5, "freq_cutoff_t": 0.1, "freq_cutoff_s": 0.01}
_MINI: Recipe = {"img_size": 112}

_TIME: Recipe = {
    "objective": "supervised",
    "sampling": "segment:8",
    "img_size": 224,
    "batch_size": 64,
    "epochs": 35,
    "weights": "pretrained",
    "time": "order,debias,flow",
    "time_weights": "1,1,1",
    "time_perm": "batch",
    "flow_target": "farneback",
    "flow_static": "relative",
    "flow_bins": "edges",
    "smoothing": 0.2,
    "optimizer": "adamw",
    "amsgrad": True,
    "lr": 1e-4,
    "lr_base_size": None,
    "weight_decay": 0.05,
    "schedule": "steps",
    "milestones": "20,30",
    "warmup": 0.0,
    "precision": "auto",
    "crop": "short-side",
    "short_side_min": 256,
    "short_side_max": 280,
    "hflip": 0.0,
    "jitter": 0.0,
    "jitter_hue": 0.0,
    "gray_prob": 0.0,
    "blur_prob": 0.0,
    "rand_augment": "rand-m20-mstd0.5-inc1",
    "mean": 0.5,
    "std": 0.5,
    "test_clips": 1,
    "test_crops": "3",
    "ensemble": "logits",
}
_DIGITS: Recipe = {
    "sampling": "stride:8x2",
    "img_size": 24,
    "crop": "short-side",
    "short_side_min": 28,
    "short_side_max": 28,
    "hflip": 0.0,
    "jitter": 0.4,
    "jitter_hue": 0.0,
    "jitter_prob": 1.0,
    "gray_prob": 0.0,
    "blur_prob": 0.0,
    "mean": 0.45,
    "std": 0.225,
    "optimizer": "adamw",
    "schedule": "cosine",
    "test_clips": 1,
    "test_crops": "1",
    "test_scale": 28,
}
_DIGITS_SSL: Recipe = {
    **_DIGITS,
    **_FREQAUG,
    "objective": "ssl",
    "method": "simclr",
    "model": "c3d_tiny",
    "sync_bn": True,
    "views": 2,
    "temperature": 0.2,
    "head_layers": 2,
    "head_width": 64,
    "head_dim": 32,
    "head_bn": True,
    "freq_cutoff_s": 0.05,
    "batch_size": 96,
    "epochs": 25,
    "lr": 3e-3,
    "weight_decay": 1e-4,
}
_DIGITS_SUPERVISED: Recipe = {
    **_DIGITS,
    "objective": "supervised",
    "model": "timesformer_tiny",
    "time": "order,debias,flow",
    "flow_static": "abs:0.3",
    "flow_bins": "centred",
    "batch_size": 32,
    "epochs": 100,
    "lr": 2e-3,
    "warmup": 1.0,
    "weight_decay": 0.05,
}

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "digits-ssl": _DIGITS_SSL,
        "digits-supervised": _DIGITS_SUPERVISED,
        "moco": _MOCO,
        "moco-v4": {**_MOCO, "views": 4},
        "byol": _BYOL,
        "byol-v4": {**_BYOL, "views": 4, "lr": 1.2},
        "simclr": _SIMCLR,
        "swav": _SWAV,
        "freqaug-moco": {**_MOCO, **_FREQAUG},
        "freqaug-byol": {**_BYOL, **_FREQAUG},
        "freqaug-simclr": {**_SIMCLR, **_FREQAUG},
        "freqaug-swav": {**_SWAV, **_FREQAUG},
        "freqaug-st-moco": {**_MOCO, **_FREQAUG, "freqaug": "st"},
        "freqaug-moco-minikinetics": {**_MOCO, **_FREQAUG, **_MINI},
        "freqaug-byol-minikinetics": {**_BYOL, **_FREQAUG, **_MINI},
        "freqaug-simclr-minikinetics": {**_SIMCLR, **_FREQAUG, **_MINI},
        "freqaug-swav-minikinetics": {**_SWAV, **_FREQAUG, **_MINI},
        "supervised": {**_TIME, "time": "none", "model": "timesformer", "rand_augment": "none"},
        "time-timesformer-ssv2": {**_TIME, "model": "timesformer"},
        "time-motionformer-ssv2": {**_TIME, "model": "motionformer"},
        "time-xvit-ssv2": {**_TIME, "model": "xvit"},
    }
)

_SOURCES = {
    "digits-ssl": "here: the embedded clips",
    "digits-supervised": "here: the embedded clips",
    "moco": "arXiv 2104.14558, 2003.04297",
    "byol": "arXiv 2104.14558, 2006.07733",
    "simclr": "arXiv 2104.14558, 2002.05709",
    "swav": "arXiv 2104.14558, 2006.09882",
    "supervised": "arXiv 2207.09067, without its losses",
    "time": "arXiv 2207.09067",
    "freqaug": "arXiv 2204.03865 on arXiv 2104.14558",
}


def recipe_source(name: str) -> str:
    """Where a recipe is published."""
    return _SOURCES.get(name) or _SOURCES[name.partition("-")[0]]
