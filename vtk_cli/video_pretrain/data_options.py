"""The options of `vtk video-pretrain` that say which videos are read, and which of their frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vtk_cli.data.video.records import Short
from vtk_cli.options import SpeechOptions, option

MOVING_DIGITS = "moving-digits"
ListFormat = Literal["auto", "paths", "vtk", "kinetics", "ssv2", "ucf101", "hmdb51", "diving48", "gym99", "folders"]
Backend = Literal["auto", "decord", "pyav", "torchcodec", "frames"]


def _complete_data(incomplete: str) -> list[str]:
    return [word for word in (MOVING_DIGITS,) if word.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(SpeechOptions):
    """How videos are decoded."""

    backend: Backend = option("auto", "The decoder; auto: decord, and PyAV where it fails.", panel="Data")
    decode_timeout: float = option(
        30.0,
        "Seconds that a clip may take; the file then counts as broken.",
        panel="Data",
        metavar="S",
        above=0,
    )
    short: Short = option(
        "clamp", "Videos with fewer frames than a clip: repeat the last, start again, or refuse.", panel="Data"
    )


@dataclass(frozen=True, kw_only=True)
class WorkerOptions(SpeechOptions):
    """How many decode."""

    workers: int | None = option(
        None, "Processes that decode [default: one a core, at most 8].", panel="Data", metavar="N", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class ListOptions(DecodeOptions, WorkerOptions):
    """How lists of videos are read, and how videos are decoded."""

    format: ListFormat = option("auto", "What the list is; auto looks at it.", panel="Data")
    root: Path | None = option(
        None, "Where relative paths of a list start [default: the list's folder].", panel="Data", metavar="DIR"
    )
    in_memory: bool | None = option(
        None, "Decode every video once and keep it in memory [default: for moving-digits].", panel="Data"
    )


@dataclass(frozen=True, kw_only=True)
class DataOptions(ListOptions):
    """Which videos are trained on."""

    data: str = option(
        MOVING_DIGITS,
        "A list (Kinetics, SSv2, UCF101, HMDB51, Diving48, Gym99), a folder with one folder a class, a folder with"
        " train and val of either, or moving-digits.",
        positional=True,
        metavar="DATA",
        complete=_complete_data,
    )
    val: str | None = option(
        None, "Videos to evaluate on, where DATA has no val of its own.", panel="Data", metavar="DATA"
    )
    sampling: str = option(
        "dense:8x8",
        "The frames of a clip: dense:FRAMESxSTRIDE (of 30 a second), stride:FRAMESxSTRIDE, segment:FRAMES.",
        panel="Data",
        metavar="KIND:TxS",
    )
    batch_size: int = option(64, "Videos at a time, over all processes.", panel="Data", minimum=1)

    @property
    def on_digits(self) -> bool:
        """Whether the videos are the embedded ones."""
        return self.data == MOVING_DIGITS

    @property
    def data_name(self) -> str:
        """The data without the folders it is in, for titles."""
        return Path(self.data).resolve().stem or self.data
