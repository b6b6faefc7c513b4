"""All options of `vtk video-pretrain eval`: the protocols, and the published settings of those that train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from vtk_cli.data.video.records import parse_sampling
from vtk_cli.engine.processes.parallel_options import SharedTrainingOptions
from vtk_cli.errors import UserError
from vtk_cli.options import option
from vtk_cli.video_pretrain.data_options import ListOptions
from vtk_cli.video_pretrain.update_options import MissingOptions, Schedule, SpeedOptions, TestViewOptions

Protocol = Literal["test", "linear", "knn", "retrieval", "finetune"]
MODEL_HELP = "A run folder or a weight file: ours, SlowFast or TIME .pyth [default: the newest run]."

_PROBE: Mapping[str, Any] = {
    "epochs": 60, "lr": 0.5, "lr_base_size": 64, "weight_decay": 0.0, "warmup": 8.0, "dropout": 0.0, "optimizer": "sgd",
    "schedule": "cosine", "milestones": "", "jitter": 0.0, "gray_prob": 0.0, "test_clips": 10,
    "test_crops": "3",
}  # fmt: skip
_FINETUNE: Mapping[str, Any] = {
    **_PROBE, "epochs": 200, "lr": 0.005, "weight_decay": 1e-4, "dropout": 0.5, "jitter": 0.4, "jitter_hue": 0.1,
    "gray_prob": 0.2,
}  # fmt: skip
EVAL_RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "linear": _PROBE,
        "finetune-ucf101": _FINETUNE,
        "finetune-ucf101-syncbn": {**_FINETUNE, "sync_bn": True, "lr": 0.01, "weight_decay": 0.0, "dropout": 0.8},
        "finetune-ssv2": {
            **_FINETUNE, "epochs": 22, "lr": 0.12, "schedule": "steps", "milestones": "14,18", "warmup": 0.19,
            "weight_decay": 1e-6, "hflip": 0.0, "jitter": 0.0, "jitter_hue": 0.0, "gray_prob": 0.0, "test_clips": 1,
            "test_crops": "1",
        },
        "views-1": {"test_clips": 1, "test_crops": "1"},
    }
)  # fmt: skip
"""Published evaluations (arXiv 2104.14558)."""
_EVAL_SOURCES = {
    "linear": "linear probe, arXiv 2104.14558",
    "finetune-ucf101": "fine-tuning on UCF-101, arXiv 2104.14558",
    "finetune-ucf101-syncbn": "the same with batch norms over all processes",
    "finetune-ssv2": "fine-tuning on Something-Something v2, arXiv 2104.14558",
    "views-1": "one clip and one crop a video: fast",
}


def eval_recipe_source(name: str) -> str:
    """Where an evaluation is published, or what it is for."""
    return _EVAL_SOURCES[name]


def _complete_recipe(incomplete: str) -> list[str]:
    return [name for name in EVAL_RECIPES if name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class EvalOptions(ListOptions, TestViewOptions, MissingOptions, SpeedOptions, SharedTrainingOptions):
    """`vtk video-pretrain eval`."""

    recipe_option: ClassVar[str] = "recipe"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = EVAL_RECIPES

    model: str = option("", MODEL_HELP, positional=True, metavar="MODEL")
    data: str | None = option(None, "Videos: as for run [default: those of the run].", positional=True, metavar="DATA")
    val: str | None = option(None, "Videos to test on, where DATA has no val.", panel="Data", metavar="DATA")
    protocol: Protocol | None = option(
        None,
        "test: the network's own classes; linear, knn, retrieval: what its features say; finetune: train it on the"
        " classes [default: test where it has classes, else knn].",
        panel="Protocol",
    )
    recipe: str | None = option(
        None, "A published setting: linear, finetune-ucf101, finetune-ssv2.", panel="Protocol", metavar="NAME",
        complete=_complete_recipe,
    )  # fmt: skip
    probe: Literal["logistic", "sgd"] = option(
        "logistic",
        "linear: a logistic regression on features computed once, or SGD on augmented clips as published.",
        panel="Protocol",
    )
    probe_bn: Literal["freeze", "adapt"] = option(
        "freeze", "linear with sgd: statistics of batch normalisation stay, or adapt (as published).", panel="Protocol"
    )
    knn_k: int = option(20, "knn: so many neighbours.", panel="Protocol", minimum=1)
    knn_temperature: float = option(0.07, "knn: each weighs exp(cosine / T).", panel="Protocol", above=0)
    shortcuts: bool = option(
        False,
        "test, linear, knn: also on clips that are shuffled, reversed, one repeated frame, or low-passed.",
        panel="Protocol",
    )
    sampling: str | None = option(
        None, "The frames of a clip [default: as in the run].", panel="Data", metavar="KIND:TxS"
    )
    batch_size: int = option(
        64, "linear with sgd, finetune: videos at a time, over all processes.", panel="Training", minimum=1
    )
    epochs: int = option(60, "linear with sgd, finetune: passes over the videos.", panel="Training", minimum=1)
    optimizer: str = option("sgd", "lars, or any of timm's.", panel="Training", metavar="NAME")
    lr: float | None = option(
        None,
        "Learning rate [default: for every 64 videos an update, 0.5 of a linear probe, 0.005 of finetune].",
        panel="Training",
        above=0,
    )
    lr_base_size: int | None = option(
        None,
        "The --lr that is given is meant for so many videos an update, and scaled to yours.",
        panel="Training",
        metavar="N",
        minimum=1,
    )
    weight_decay: float = option(0.0, "Weight decay.", panel="Training", minimum=0)
    schedule: Schedule = option("cosine", "How the learning rate falls.", panel="Training")
    milestones: str = option("", "Epochs at which --schedule steps takes a tenth.", panel="Training")
    warmup: float = option(0.0, "Epochs of linear warm-up.", panel="Training", minimum=0)
    dropout: float = option(0.0, "Dropout before the classes.", panel="Training", minimum=0, maximum=0.999)
    hflip: float | None = option(
        None,
        "Chance of a horizontal flip; 0 where directions are classes [default: as in the run, else 0.5].",
        panel="Training",
        minimum=0,
        maximum=1,
    )
    jitter: float = option(0.0, "Colour jitter.", panel="Training", minimum=0, maximum=1)
    jitter_hue: float = option(0.0, "Jitter of the hue.", panel="Training", minimum=0, maximum=0.5)
    gray_prob: float = option(0.0, "Chance of gray clips.", panel="Training", minimum=0, maximum=1)
    export: Path | None = option(
        None, "Write the features: .npz with feat, path, start and end of every clip.", panel="Output", metavar="FILE"
    )
    out: Path | None = option(
        None,
        "Write evaluation.json, a page and its pictures there; of linear with sgd and finetune, the run folder.",
        panel="Output",
        short="-o",
        metavar="DIR",
    )
    seed: int = option(0, "linear with sgd, finetune: seed.", panel="Run", minimum=0, maximum=2**32 - 1)
    dry_run: bool = option(
        False, "Resolve everything, print the plan, write nothing, stop.", panel="Run", recorded=False
    )

    def trains(self, protocol: str) -> bool:
        """Whether a protocol is a training: fine-tuning, or a probe by SGD."""
        return protocol == "finetune" or (protocol == "linear" and self.probe == "sgd")

    def check(self) -> None:
        """Options that contradict one another."""
        if self.sampling is not None:
            parse_sampling(self.sampling)
        if self.export is not None and self.export.suffix != ".npz":
            raise UserError("is written as .npz", f"--export {self.export}", "give a file that ends in .npz")
        if self.export is not None and self.protocol is not None and self.trains(self.protocol):
            fix = "leave it out; eval the run that comes out, with --protocol knn"
            raise UserError("is not for a protocol that trains", "--export", fix)
        if self.shortcuts and self.protocol in {"retrieval", "finetune"}:
            raise UserError("are for test, linear and knn", "--shortcuts", "leave them out")
        if self.shortcuts and self.protocol == "linear" and self.probe == "sgd":
            raise UserError("are for a logistic probe", "--shortcuts", "give --probe logistic")
