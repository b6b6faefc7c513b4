"""A simulated run from its source to its last round as a piece of work that is kept and never made twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vtk_cli.adapt.job import simulate
from vtk_cli.adapt.manifest import make_manifest
from vtk_cli.adapt.options import AdaptOptions
from vtk_cli.adapt.preparation import read_domains, source_fingerprint
from vtk_cli.adapt.recipes import RecipeName
from vtk_cli.adapt.rounds import begin, train_round
from vtk_cli.adapt.run_files import RunFiles, load_run
from vtk_cli.adapt.scoreboard import read_metrics
from vtk_cli.adapt.session import Session
from vtk_cli.console import Console
from vtk_cli.engine.devices import resolve_device
from vtk_cli.engine.pieces.results import Result, ResultStore, work_through
from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.engine.signals import StopRequest, stop_requests
from vtk_cli.files import cache_folder, content_key, sha256_file

KEPT = "finished runs"
_VERSION = 1
"""Raised when what is measured changes, so that kept results are not taken for it."""
_ELSEWHERE = {
    "out", "device", "workers", "checkpoint-seconds", "offline", "recipe", "query", "seed", "budget", "preset",
    "recipes", "queries", "seeds", "budgets", "store", "shard", "devices", "audit", "model", "weights", "root",
}  # fmt: skip
"""Options that do not change what a run comes to, or that its key has in another way."""
_OF_SOURCE = (
    "net", "size", "width", "dsbn", "source-epochs", "source-batch", "source-lr", "smoothing", "holdout", "source-keep",
    "precision",
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """A way to train, a strategy, a budget, from a seed; `settings`: options that it alone has."""

    recipe: RecipeName
    query: str
    seed: int
    budget: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def way(self) -> str:
        """Its name without seed and budget."""
        further = "".join(f", {name.replace('_', '-')} {value}" for name, value in self.settings)
        return f"{self.recipe} / {self.query}{further}"


@dataclass(frozen=True)
class Trials:
    """Runs on the same domains.

    Args:
        options: of all, but for what the arms say.
        folder: where unfinished ones and results are kept.
        console: told of what is odd.
    """

    options: AdaptOptions
    folder: Path
    console: Console
    _domains: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, options: AdaptOptions, store: Path | None, console: Console) -> Trials:
        """Kept in `store`, else in the user's cache."""
        return cls(options, store or cache_folder() / "adapt-runs", console)

    def options_of(self, arm: Arm) -> AdaptOptions:
        """All options of one run."""
        return replace(
            self.options,
            recipe=arm.recipe,
            query=arm.query,
            seed=arm.seed,
            budget=arm.budget,
            audit=0,
            **dict(arm.settings),
        )

    def key(self, arm: Arm) -> str:
        """Of everything that shapes a result."""
        options = self.options_of(arm)
        settings = {name: value for name, value in options.as_config().items() if name not in _ELSEWHERE}
        said = {**asdict(arm), "settings": [list(one) for one in arm.settings]}
        return content_key({"arm": said, "settings": settings, **self._about(arm), "v": _VERSION})

    def results(
        self,
        arms: Sequence[Arm],
        stop: StopRequest,
        heard: Callable[[Arm, Result], None] = lambda _arm, _result: None,
        share: Share = WHOLE,
    ) -> list[Result]:
        """Of all arms, in their order; finished ones are not made again.

        Raises:
            UserError: the share makes nothing, and some are missing.
            Preempted, KeyboardInterrupt: a signal came; what is finished is kept.
        """
        return work_through(
            arms,
            key=self.key,
            compute=self.result,
            store=ResultStore(self.folder),
            stop=stop,
            kept=KEPT,
            share=share,
            name=lambda arm: f"{arm.way} from seed {arm.seed}",
            heard=heard,
        )

    def result(self, arm: Arm) -> Result:
        """Simulate, from where it was stopped if it was."""
        options, place = self.options_of(arm), self.folder / "unfinished" / self.key(arm)
        files, quiet = RunFiles(place), Console(quiet=True)
        if files.state.is_file() and load_run(files)[0].phase != "new":
            state, rows = load_run(files)
            lab = Session(options, files, state, rows, ()).lab(quiet)
        else:
            lab, state = begin(options, files, quiet, shared=self._shared(options, arm))
            rows = ()
        with stop_requests() as stop:
            if state.phase == "source_ready":
                state = train_round(lab, files, state, rows)
            state = simulate(lab, files, state, rows, stop, write=False)
        result = {
            "way": arm.way,
            "recipe": arm.recipe,
            "query": arm.query,
            "seed": arm.seed,
            "budget": arm.budget,
            "pool": len(lab.pool),
            "rounds": [_short(row) for row in read_metrics(files)],
        }
        shutil.rmtree(place, ignore_errors=True)
        return result

    def _about(self, arm: Arm) -> dict[str, Any]:
        if arm.seed not in self._domains:
            domains, _ = read_domains(self.options_of(arm), Console(quiet=True), ())
            truth = content_key(dict(domains.truth))
            pool = make_manifest(domains.pool, Console(quiet=True)).sha1
            self._domains[arm.seed] = content_key([source_fingerprint(domains), pool, truth])
        options = self.options
        files = {
            name: sha256_file(path) if path.is_file() else str(path)
            for name, path in (("model", options.model), ("weights", Path(options.weights)))
            if path is not None
        }
        return {"domains": self._domains[arm.seed], **files, "device": resolve_device(options.device).type}

    def _shared(self, options: AdaptOptions, arm: Arm) -> Path:
        """The file of the network of the source, which does not depend on what comes after."""
        config = options.as_config()
        settings = {name: config.get(name) for name in _OF_SOURCE}
        key = content_key({"settings": settings, "seed": arm.seed, **self._about(arm), "v": _VERSION})
        return self.folder / "sources" / f"{key}.safetensors"


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in {"histogram", "audit"}}
