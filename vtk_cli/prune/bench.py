"""`vtk bench prune`: selecting the kept weights, a step of a search against one of dense training, sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version

import torch
from torch import Tensor
from torchvision.models import vgg19_bn

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.loss_meter import LossMeter
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.timing import in_turns, seconds_of
from vtk_cli.engine.update import Updater
from vtk_cli.prune.algorithms import SearchSettings, create_search
from vtk_cli.prune.extractors import Extractor, Preprocessing, create_extractor, vgg_taps
from vtk_cli.prune.generators import Generator, create_generator
from vtk_cli.prune.keeping import AlgorithmName, kept_of
from vtk_cli.prune.masking import Selection, masked, prunable
from vtk_cli.prune.matching import MomentLoss, MovingAverage
from vtk_cli.prune.moments import measure as moments_of
from vtk_cli.prune.objective import MatchedSearch, MatchingObjective
from vtk_cli.prune.preparation import BETAS
from vtk_cli.prune.rebuilding import rebuild, seeded, ticket_of
from vtk_cli.prune.samples import latents
from vtk_cli.prune.selection import select_globally
from vtk_cli.prune.weights import WeightRule, initialise_scores, initialise_weights
from vtk_cli.reports.evidence import BenchRow

STEP_TARGET = 0.8
"""The dense step's time over the search's, which may cost 1.25 x."""
_KEEP = Fraction(1, 10)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _Size:
    """A generator, and in which batches it is searched.

    Args:
        name, image_size, channels, nz, ngf: of the generator.
        batch: images a step.
        is_digits: its features are those of digits, else VGG19's, whose weights do not matter to the time.
    """

    name: str
    image_size: int
    channels: int
    nz: int
    ngf: int
    batch: int
    is_digits: bool

    def generator(self) -> Generator:
        """With signed constants."""
        made = create_generator(self.name, self.image_size, self.channels, self.nz, self.ngf)
        initialise_weights(made, WeightRule())
        return made

    @property
    def described(self) -> str:
        """For tables."""
        return f"{self.name} of {sum(_sizes(self.generator()).values()):,} weights, {self.image_size} px"


_DIGITS = _Size("dcgan-tiny", 16, 1, 32, 48, 64, is_digits=True)
_SMALLEST = _Size("dcgan-tiny", 16, 1, 8, 8, 8, is_digits=True)
_SNGAN = _Size("sngan", 32, 3, 128, 256, 8, is_digits=False)


def measure(*, smallest: bool, device: torch.device, console: Console) -> list[BenchRow]:
    """Time all, in turns; the medians."""
    rounds = 3 if smallest else 15
    sizes = (_SMALLEST,) if smallest else (_DIGITS, _SNGAN)
    return [
        *(_selection_row(size, rounds, device) for size in sizes[-1:]),
        *(_step_row(size, rounds if size.is_digits else max(3, rounds // 3), device, console) for size in sizes),
        *(_sampling_row(size, rounds, device) for size in sizes[:1]),
    ]


def _selection_row(size: _Size, rounds: int, device: torch.device) -> BenchRow:
    """The masks of one threshold over all layers, by selection and by sorting."""
    generator = torch.Generator().manual_seed(0)
    shapes = _sizes(size.generator())
    amounts = {name: torch.rand(n, generator=generator).to(device) for name, n in shapes.items()}
    kept = kept_of(sum(shapes.values()), _KEEP)
    equal = all(torch.equal(mask, other) for mask, other in _pairs(amounts, kept))
    ours, theirs = in_turns(
        lambda: seconds_of(lambda: select_globally(amounts, kept), device),
        lambda: seconds_of(lambda: _by_sorting(amounts, kept), device),
        rounds,
    )
    return _row(
        f"the masks of {sum(shapes.values()):,} scores, one threshold",
        (ours, theirs),
        "a full sort of all scores, as published",
        device=device,
        note=f"the masks are {'equal' if equal else 'NOT equal'}",
    )


def _step_row(size: _Size, rounds: int, device: torch.device, console: Console) -> BenchRow:
    """A step of edge-popup and a step that trains all weights: the same generator, features, batch and optimiser."""
    extractor = _extractor(size, device, console)
    ours, theirs = in_turns(
        _step("edge-popup", size, extractor, device), _step("dense", size, extractor, device), rounds
    )
    features = "digits-features" if size.is_digits else "VGG19-BN"
    return _row(
        f"a step of edge-popup on {size.described}, {features}, batch {size.batch}",
        (ours, theirs),
        "a dense training step",
        target=STEP_TARGET,
        device=device,
        note=f"{ours / theirs:.2f}x the time of the dense step",
    )


def _sampling_row(size: _Size, rounds: int, device: torch.device) -> BenchRow:
    """The same images a second, with nine of ten weights 0 and with none."""
    dense = size.generator().to(device).eval()
    twin = masked(size.generator(), Selection(_KEEP, "global"))
    initialise_scores(twin.layers.values(), "uniform", "global", 0)
    ticket = rebuild(ticket_of(twin, seeded(WeightRule()), algorithm="edge-popup")).to(device)
    noise = latents(size.batch, size.nz, 0).to(device)

    def sampling(generator: Generator) -> Callable[[], float]:
        @torch.no_grad()
        def work() -> Tensor:
            images: Tensor = generator(noise)
            return images

        return lambda: seconds_of(work, device)

    return _row(
        f"{size.batch} samples of a ticket of {size.described}",
        in_turns(sampling(ticket), sampling(dense), 3 * rounds),
        "the dense generator",
        device=device,
        note="no speed-up is meant: zeros here and there are multiplied like all else",
    )


def _row(
    name: str, seconds: tuple[float, float], peer: str, *, target: float | None = None, device: torch.device, note: str
) -> BenchRow:
    versions = {package: version(package) for package in ("torch", "numpy")}
    return BenchRow(name, *seconds, peer, target, describe_device(device), versions, note)


def _step(algorithm: AlgorithmName, size: _Size, extractor: Extractor, device: torch.device) -> Callable[[], float]:
    settings = SearchSettings(Selection(_KEEP, "global"), 1000)
    search = create_search(algorithm, size.generator(), settings)
    images = torch.rand(2 * size.batch, size.channels, size.image_size, size.image_size) * 2 - 1
    loss = MomentLoss(moments_of(extractor, images.split(size.batch), device), "layer")
    model = MatchedSearch(search, MovingAverage("ema", 0.97, loss.sizes)).to(device)
    optimizer = torch.optim.Adam(search.trained(), lr=1e-3, betas=BETAS)
    objective = MatchingObjective(extractor, loss, optimizer)
    world = World(0, 1, 0, device)
    updater = Updater(
        model,
        objective,
        optimizer,
        None,
        clip_norm=None,
        ema_decay=None,
        precision="fp32",
        seed=0,
        world=world,
    )
    batch = (torch.arange(size.batch), latents(size.batch, size.nz, 0))
    meter, made = LossMeter(world), iter(range(10**9))
    updater.model.train()

    def work() -> None:
        updater([batch], 0, next(made), meter)
        meter.read()

    return lambda: seconds_of(work, device)


def _extractor(size: _Size, device: torch.device, console: Console) -> Extractor:
    if size.is_digits:
        return create_extractor(
            "digits-features", image_size=size.image_size, channels=size.channels, device=device, console=console
        )
    taps = vgg_taps(vgg19_bn(weights=None))
    return Extractor("vgg19-bn", taps, Preprocessing(_MEAN, _STD), {}).to(device)


def _sizes(generator: Generator) -> dict[str, int]:
    """Weights by prunable layer."""
    return {name: sum(one.numel() for one in layer.parameters()) for name, layer in prunable(generator).items()}


def _by_sorting(amounts: Mapping[str, Tensor], kept: int) -> dict[str, Tensor]:
    pool = torch.cat(list(amounts.values()))
    order = pool.sort(descending=True, stable=True).indices
    mask = torch.zeros_like(pool, dtype=torch.bool).scatter(0, order[:kept], value=True)
    return dict(zip(amounts, mask.split([len(one) for one in amounts.values()]), strict=True))


def _pairs(amounts: Mapping[str, Tensor], kept: int) -> list[tuple[Tensor, Tensor]]:
    ours, theirs = select_globally(amounts, kept), _by_sorting(amounts, kept)
    return [(ours[name], theirs[name]) for name in amounts]
