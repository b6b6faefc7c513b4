"""Published trainings under a name (`--recipe`): what they set the options of `vtk train` to.

The tables are those of masked sub-models (arXiv 2306.11339) over the trainings they build on: DeiT-III
(arXiv 2204.07118), ResNet strikes back (arXiv 2110.00476, Table 2), MAE fine-tuning (arXiv 2111.06377, Table 9) and
Swin (arXiv 2103.14030); `--sub none` gives the training underneath. Batch sizes are the whole update's: on fewer GPUs
than the authors had, give a smaller --batch-size with as much --accumulate.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Recipe = Mapping[str, Any]
"""Field of `TrainOptions` -> value."""

_SUB_MASK: Recipe = {"sub": "mask", "sub_ratio": "0.5", "sub_target": "relaxed"}
_MIX: Recipe = {"mixup": 0.8, "cutmix": 1.0, "mix_prob": 1.0, "mix_switch": 0.5, "mix_mode": "batch"}
_RANDOM_CROP: Recipe = {
    "crop": "random-resized",
    "crop_scale_min": 0.08,
    "crop_scale_max": 1.0,
    "interpolation": "bicubic",
    "hflip": 0.5,
}

_SMALL: Recipe = {
    **_SUB_MASK,
    "loss": "ce",
    "optimizer": "adamw",
    "lr": 2e-3,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "schedule_on": "updates",
    "warmup": "10%",
    "warmup_lr": 0.0,
    "min_lr": 0.0,
}

_DEIT3: Recipe = {
    **_SUB_MASK,
    **_RANDOM_CROP,
    **_MIX,
    "batch_size": 2048,
    "layer_scale": 1e-4,
    "drop_path_schedule": "constant",
    "loss": "bce",
    "binarize": True,
    "smoothing": 0.0,
    "auto_augment": "3a",
    "color_jitter": 0.3,
    "erasing": 0.0,
    "repeats": 3,
    "crop_pct": 1.0,
    "optimizer": "lamb",
    "schedule": "cosine",
    "schedule_on": "epochs",
    "warmup": "5",
    "warmup_lr": 1e-6,
    "min_lr": 1e-5,
    "ema_decay": 0.99996,
}
_DEIT3_FINETUNE: Recipe = {
    **_DEIT3,
    "batch_size": 512,
    "weights": "pretrained",
    "img_size": 224,
    "loss": "ce",
    "binarize": False,
    "smoothing": 0.1,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "color_jitter": 0.0,
    "repeats": 1,
    "optimizer": "adamw",
    "lr": 1e-5,
    "weight_decay": 0.1,
    "epochs": 20,
}

_RSB: Recipe = {
    **_SUB_MASK,
    **_RANDOM_CROP,
    "model": "resnet50",
    "img_size": 224,
    "eval_size": 224,
    "batch_size": 2048,
    "loss": "bce",
    "binarize": False,
    "smoothing": 0.0,
    "auto_augment": "rand-m7-mstd0.5",
    "color_jitter": 0.0,
    "erasing": 0.0,
    "mixup": 0.1,
    "cutmix": 1.0,
    "repeats": 3,
    "crop_pct": 0.95,
    "drop_path": 0.05,
    "optimizer": "lamb",
    "lr": 5e-3,
    "weight_decay": 0.02,
    "schedule": "cosine",
    "schedule_on": "epochs",
    "warmup": "5",
    "warmup_lr": 1e-4,
    "min_lr": 1e-6,
    "cooldown_epochs": 0,
}

_MAE: Recipe = {
    **_SUB_MASK,
    **_RANDOM_CROP,
    **_MIX,
    "weights": "pretrained",
    "model_arg": ("global_pool=avg",),
    "head_init_std": 2e-5,
    "img_size": 224,
    "batch_size": 1024,
    "loss": "ce",
    "smoothing": 0.1,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "erasing": 0.25,
    "optimizer": "adamw",
    "lr_base_size": 256,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "schedule_on": "updates",
    "warmup": "5",
    "warmup_lr": 0.0,
    "min_lr": 2.5e-7,  # 1e-6 at the batch of 1,024: all rates are meant for 256
}

_SWIN: Recipe = {
    **_SUB_MASK,
    **_RANDOM_CROP,
    **_MIX,
    "img_size": 224,
    "batch_size": 1024,
    "drop_path_schedule": "linear",
    "loss": "ce",
    "smoothing": 0.1,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "color_jitter": 0.4,
    "erasing": 0.25,
    "optimizer": "adamw",
    "lr": 5e-4,
    "lr_base_size": 512,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "schedule_on": "updates",
    "epochs": 300,
    "warmup": "20",
    "warmup_lr": 5e-7,
    "min_lr": 5e-6,
    "clip_norm": 5.0,
}

# What is published of LUAB fixes the crops and the targets; the optimiser is that of ResNet strikes back's short
# training, without what mixes images or bends them.
_BYPRODUCTS: Recipe = {
    **_RANDOM_CROP,
    "model": "resnet50",
    "img_size": 224,
    "batch_size": 2048,
    "sub": "none",
    "ab_weight": 10.0,
    "ab_beta": 1.0,
    "ab_scale": "auto",
    "auto_augment": "none",
    "erasing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "optimizer": "lamb",
    "lr": 8e-3,
    "weight_decay": 0.02,
    "epochs": 100,
    "schedule": "cosine",
    "schedule_on": "epochs",
    "warmup": "5",
    "warmup_lr": 1e-4,
    "min_lr": 1e-6,
}

_VIT = {
    "s": "deit3_small_patch16_224",
    "b": "deit3_base_patch16_224",
    "l": "deit3_large_patch16_224",
    "h": "deit3_huge_patch14_224",
}
_IMAGE_SIZE = {"s": 224, "b": 192, "l": 192, "h": 160}
_DROP_PATH = {
    400: {"s": 0.0, "b": 0.1, "l": 0.4, "h": 0.5},
    800: {"s": 0.05, "b": 0.2, "l": 0.45, "h": 0.6},
}
_WEIGHT_DECAY = {400: 0.03, 800: 0.05}
_FINETUNE_DROP_PATH = {"b": 0.2, "l": 0.45, "h": 0.55}


def _deit3(size: str, epochs: int) -> Recipe:
    return {
        **_DEIT3,
        "model": _VIT[size],
        "img_size": _IMAGE_SIZE[size],
        "lr": 4e-3 if size == "s" else 3e-3,
        "epochs": epochs,
        "weight_decay": _WEIGHT_DECAY[epochs],
        "drop_path": _DROP_PATH[epochs][size],
    }


def _deit3_finetune(size: str) -> Recipe:
    return {**_DEIT3_FINETUNE, "model": _VIT[size], "drop_path": _FINETUNE_DROP_PATH[size]}


_RECIPES: dict[str, Recipe] = {
    "small": {**_SMALL, "epochs": 100, "batch_size": 64},
    "digits": {
        **_SMALL,
        "crop": "shift",
        "shift": 1,
        "interpolation": "bilinear",
        "hflip": 0.0,
        "epochs": 40,
        "batch_size": 50,
    },
    **{f"deit3-{size}-{epochs}": _deit3(size, epochs) for size in "sblh" for epochs in (400, 800)},
    **{f"deit3-{size}-{epochs}-ft": _deit3_finetune(size) for size in "blh" for epochs in (400, 800)},
    "rsb-a1": {**_RSB, "epochs": 600, "weight_decay": 0.01, "smoothing": 0.1, "mixup": 0.2},
    "rsb-a2": {**_RSB, "epochs": 300},
    "rsb-a3": {
        **_RSB,
        "epochs": 100,
        "img_size": 160,
        "lr": 8e-3,
        "drop_path": 0.0,
        "repeats": 1,
        "auto_augment": "rand-m6-mstd0.5",
    },
    "mae-b-ft": {
        **_MAE,
        "model": "vit_base_patch16_224.mae",
        "epochs": 100,
        "lr": 5e-4,
        "layer_decay": 0.65,
        "drop_path": 0.1,
    },
    "mae-l-ft": {
        **_MAE,
        "model": "vit_large_patch16_224.mae",
        "epochs": 50,
        "lr": 1e-3,
        "layer_decay": 0.75,
        "drop_path": 0.2,
    },
    "mae-h-ft": {
        **_MAE,
        "model": "vit_huge_patch14_224.mae",
        "epochs": 50,
        "lr": 1e-3,
        "layer_decay": 0.75,
        "drop_path": 0.3,
    },
    "swin-t": {**_SWIN, "model": "swin_tiny_patch4_window7_224", "drop_path": 0.2},
    "swin-s": {**_SWIN, "model": "swin_small_patch4_window7_224", "drop_path": 0.3},
    "swin-b": {**_SWIN, "model": "swin_base_patch4_window7_224", "drop_path": 0.5},
    "coco-ab": {
        **_BYPRODUCTS,
        "loss": "bce",
        "color_jitter": 0.4,
        "ab_format": "coco-ab",
        "ab_point": "final",
        "ab_drop_outside": True,
    },
    "imagenet-ab": {
        **_BYPRODUCTS,
        "loss": "ce",
        "color_jitter": 0.0,
        "ab_format": "imagenet-ab",
        "ab_point": "last",
    },
}
RECIPES: Mapping[str, Recipe] = MappingProxyType({name: MappingProxyType(recipe) for name, recipe in _RECIPES.items()})

_SOURCES = {
    "small": "few images of one's own",
    "digits": "the embedded digits",
    "deit3": "DeiT-III, arXiv 2204.07118",
    "rsb": "ResNet strikes back, arXiv 2110.00476",
    "mae": "MAE fine-tuning, arXiv 2111.06377",
    "swin": "Swin, arXiv 2103.14030",
    "coco": "LUAB on COCO-AB, arXiv 2303.17595",
    "imagenet": "LUAB on ImageNet-AB, arXiv 2303.17595",
}


def recipe_source(name: str) -> str:
    """What the recipe is after: a paper, or the data it is for."""
    return _SOURCES[name.partition("-")[0]]
