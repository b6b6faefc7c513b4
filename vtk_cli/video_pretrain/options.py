"""All options of `vtk video-pretrain run`. Recipes (`recipes.py`) set the same fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vtk_cli.data.video.records import Sampling, parse_sampling
from vtk_cli.engine.processes.parallel_options import ParallelOptions
from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.augmentation_options import AugmentationOptions
from vtk_cli.video_pretrain.data_options import MOVING_DIGITS, DataOptions
from vtk_cli.video_pretrain.method_options import (
    FreqAugOptions,
    NetworkOptions,
    ObjectiveOptions,
    TemporalOptions,
    constructor_arguments,
)
from vtk_cli.video_pretrain.recipes import RECIPES
from vtk_cli.video_pretrain.update_options import MissingOptions, OptimizationOptions, SpeedOptions, TestViewOptions

DEFAULT_MODELS = {"ssl": "slow_r50", "supervised": "timesformer"}
DIGITS_MODELS = {"ssl": "c3d_tiny", "supervised": "timesformer_tiny"}


@dataclass(frozen=True, kw_only=True)
class VideoOptions(
    DataOptions,
    NetworkOptions,
    ObjectiveOptions,
    FreqAugOptions,
    TemporalOptions,
    AugmentationOptions,
    TestViewOptions,
    MissingOptions,
    OptimizationOptions,
    SpeedOptions,
    ParallelOptions,
):
    """All options of `vtk video-pretrain run`."""

    recipe_option: ClassVar[str] = "recipe"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES

    @classmethod
    def default_recipe(cls, given: Mapping[str, Any]) -> str:
        """By data and objective: `digits-ssl`, `digits-supervised`, `moco`, `byol`, ... `supervised`."""
        supervised = str(given.get("objective") or "ssl") == "supervised"
        if given.get("data") in {None, MOVING_DIGITS}:
            return "digits-supervised" if supervised else "digits-ssl"
        return "supervised" if supervised else str(given.get("method") or "simclr")

    @property
    def network(self) -> str:
        """The network's name, with the default in place of none."""
        return self.model or (DIGITS_MODELS if self.on_digits else DEFAULT_MODELS)[self.objective]

    @property
    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments for the network's constructor."""
        return constructor_arguments(self.model_arg)

    @property
    def clips(self) -> Sampling:
        """Which frames make a clip."""
        return parse_sampling(self.sampling)

    @property
    def crops(self) -> int:
        """Crops of a clip in a test."""
        return int(self.test_crops)

    @property
    def is_in_memory(self) -> bool:
        """Whether decoded videos are kept."""
        return self.on_digits if self.in_memory is None else self.in_memory

    def check(self) -> None:
        """Options that contradict one another."""
        _ = self.clips, self.constructor_arguments, self.time_weight, self.static_threshold, self.milestone_epochs
        self.check_bands()
        self.check_augmentation()
        losses = self.time_losses
        if self.objective == "ssl" and "debias" in losses:
            what = "low confidence on shuffled frames needs classes"
            raise UserError(what, "--time debias", "give --objective supervised, or --time order,flow")
        if self.filters_time and self.freqaug != "none" and self.clips.frames < 2:
            raise UserError("a temporal filter needs >= 2 frames", "--sampling", "give more frames")
        if losses and self.clips.frames < 2:
            raise UserError("temporal losses need >= 2 frames", "--sampling", "give more frames")
        if self.view_gap_min is not None or self.view_gap_max is not None:
            self._check_gap()
        if self.objective == "ssl":
            self._check_self_supervised()

    def _check_gap(self) -> None:
        """Seconds between the starts of clips that have none, or that are the wrong way round."""
        if self.clips.kind == "segment":
            what = "clips of segments span the whole video and have no gap"
            raise UserError(
                what, "--view-gap-min, --view-gap-max", "leave them out, or give --sampling dense or stride"
            )
        if self.view_gap_min is not None and self.view_gap_max is not None and self.view_gap_min > self.view_gap_max:
            raise UserError("is more than --view-gap-max", "--view-gap-min", "give a smaller one")

    def _check_self_supervised(self) -> None:
        """What the frameworks cannot do, and what only classes have."""
        if self.method == "simclr" and self.batch_size < 2:
            what = "SimCLR compares a video with the others of its batch, and one alone has none"
            raise UserError(what, "--batch-size", "give at least 2")
        if self.method == "moco" and self.queue % (self.batch_size * self.views):
            what = f"a queue of {self.queue} is no multiple of the {self.batch_size * self.views} keys of a batch"
            raise UserError(what, "--queue", "give a multiple of --batch-size times --views")
        for flag, is_given, what in (
            ("--ema-decay", self.ema_decay is not None, "averaged weights are"),
            ("--freeze", self.freeze, "a frozen network is"),
            ("--dropout", self.dropout > 0, "dropout before the classes is"),
        ):
            if is_given:
                raise UserError(f"{what} for supervised training", flag, "leave it out")
