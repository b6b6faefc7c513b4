"""A search from its first step to its numbers; and the same as a piece of work that is kept and never made twice."""

from __future__ import annotations

import base64
import io
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.engine.loop import FitResult, fit
from vtk_cli.engine.pieces.results import Result, ResultStore, work_through
from vtk_cli.engine.pieces.turns import WHOLE, Share
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.shared_work import in_every_process
from vtk_cli.engine.signals import StopRequest
from vtk_cli.errors import JobError
from vtk_cli.files import cache_folder, content_key, sha256_file
from vtk_cli.prune.calibration import recalibrate
from vtk_cli.prune.counts import Counts, counts
from vtk_cli.prune.generator_file import save_generator
from vtk_cli.prune.generator_source import open_generator
from vtk_cli.prune.generators import Generator
from vtk_cli.prune.metrics.embedders import Embedder, Embedding
from vtk_cli.prune.metrics.quality import Quality, quality
from vtk_cli.prune.metrics.summaries import Summary, summarised, summary_of
from vtk_cli.prune.options import TrialOptions
from vtk_cli.prune.preparation import (
    Arm,
    Lab,
    Prepared,
    calibration_noise,
    picture_noise,
    prepare,
    report_noise,
)
from vtk_cli.prune.rebuilding import rebuild, ticket_of
from vtk_cli.prune.samples import BATCH as SAMPLED
from vtk_cli.prune.samples import generated
from vtk_cli.prune.search import MaskedSearch
from vtk_cli.prune.ticket import Ticket
from vtk_cli.prune.ticket_file import write_ticket
from vtk_cli.prune.weights import weights_sha256

KEPT = "finished searches"
_VERSION = 1
"""Raised when what is measured changes, so that kept results are not taken for it."""
_FROZEN = ("edge-popup", "gem-miner", "random")
PLACE = {
    "out", "device", "checkpoint-seconds", "algo", "keep", "scope", "seed", "recipe", "offline", "data", "eval-data",
    "store", "shard", "devices", "seeds", "keeps", "algos", "scopes", "theta", "inception", "allow-fallback",
    "baselines", "eval-every", "select", "export", "codec", "store-weights", "allow-framework-rng", "parallel",
    "sync-bn",
}  # fmt: skip
"""Options that do not change what an arm comes to, or that its key has in another way."""

Evaluate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class Settled:
    """A search that is over.

    Args:
        generator: plain, in eval mode, on the device; of a ticket, rebuilt from it.
        ticket: None where all weights were trained.
        counts: of kept weights.
        theta: SHA-256 of all weights before the search and after it.
    """

    generator: Generator
    ticket: Ticket | None
    counts: Counts
    theta: tuple[str, str]


def run_search(
    prepared: Prepared,
    lab: Lab,
    console: Console,
    *,
    folder: Path | None = None,
    evaluate: Evaluate | None = None,
    after: Callable[..., None] | None = None,
) -> FitResult | None:
    """Make all the steps; None where there are none to make.

    Args:
        prepared: the search.
        lab: of it.
        console: shows the progress.
        folder: of the run, for checkpoints and metrics; None keeps neither.
        evaluate: measures after every stretch.
        after: hears of every stretch.

    Raises:
        JobError: the loss is not finite, or the disk is full; the last checkpoint stays.
        Preempted, KeyboardInterrupt: a signal came; the state is saved.
    """
    if prepared.objective is None or prepared.optimizer is None:
        return None
    with lab.normalised_together(prepared.model):
        return fit(
            prepared.model,
            prepared.objective,
            prepared.batches,
            prepared.optimizer,
            plan=prepared.plan,
            device=lab.device,
            seed=prepared.arm.seed,
            scheduler=prepared.scheduler,
            evaluate=evaluate,
            after_epoch=after,
            checkpoints=None if folder is None else folder / "checkpoints",
            metrics=None if folder is None else folder / "metrics.jsonl",
            console=console,
            description=prepared.arm.name,
            world=lab.world,
        )


def theta_sha256(prepared: Prepared) -> str:
    """The SHA-256 of all weights of prunable layers as they are now."""
    return weights_sha256(prepared.search.network)


def settle(prepared: Prepared, lab: Lab, before: str) -> Settled:
    """Fix the masks, measure batch normalisation's statistics for them, and rebuild the generator from its ticket.

    Args:
        prepared: a search all of whose steps are made.
        lab: of it.
        before: the weights' sum before the first step.

    Raises:
        JobError: an algorithm that freezes weights has changed them.
    """
    search = prepared.search
    search.finish()
    after = theta_sha256(prepared)
    if prepared.arm.algorithm in _FROZEN and after != before:
        raise JobError(f"{prepared.arm.name}: the frozen weights have changed, from {before[:12]} to {after[:12]}")
    network = cast("Generator", search.network)
    recalibrate(network, calibration_noise(lab, prepared.arm, network.nz))
    found = counts(network)
    if prepared.origin is None or not isinstance(search, MaskedSearch):
        return Settled(network, None, found, (before, after))
    ticket = ticket_of(search.twin, prepared.origin, algorithm=prepared.arm.algorithm)
    given = None
    if prepared.origin.source == "checkpoint" and lab.options.theta is not None:
        given = open_generator(lab.options.theta).state_dict()
    return Settled(rebuild(ticket, given).to(lab.device), ticket, found, (before, after))


def measured(generator: Generator, lab: Lab, seed: int, console: Console | None = None) -> Quality:
    """How good a generator's images are, on the images to report on."""
    real = lab.summary(lab.report, console or Console(quiet=True))
    noise = report_noise(seed, generator.nz, lab.options.samples)
    k = lab.options.neighbours
    return quality_of(generator, noise, real, lab.embedder, k=k, console=console, world=lab.world)


def quality_of(
    generator: nn.Module,
    noise: Tensor,
    real: Summary,
    embedder: Embedder,
    *,
    k: int,
    console: Console | None,
    world: World | None = None,
) -> Quality:
    """The images of some noise against real ones; several processes make and embed them together.

    Args:
        generator: on the embedder's device.
        noise: (N, nz).
        real: what they are compared with.
        embedder: what made `real`.
        k: of the nearest neighbours.
        console: shows the progress, and is told of too few images; None for one number among many.
        world: this process among those that measure together; None: it is alone.

    Raises:
        UserError: there are too few images; it says how many are needed.
    """
    if world is None or world.size == 1:
        images, face = generated(generator, noise, device=embedder.device), console or Console(quiet=True)
        fake = summarised(images, len(noise), embedder, name="generated", console=face)
        return quality(real, fake, embedder, console, k=k)
    batches = noise.split(SAMPLED)
    own = batches[world.rank :: world.size]

    def embedded() -> list[Embedding]:
        made = (images for part in own for images in generated(generator, part, device=embedder.device))
        return [embedder(images) for images in made]

    parts = in_every_process(world, embedded)
    embeddings = (parts[number % world.size][number // world.size] for number in range(len(batches)))
    return world.on_main(
        lambda: quality(real, summary_of(embeddings, len(noise), name="generated"), embedder, console, k=k)
    )


def shown(generator: nn.Module, nz: int, seed: int, device: torch.device) -> Tensor:
    """(SHOWN, C, R, R) uint8: the samples that stand for a generator in pictures."""
    return torch.cat(list(generated(generator, picture_noise(seed, nz), device=device)))


@dataclass(frozen=True)
class Trials:
    """Searches on the images of one lab as pieces of work.

    Args:
        lab: of all.
        folder: where unfinished ones and results are kept.
        console: shows the progress.
    """

    lab: Lab
    folder: Path
    console: Console

    @classmethod
    def of(cls, lab: Lab, store: Path | None, console: Console) -> Trials:
        """Kept in `store`, else in the user's cache."""
        return cls(lab, store or cache_folder() / "prune-searches", console)

    def key(self, arm: Arm) -> str:
        """Of everything that shapes a result."""
        lab, options = self.lab, self.lab.options
        settings = {name: value for name, value in options.as_config().items() if name not in PLACE}
        data = [lab.splits.train.fingerprint, lab.report.fingerprint]
        theta = None if options.theta is None or not options.theta.is_file() else sha256_file(options.theta)
        about = {"extractor": lab.extractor.identity, "embedder": lab.embedder.key, "device": lab.device.type}
        said = {**asdict(arm), "keep": str(arm.keep)}
        return content_key({"arm": said, "settings": settings, "data": data, "theta": theta, **about, "v": _VERSION})

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
            name=lambda arm: f"{arm.name} from seed {arm.seed}",
            heard=heard,
        )

    def result(self, arm: Arm) -> Result:
        """Search, measure; what was begun and stopped goes on."""
        place = self.folder / "unfinished" / self.key(arm)
        prepared = prepare(self.lab, arm)
        before = theta_sha256(prepared)
        fitted = run_search(prepared, self.lab, self.console, folder=place)
        settled = settle(prepared, self.lab, before)
        found = measured(settled.generator, self.lab, arm.seed)
        result = {
            "name": arm.name,
            **asdict(arm),
            "keep": float(arm.keep),
            "fd": found.frechet,
            "quality": plain(found.to_json()),
            "kept": settled.counts.kept,
            "weights": settled.counts.n,
            "layers": [{"name": layer.name, "n": layer.n, "kept": layer.kept} for layer in settled.counts.layers],
            "theta": list(settled.theta),
            "bytes": self._file_bytes(settled, place),
            "steps": prepared.steps,
            "seconds": None if fitted is None else fitted.train_seconds,
            "samples": as_png(shown(settled.generator, settled.generator.nz, arm.seed, self.lab.device)),
        }
        shutil.rmtree(place, ignore_errors=True)
        return result

    def _file_bytes(self, settled: Settled, place: Path) -> int:
        """The size of the ticket file; of the plain generator's, where there is no ticket."""
        if settled.ticket is not None:
            return write_ticket(place / "ticket.vtkt", settled.ticket)
        file = place / "generator.safetensors"
        save_generator(file, settled.generator)
        return file.stat().st_size


def arm_of(options: TrialOptions) -> Arm:
    """The search that the options name."""
    return Arm(options.algo, options.kept, options.scope, options.seed)


def with_metrics(ticket: Ticket, found: Quality) -> Ticket:
    """The ticket with what was measured on it."""
    return replace(ticket, metrics=plain(found.to_json()))


def plain(value: Any) -> Any:
    """JSON values without NaN and infinity, which become null."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def floor_of(lab: Lab, console: Console) -> Quality:
    """The train images, as if they were generated: what is not to be beaten."""
    real = lab.summary(lab.report, console)
    return quality(real, lab.summary(lab.floor_pictures(), console), lab.embedder, console, k=lab.options.neighbours)


def kernel_of(quality: Mapping[str, Any]) -> float:
    """The kernel distance in the JSON of a `Quality`, whatever it is called."""
    return float(next(value["mean"] for name, value in quality.items() if name.startswith(("KD(", "KID"))))


def without_samples(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without its picture, for summaries."""
    return {name: value for name, value in result.items() if name != "samples"}


def as_png(images: Tensor) -> str:
    """uint8 images (N, C, R, R), side by side, as a PNG in base64."""
    count, channels, side, _ = images.shape
    strip = images.permute(2, 0, 3, 1).reshape(side, count * side, channels).numpy()
    buffer = io.BytesIO()
    Image.fromarray(strip.squeeze(2) if channels == 1 else strip).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def from_png(text: str) -> Tensor:
    """What `as_png` wrote: uint8 (N, C, R, R)."""
    with Image.open(io.BytesIO(base64.b64decode(text))) as opened:
        strip = np.asarray(opened)
    whole = torch.from_numpy(strip.copy())
    pixels = whole[:, :, None] if whole.ndim == 2 else whole
    side = pixels.shape[0]
    return pixels.reshape(side, -1, side, pixels.shape[2]).permute(1, 3, 0, 2).contiguous()
