"""The options of `vtk video-pretrain` that say what is learnt: the network, the objective, FreqAug, temporal losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from vtk_cli.errors import UserError, nearest
from vtk_cli.options import RunOptions, SpeechOptions, option
from vtk_cli.video_pretrain.recipes import RECIPES

Objective = Literal["ssl", "supervised"]
Method = Literal["moco", "byol", "simclr", "swav"]
FreqAug = Literal["none", "t", "s", "st", "joint", "diff"]
Pass = Literal["hp", "lp", "bp"]
TIME_LOSSES = ("order", "debias", "flow")


def _complete_recipe(incomplete: str) -> list[str]:
    return [name for name in RECIPES if name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(RunOptions):
    """The network."""

    recipe: str | None = option(
        None,
        "Defaults of a published training; see `vtk video-pretrain recipes` [default: by data, objective and method].",
        panel="Network",
        metavar="NAME",
        complete=_complete_recipe,
    )
    model: str | None = option(
        None,
        "slow_r50, r2plus1d_18, mvit_v2_s, timesformer, motionformer, xvit ... (vtk video-pretrain models).",
        panel="Network",
        metavar="NAME",
    )
    model_arg: tuple[str, ...] = option(
        (),
        "An argument of its constructor, KEY=VALUE; may be repeated.",
        panel="Network",
        metavar="KEY=VALUE",
    )
    weights: str = option(
        "none",
        "What to start from: none, pretrained (an image ViT of timm, for transformers), a run folder or a weight file"
        " (ours, SlowFast or TIME .pyth, of timm's image ViT, of torchvision's network).",
        panel="Network",
        metavar="FILE",
    )
    freeze: bool = option(False, "Supervised: only the class layer learns (a linear probe).", panel="Network")
    probe_bn: Literal["freeze", "adapt"] = option(
        "freeze", "With --freeze: statistics of batch normalisation stay, or adapt.", panel="Network"
    )
    dropout: float = option(0.0, "Supervised: dropout before the classes.", panel="Network", minimum=0, maximum=0.999)
    img_size: int = option(224, "Side of the input in pixels.", panel="Network", metavar="N", minimum=8)


@dataclass(frozen=True, kw_only=True)
class ObjectiveOptions(RunOptions):
    """What is learnt."""

    objective: Objective = option(
        "ssl", "Self-supervised, from videos alone; or supervised, from their classes.", panel="Method"
    )
    method: Method = option("simclr", "The self-supervised framework.", panel="Method")
    views: int = option(2, "Clips of a video that are compared.", panel="Method", minimum=2)
    view_gap_min: float | None = option(
        None, "Least seconds between the starts of a video's clips.", panel="Method", metavar="S", minimum=0
    )
    view_gap_max: float | None = option(
        None, "Most seconds between the starts of a video's clips.", panel="Method", metavar="S", minimum=0
    )
    temperature: float = option(0.1, "Temperature of the self-supervised loss.", panel="Method", above=0)
    head_layers: int = option(3, "Layers of the projection head.", panel="Method", minimum=1)
    head_width: int = option(2048, "Its hidden width.", panel="Method", minimum=1)
    head_dim: int = option(128, "What it projects to.", panel="Method", minimum=1)
    head_bn: bool = option(False, "Batch normalisation in it.", panel="Method")
    predictor_width: int = option(4096, "BYOL: the predictor's hidden width.", panel="Method", minimum=1)
    momentum_encoder: float = option(
        0.994, "MoCo, BYOL: how much of the averaged network stays at first.", panel="Method", minimum=0, maximum=1
    )
    momentum_anneal: bool = option(True, "It rises to 1 along a cosine.", panel="Method")
    queue: int = option(65536, "MoCo: keys in the queue.", panel="Method", minimum=1)
    prototypes: int = option(1000, "SwAV: prototypes.", panel="Method", minimum=2)
    sinkhorn_eps: float = option(0.05, "SwAV: entropy of the codes.", panel="Method", above=0)
    sinkhorn_iterations: int = option(3, "SwAV: rounds of Sinkhorn's algorithm.", panel="Method", minimum=1)
    smoothing: float = option(
        0.0,
        "Label smoothing, also of the order and flow losses.",
        panel="Method",
        minimum=0,
        maximum=0.999,
    )
    knn_epochs: int = option(
        1,
        "Self-supervised: nearest neighbours on the validation videos after every so many epochs and at the end;"
        " 0: never.",
        panel="Method",
        minimum=0,
    )
    knn_clips: int = option(
        10_000, "At most so many training videos for that, from all over the list.", panel="Method", minimum=1
    )
    knn_k: int = option(20, "So many neighbours.", panel="Method", minimum=1)
    knn_temperature: float = option(0.07, "Each weighs exp(cosine / T).", panel="Method", above=0)


@dataclass(frozen=True, kw_only=True)
class FreqAugOptions(SpeechOptions):
    """Frequency augmentation (arXiv 2204.03865): a clip loses its slow or its smooth part."""

    freqaug: FreqAug = option(
        "none", "Along time, space, both one after the other, both at once, or differences of frames.", panel="FreqAug"
    )
    freq_prob: float = option(0.5, "Chance that a clip is filtered.", panel="FreqAug", minimum=0, maximum=1)
    freq_cutoff_t: float = option(
        0.1,
        "Cut-off along time, in cycles a frame.",
        panel="FreqAug",
        above=0,
        maximum=0.5,
        advice="cut-off must be in (0, 0.5] cycles/sample",
    )
    freq_cutoff_s: float = option(
        0.01,
        "Cut-off in space, in cycles a pixel.",
        panel="FreqAug",
        above=0,
        maximum=0.5,
        advice="cut-off must be in (0, 0.5] cycles/sample",
    )
    freq_stop_t: float | None = option(
        None,
        "Upper end of --freq-t bp.",
        panel="FreqAug",
        metavar="F",
        above=0,
        maximum=0.5,
        advice="cut-off must be in (0, 0.5] cycles/sample",
    )
    freq_stop_s: float | None = option(
        None,
        "Upper end of --freq-s bp.",
        panel="FreqAug",
        metavar="F",
        above=0,
        maximum=0.5,
        advice="cut-off must be in (0, 0.5] cycles/sample",
    )
    freq_t: Pass = option("hp", "What stays along time: high, low or a band of frequencies.", panel="FreqAug")
    freq_s: Pass = option("hp", "What stays in space.", panel="FreqAug")
    freq_shape: Literal["box", "radial"] = option("box", "What low means in space.", panel="FreqAug")
    freq_keep_dc: bool = option(False, "The mean of each channel stays.", panel="FreqAug")
    freq_renorm: bool = option(False, "The filtered clip gets its contrast back.", panel="FreqAug")

    @property
    def filters_time(self) -> bool:
        """Whether time is filtered."""
        return self.freqaug in {"t", "st", "joint"}

    @property
    def filters_space(self) -> bool:
        """Whether space is filtered."""
        return self.freqaug in {"s", "st", "joint"}

    def check_bands(self) -> None:
        """Band-pass filters need both ends.

        Raises:
            UserError: one is missing, or they are the wrong way round.
        """
        for axis, kind, start, stop in (
            ("t", self.freq_t, self.freq_cutoff_t, self.freq_stop_t),
            ("s", self.freq_s, self.freq_cutoff_s, self.freq_stop_s),
        ):
            if kind == "bp" and (stop is None or stop <= start):
                what = "a band needs its upper end, above the cut-off"
                raise UserError(what, f"--freq-{axis} bp", f"give --freq-stop-{axis} above {start:g}")
            if kind != "bp" and stop is not None:
                raise UserError("is the upper end of a band", f"--freq-stop-{axis}", f"give --freq-{axis} bp too")
        if self.freqaug == "joint" and self.freq_t != self.freq_s:
            raise UserError("one filter of both has one kind", "--freqaug joint", "give --freq-t and --freq-s the same")


@dataclass(frozen=True, kw_only=True)
class TemporalOptions(RunOptions):
    """Temporal self-supervision (TIME, arXiv 2207.09067), beside the classes."""

    time: str = option(
        "none", "Any of order, debias, flow, with commas; or none.", panel="Temporal losses", metavar="LOSSES"
    )
    time_weights: str = option("1,1,1", "Weights of order, debias and flow.", panel="Temporal losses", metavar="W,W,W")
    time_perm: Literal["batch", "sample"] = option(
        "batch", "debias: one shuffling of the frames a batch, or one a clip.", panel="Temporal losses"
    )
    order_input: Literal["ordered", "shuffled"] = option(
        "ordered", "order: of clips as they are, or of shuffled ones.", panel="Temporal losses"
    )
    flow_target: str = option(
        "farneback",
        "flow: farneback or lk (Lucas-Kanade).",
        panel="Temporal losses",
        metavar="NAME",
    )
    flow_static: str = option(
        "relative",
        "flow: what stands still: relative (1 % of a pair's range) or abs:PIXELS.",
        panel="Temporal losses",
        metavar="RULE",
    )
    flow_bins: Literal["edges", "centred"] = option(
        "edges", "flow: the eight directions start at 0 degrees, or are centred on it.", panel="Temporal losses"
    )

    @property
    def time_losses(self) -> tuple[str, ...]:
        """The temporal losses asked for, in the order of `TIME_LOSSES`.

        Raises:
            UserError: there is no such loss.
        """
        if self.time.strip() == "none":
            return ()
        asked = [word.strip() for word in self.time.split(",")]
        for word in asked:
            if word not in TIME_LOSSES:
                fix = nearest(word, TIME_LOSSES) or f"choose from {', '.join(TIME_LOSSES)}"
                raise UserError(f"no temporal loss {word!r}", "--time", fix)
        return tuple(loss for loss in TIME_LOSSES if loss in asked)

    @property
    def time_weight(self) -> dict[str, float]:
        """Loss -> weight.

        Raises:
            UserError: it is not three numbers of at least 0.
        """
        try:
            weights = [float(word) for word in self.time_weights.split(",")]
        except ValueError:
            weights = []
        if len(weights) != len(TIME_LOSSES) or not all(0 <= weight < float("inf") for weight in weights):
            raise UserError(f"{self.time_weights!r} are no weights", "--time-weights", "give three, as in 1,1,0.5")
        return dict(zip(TIME_LOSSES, weights, strict=True))

    @property
    def static_threshold(self) -> float | None:
        """Pixels below which a patch stands still; None: a share of the pair's range.

        Raises:
            UserError: it is neither `relative` nor `abs:PIXELS`.
        """
        kind, _, number = self.flow_static.partition(":")
        try:
            value = float(number) if kind == "abs" else None
        except ValueError:
            value = -1.0
        if (kind == "relative" and not number) or (value is not None and 0 <= value < float("inf")):
            return value
        raise UserError(f"{self.flow_static!r} is no rule", "--flow-static", "give relative, or abs:0.5 (pixels)")


def constructor_arguments(entries: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE entries as arguments: numbers, booleans, null or text.

    Raises:
        UserError: one is no KEY=VALUE.
    """
    arguments: dict[str, Any] = {}
    for entry in entries:
        key, equals, text = entry.partition("=")
        if not (key.isidentifier() and equals and text):
            raise UserError(f"{entry!r} is no KEY=VALUE", "--model-arg", "write e.g. --model-arg depth=4")
        arguments[key] = _literal(text)
    return arguments


def _literal(text: str) -> Any:
    """`true`, `none`, a number, or the text itself."""
    words: dict[str, Any] = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
