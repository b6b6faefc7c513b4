"""What a network makes of videos: features and class scores of every view, and of every video together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from vtk_cli.console import Console
from vtk_cli.data.video.clips import ClipSource
from vtk_cli.engine.devices import Precision, autocast
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.gathered import merged
from vtk_cli.engine.processes.shared_work import in_every_process
from vtk_cli.engine.workers import outlive_stop_signals
from vtk_cli.errors import JobError, UserError
from vtk_cli.video_pretrain.samples import Seen, TestSet, TestViews

Ensemble = Literal["softmax", "logits"]
Change = Callable[[Tensor], Tensor]
"""Of clips (B, 3, T, S, S) before they are looked at."""
_Part = tuple[list[dict[str, Any]], dict[int, str]]
"""What one process found: a row for each video, and why others could not be decoded."""
_VIEWS = 64
"""Views that are looked at at a time, at most."""


@dataclass(frozen=True, eq=False)
class Found:
    """What was made of n videos, by their place in the list.

    Args:
        indices: (n,) ascending.
        features: float32 (n, D): the mean over a video's views.
        scores: float32 (n, K): of the classes, the mean over the views; None without classes.
        missing: place -> why it could not be decoded.
        clips: features (m, D) of each view, with the videos' indices (m,) and seconds (m, 2); None if not asked for.
    """

    indices: NDArray[np.int64]
    features: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    missing: dict[int, str]
    clips: dict[str, NDArray[Any]] | None = None


@dataclass(frozen=True, eq=False)
class Looker:
    """A network that looks at videos.

    Args:
        backbone: gives features.
        head: from features to class scores; None without classes.
        device: where.
        precision: of the forward pass.
        workers: processes that decode.
        ensemble: what is averaged over views, `softmax` or `logits`.
        world: the processes that share the videos.
    """

    backbone: nn.Module
    head: nn.Module | None
    device: torch.device
    precision: Precision = "fp32"
    workers: int = 0
    ensemble: Ensemble = "softmax"
    world: World | None = None

    @torch.no_grad()
    def look(
        self,
        source: ClipSource,
        views: TestViews,
        console: Console,
        *,
        change: Change | None = None,
        indices: Sequence[int] | None = None,
        each: bool = False,
        title: str = "looking at videos",
    ) -> Found:
        """Look at every video, or at those of `indices`, each once; all processes get the whole.

        Raises:
            UserError: not one can be decoded.
            JobError: a feature is not finite.
        """
        world = self.world or World(0, 1, 0, self.device)
        wanted = list(range(len(source))) if indices is None else list(indices)
        mine = wanted[world.rank :: world.size]

        def looked_at() -> _Part:
            rows: list[dict[str, Any]] = []
            missing: dict[int, str] = {}
            with console.progress(title, len(wanted)) as progress:
                for seen in _loaded(TestSet(source, views), mine, self.workers):
                    if seen.fault:
                        missing[seen.index] = seen.fault
                    else:
                        rows.append(self._row(seen, change, each=each))
                    progress.advance(world.size)
            return rows, missing

        training = self.backbone.training
        self.backbone.eval()
        try:
            return self._joined(in_every_process(world, looked_at), source)
        finally:
            self.backbone.train(training)

    def _row(self, seen: Seen, change: Change | None, *, each: bool) -> dict[str, Any]:
        features, scores = [], []
        for views in seen.views.split(_VIEWS):
            clips = views.to(self.device)
            with autocast(self.device, self.precision):
                found = self.backbone(clips if change is None else change(clips))
                logits = None if self.head is None else self.head(found)
            features.append(found.float().cpu())
            if logits is not None:
                scores.append((logits.float().softmax(1) if self.ensemble == "softmax" else logits.float()).cpu())
        every = torch.cat(features)
        if not every.isfinite().all():
            raise JobError("the network's features are not finite: its weights are damaged or its training diverged")
        row: dict[str, Any] = {"indices": seen.index, "features": every.mean(0).numpy()}
        if scores:
            row["scores"] = torch.cat(scores).mean(0).numpy()
        if each:
            spans = np.array([seen.starts, seen.ends], np.float64).T
            row["clips"] = {"feat": every.numpy(), "index": np.full(len(every), seen.index), "seconds": spans}
        return row

    def _joined(self, parts: list[_Part], source: ClipSource) -> Found:
        rows = [row for part, _ in parts for row in part]
        missing = {index: why for _, part in parts for index, why in part.items()}
        if not rows:
            first, why = next(iter(missing.items()))
            raise UserError(f"no video can be decoded, the first because {why}", str(source.videos[first].path))
        names = ("indices", "features", "scores") if "scores" in rows[0] else ("indices", "features")
        found = merged([{name: np.stack([row[name] for row in rows]) for name in names}])
        clips = None
        if "clips" in rows[0]:
            ordered = sorted(rows, key=lambda row: int(row["indices"]))
            clips = {name: np.concatenate([row["clips"][name] for row in ordered]) for name in rows[0]["clips"]}
        return Found(found["indices"], found["features"], found.get("scores"), dict(sorted(missing.items())), clips)


def _loaded(dataset: TestSet, indices: Sequence[int], workers: int) -> Iterator[Seen]:
    """The videos one after another."""
    loader = DataLoader(
        Subset(dataset, indices),
        batch_size=None,
        num_workers=workers if len(indices) > 1 else 0,
        worker_init_fn=outlive_stop_signals,
        generator=torch.Generator(),
    )
    yield from loader
