"""From options to everything a search needs: what all searches on the same images share, and what each has alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.engine.loop import Plan
from vtk_cli.engine.processes.batch_norm import ordinary_batch_norm, synchronise_batch_norm
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.parallel_options import ParallelOptions
from vtk_cli.engine.seeds import sample_seed
from vtk_cli.errors import UserError
from vtk_cli.prune.algorithms import SearchSettings, create_search
from vtk_cli.prune.data import Pictures, Splits, open_data, selection, signed
from vtk_cli.prune.extractors import Extractor, create_extractor
from vtk_cli.prune.generator_source import open_generator
from vtk_cli.prune.generators import Generator, create_generator
from vtk_cli.prune.keeping import AlgorithmName, Scope
from vtk_cli.prune.masking import Selection
from vtk_cli.prune.matching import MomentLoss, MovingAverage
from vtk_cli.prune.metrics.embedders import Embedder, open_embedder
from vtk_cli.prune.metrics.quality import check_counts
from vtk_cli.prune.metrics.summaries import Summary, real_summary
from vtk_cli.prune.moments import Moments, cached_moments
from vtk_cli.prune.objective import MatchingObjective, NoiseBatches
from vtk_cli.prune.options import EmbedderOptions, TrialOptions
from vtk_cli.prune.rebuilding import of_checkpoint, seeded, stored
from vtk_cli.prune.samples import latents
from vtk_cli.prune.schedule import UpdateSchedule, stretches
from vtk_cli.prune.search import MaskedSearch, Search
from vtk_cli.prune.ticket import MOST_WEIGHTS, Origin
from vtk_cli.prune.watching import SHOWN, Watch, WatchedSearch
from vtk_cli.prune.weights import WeightRule, initialise_weights

MOMENT_BATCH = 64
BETAS = (0.5, 0.999)
CALIBRATION_BATCHES = 20
_NOISE = 3
"""Keeps the noise of a training apart from the random numbers of weights, scores and masks."""
_PICTURES, _CALIBRATION, _REPORT, _VALIDATION, _PROBE = (use << 32 for use in range(1, 6))
"""Added to the seed, which is below 2^32: noise for samples, statistics, the report, the choice, the gaps."""


@dataclass(frozen=True, eq=False)
class Lab:
    """What all searches on the same images share.

    Args:
        options: all of them; `algo`, `keep`, `scope` and `seed` may differ from search to search.
        splits: the real images.
        report: those that results are reported on.
        validation: those that are measured on along the way; None: none are.
        extractor: whose features are matched.
        loss: against their moments on the real images.
        embedder: what measures.
        device: where.
        world: this process among those that search together; None: it is alone.
    """

    options: TrialOptions
    splits: Splits
    report: Pictures
    validation: Pictures | None
    extractor: Extractor
    loss: MomentLoss
    embedder: Embedder
    device: torch.device
    world: World | None = None

    @property
    def processes(self) -> World:
        """This process among the others, or alone."""
        return self.world or World(0, 1, 0, self.device)

    @contextmanager
    def normalised_together(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` is trained: where asked for, its batch normalisation is that of all processes.

        So is that of an extractor whose features depend on each batch.
        """
        asked = isinstance(self.options, ParallelOptions) and self.options.sync_bn
        if not asked or self.processes.size == 1:
            yield
            return
        try:
            synchronise_batch_norm(model)
            synchronise_batch_norm(self.extractor)
            yield
        finally:
            ordinary_batch_norm(model)
            ordinary_batch_norm(self.extractor)

    def summary(self, pictures: Pictures, console: Console) -> Summary:
        """Of real images, from the cache if they were embedded before."""
        return real_summary(pictures, self.embedder, console)

    def floor_pictures(self) -> Pictures:
        """Of the train images as many as are generated: what a perfect generator would come to."""
        train, count = self.splits.train, self.options.samples
        if len(train) <= count:
            return train
        generator = torch.Generator().manual_seed(0)
        places = torch.randperm(len(train), generator=generator)[:count].tolist()
        return train.part(f"{count} of {train.name}", places)


@dataclass(frozen=True)
class Arm:
    """One search on the images of a lab.

    Args:
        algorithm: how.
        keep: the fraction of weights kept; of no meaning to `dense`.
        scope: where they compete.
        seed: of weights, scores, masks and noise.
    """

    algorithm: AlgorithmName
    keep: Fraction
    scope: Scope
    seed: int

    @property
    def name(self) -> str:
        """For tables."""
        if self.algorithm == "dense":
            return "trained dense"
        if self.algorithm == "random" and self.keep == 1:
            return "untrained dense"
        words = {
            "edge-popup": "ticket",
            "gem-miner": "ticket (Gem-Miner)",
            "random": "random mask",
            "sparse": "trained, random mask",
            "imp": "trained, iterative magnitude",
            "magnitude": "trained, magnitude",
        }
        scope = f", {self.scope}" if self.algorithm not in {"random", "sparse"} else ""
        return f"{words[self.algorithm]}{scope}, {float(self.keep):.4g}"


@dataclass(frozen=True)
class TicketPolicy:
    """What a ticket may rely on where its weights are no signed constants.

    Args:
        store_weights: it holds the kept weights itself.
        framework_rng: else, torch's random numbers.
    """

    store_weights: bool = True
    framework_rng: bool = False


@dataclass(frozen=True, eq=False)
class Prepared:
    """A search before its first step.

    Args:
        arm: what it is.
        model: all of its state.
        objective: the loss; None where nothing is trained.
        optimizer, scheduler: of what is trained; None where nothing is.
        batches: of noise.
        plan: of the engine's loop.
        watch: looks at it after every stretch.
        origin: where a ticket's weights come from; None where there is no ticket.
    """

    arm: Arm
    model: WatchedSearch
    objective: MatchingObjective | None
    optimizer: torch.optim.Optimizer | None
    scheduler: UpdateSchedule | None
    batches: NoiseBatches
    plan: Plan
    watch: Watch
    origin: Origin | None

    @property
    def search(self) -> Search:
        """The generator on its way."""
        return self.model.search

    @property
    def steps(self) -> int:
        """Updates that will be made; 0 where nothing is trained."""
        return 0 if self.objective is None else self.plan.epochs * self.batches.steps_per_epoch


def open_lab(
    options: TrialOptions,
    device: torch.device,
    console: Console,
    *,
    choose: bool = False,
    world: World | None = None,
) -> Lab:
    """Open the images, measure their moments, open what embeds them.

    Args:
        options: which.
        device: where.
        console: told of trainings and broken images.
        choose: set images apart that are measured on along the way.
        world: this process among those that search together; None: it is alone.

    Raises:
        UserError: images, networks and options do not go together, or there are too few images.
        NoWeights: weights that are not on this machine and cannot be fetched.
    """
    splits = open_data(
        options.data,
        size=options.image_size,
        channels=options.channels,
        eval_data=options.eval_data,
        holdout=options.holdout,
        console=console,
    )
    validation, report = selection(splits, 0) if choose else (None, splits.held_out)
    embedder = open_measure(options, options.image_size, device, console)
    for part in (report, validation):
        if part is not None:
            check_counts(len(part), options.samples, embedder.name, options.neighbours)
    extractor = create_extractor(
        options.extractor,
        image_size=options.image_size,
        channels=options.channels,
        mode=options.extractor_mode,
        layers=options.extractor_layers or None,
        offline=options.offline,
        device=device,
        console=console,
    )
    loss = MomentLoss(_moments(splits.train, extractor, device), options.normalisation)
    return Lab(options, splits, report, validation, extractor, loss, embedder, device, world)


def open_measure(options: EmbedderOptions, side: int, device: torch.device, console: Console) -> Embedder:
    """The embedder that the options ask for.

    Args:
        options: which.
        side: of the images, in pixels.
        device: where.
        console: told of the fallback and of trainings.

    Raises:
        UserError, NoWeights: see `open_embedder`.
    """
    return open_embedder(
        options.embedder,
        image_side=side,
        inception=options.inception,
        resize=options.resize,
        allow_fallback=options.allow_fallback,
        offline=options.offline,
        device=device,
        console=console,
    )


def prepare(lab: Lab, arm: Arm, policy: TicketPolicy = TicketPolicy()) -> Prepared:
    """Build a search; the same seed builds the same.

    Args:
        lab: what it shares with others.
        arm: what it is.
        policy: what its ticket may rely on.

    Raises:
        UserError: the options do not go together.
    """
    options, device = lab.options, lab.device
    count, length = stretches(options.steps, options.every)
    rule = WeightRule(options.weight_init, arm.seed, arm.keep if options.scale_fan else Fraction(1))
    generator = initial_generator(options, rule)
    settings = SearchSettings(
        selection=Selection(arm.keep, arm.scope, options.structure if arm.keep == Fraction(1, 2) else "none"),
        steps=count * length,
        seed=arm.seed,
        score_init=options.score_init,
        freeze_first=options.freeze_first,
        freeze_last=options.freeze_last,
        rounds=options.rounds,
        rewind=options.rewind,
    )
    search = create_search(arm.algorithm, generator, settings)
    model = WatchedSearch(search, MovingAverage(options.averaging, options.rate, lab.loss.sizes)).to(device)
    trained = search.trained()
    optimizer = objective = scheduler = None
    if trained:
        lr, decay = options.lr_of(arm.algorithm), options.weight_decay
        optimizer = torch.optim.Adam(trained, lr=lr, betas=BETAS, weight_decay=decay)
        rounds = settings.rounds if arm.algorithm == "imp" else 0
        scheduler = UpdateSchedule(optimizer, options.schedule, count * length, rounds)
        objective = MatchingObjective(lab.extractor, lab.loss, optimizer, lab.world)
    probe = latents(options.batch, generator.nz, arm.seed + _PROBE)
    noise_seed = arm.seed if options.noise_seed is None else options.noise_seed
    return Prepared(
        arm=arm,
        model=model,
        objective=objective,
        optimizer=optimizer,
        scheduler=scheduler,
        batches=NoiseBatches(options.batch, generator.nz, length, sample_seed(noise_seed, _NOISE, 0), lab.world),
        plan=Plan(
            count,
            precision=options.precision,
            checkpoint_seconds=options.checkpoint_seconds,
            skip_nonfinite=options.skip_nonfinite or 0,
        ),
        watch=Watch(lab.extractor, lab.loss, probe.to(device), device),
        origin=_origin(options, rule, search, policy),
    )


def initial_generator(options: TrialOptions, rule: WeightRule) -> Generator:
    """The plain generator before the search: of random weights, or of the checkpoint that the options name.

    Raises:
        UserError: the checkpoint cannot be read, or is of another generator.
    """
    if options.theta is None:
        _require_room(options)
        made = create_generator(options.gen, options.image_size, options.channels, options.nz, options.ngf)
        initialise_weights(made, rule)
        return made
    given = open_generator(options.theta)
    asked = create_generator(
        options.gen, options.image_size, options.channels, options.nz, options.ngf, bias=given.bias
    )
    if given.arguments != asked.arguments:
        differs = [name for name, value in asked.arguments.items() if given.arguments[name] != value]
        what = "; ".join(f"{name} is {given.arguments[name]}, not {asked.arguments[name]}" for name in differs)
        flags = {"name": "gen", "image_size": "image-size"}
        fix = " ".join(f"--{flags.get(name, name)} {given.arguments[name]}" for name in differs)
        raise UserError(f"is another generator: {what}", f"--theta {options.theta}", f"give {fix}")
    return given


def _require_room(options: TrialOptions) -> None:
    """Refuse generators of absurd sizes before memory is asked for.

    Raises:
        UserError: there are more weights than a ticket holds.
    """
    try:
        with torch.device("meta"):
            sized = create_generator(options.gen, options.image_size, options.channels, options.nz, options.ngf)
        fits = sum(parameter.numel() for parameter in sized.parameters()) <= MOST_WEIGHTS
    except (RuntimeError, OverflowError, TypeError):  # sides whose product no tensor can have
        fits = False
    if not fits:
        raise UserError(
            f"{options.gen} of that size has more than {MOST_WEIGHTS:,} weights", "--nz, --ngf", "make it smaller"
        )


def calibration_noise(lab: Lab, arm: Arm, nz: int) -> Iterator[Tensor]:
    """Noise for batch normalisation's statistics, on the device."""
    batch = lab.options.batch
    for number in range(CALIBRATION_BATCHES):
        yield latents(batch, nz, arm.seed + _CALIBRATION, start=number * batch).to(lab.device)


def picture_noise(seed: int, nz: int, count: int = SHOWN) -> Tensor:
    """(count, nz): that of the samples that are shown; the same for all searches with that seed."""
    return latents(count, nz, seed + _PICTURES)


def report_noise(seed: int, nz: int, count: int) -> Tensor:
    """(count, nz): that of the images that are measured in the end."""
    return latents(count, nz, seed + _REPORT)


def validation_noise(seed: int, nz: int, count: int) -> Tensor:
    """(count, nz): that of the images that are measured along the way."""
    return latents(count, nz, seed + _VALIDATION)


def _moments(train: Pictures, extractor: Extractor, device: torch.device) -> Moments:
    batches = (signed(images) for images in train.batches(MOMENT_BATCH))
    identity = {"images": train.fingerprint, "batch": MOMENT_BATCH if extractor.mode == "train" else 0}
    return cached_moments(extractor, batches, identity, device)


def _origin(options: TrialOptions, rule: WeightRule, search: Search, policy: TicketPolicy) -> Origin | None:
    """Where a ticket's weights come from; None where nothing is masked."""
    if not isinstance(search, MaskedSearch):
        return None
    trained = {id(parameter) for parameter in search.trained()}
    if any(id(layer.weight) in trained for layer in search.twin.layers.values()):
        return stored()
    is_drawn = options.theta is None
    if policy.store_weights and not (is_drawn and rule.init == "signed-constant"):
        return stored(rule.init if is_drawn else "")
    return seeded(rule, allow_framework_rng=policy.framework_rng) if is_drawn else of_checkpoint(search.twin)
