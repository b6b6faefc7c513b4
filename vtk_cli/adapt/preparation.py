"""What a run works with: its domains as images, its settings, its classifier of the source."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision.transforms.functional import pil_to_tensor

from vtk_cli.adapt.circumstances import Circumstances
from vtk_cli.adapt.domains import Domains, Unreadable, find_unreadable, open_domains
from vtk_cli.adapt.images import DomainImages, MemoryImages, ReadImages
from vtk_cli.adapt.learner import Learner, build_learner
from vtk_cli.adapt.method import Method
from vtk_cli.adapt.network_file import open_network
from vtk_cli.adapt.networks import DomainNetwork, build_network
from vtk_cli.adapt.options import EMBEDDED, AdaptOptions
from vtk_cli.adapt.pool import Pool
from vtk_cli.adapt.published_checkpoints import load_published, read_published
from vtk_cli.console import Console
from vtk_cli.data.classification_source import ImageSource
from vtk_cli.engine.devices import resolve_device, resolve_precision
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.parallel_options import ParallelOptions
from vtk_cli.engine.seeds import preserved_rng, sample_seed, seed_everything
from vtk_cli.errors import UserError
from vtk_cli.models.preprocessing import PixelConfig

_STREAM = 0x6E6574
"""Sets the draw of the first weights apart from others of the same seed."""


@dataclass(frozen=True, eq=False)
class Lab:
    """What the rounds of a run share.

    Args:
        options: of the run.
        domains: its data; their truth is for the simulated person and for measuring alone.
        source, target, test: their images as the network takes them; None where there are none.
        method: the settings of the stages.
        circumstances: where and how they compute.
    """

    options: AdaptOptions
    domains: Domains
    source: DomainImages | None
    target: DomainImages
    test: DomainImages | None
    method: Method
    circumstances: Circumstances

    @property
    def pool(self) -> Pool:
        """The target's images by id."""
        return self.domains.pool

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the source."""
        return self.domains.class_names

    @property
    def source_labels(self) -> torch.Tensor:
        """(N,) int64, of the source's images.

        Raises:
            UserError: there is no source.
        """
        if self.domains.source is None:
            raise UserError("there is no source to learn from", "--source", "give it")
        return self.domains.source.targets

    def learner(self, network: DomainNetwork) -> Learner:
        """All that learns with a network, its first weights from the run's seed."""
        return build_learner(network, self.method, seed=self.options.seed, device=self.circumstances.device)


def read_domains(
    options: AdaptOptions,
    console: Console,
    unreadable: tuple[Unreadable, ...] | None = None,
    world: World | None = None,
) -> tuple[Domains, tuple[Unreadable, ...]]:
    """Open the domains of a run.

    Args:
        options: of the run.
        console: told of what is odd.
        unreadable: images to leave out; None: look at all, which takes as long as reading them.
        world: this process among others, of which the first looks; None: it is alone.

    Returns:
        The domains, and the images that were left out.

    Raises:
        UserError: data and options do not go together, or fewer than two images are left.
    """
    domains = open_domains(
        options.source_name,
        options.target_name,
        console=console,
        target_test=options.target_test,
        root=options.root,
        class_names=_model_classes(options, console),
        seed=options.seed,
        ignore_target_labels=options.ignore_target_labels,
    )
    if unreadable is not None:
        left_out = unreadable
    elif world is None:
        left_out = find_unreadable(domains, console)
    else:
        left_out = world.on_main(lambda: find_unreadable(domains, console))
    return (domains.without(left_out) if left_out else domains), left_out


def open_lab(
    options: AdaptOptions,
    domains: Domains,
    pixels: PixelConfig,
    console: Console,
    *,
    device: str | None = None,
    world: World | None = None,
) -> Lab:
    """Bring domains and settings together.

    Args:
        options: of the run.
        domains: without what cannot be read.
        pixels: of the network.
        console: shows the progress.
        device: in place of that in the options.
        world: this process among those that train together, each with its device; None: it is alone.
    """
    place = resolve_device(device or options.device) if world is None else world.device
    circumstances = Circumstances(
        place,
        options.seed,
        console,
        precision=resolve_precision(options.precision, place),
        checkpoint_seconds=options.checkpoint_seconds,
        skip_nonfinite=options.skip_nonfinite or 0,
        world=world,
        sync_bn=isinstance(options, ParallelOptions) and options.sync_bn,
    )

    def images(one: ImageSource | Pool) -> DomainImages:
        return _images(one, pixels, options.workers, place)

    return Lab(
        options,
        domains,
        None if domains.source is None else images(domains.source),
        images(domains.pool),
        None if domains.test is None else images(domains.test),
        options.method,
        circumstances,
    )


def first_network(options: AdaptOptions, class_names: tuple[str, ...], console: Console) -> tuple[DomainNetwork, bool]:
    """The network to begin with, and whether it knows the source already.

    Raises:
        UserError: an unknown network, or a checkpoint of other classes.
    """
    if options.model is not None and options.model.is_file():
        network, names = open_network(options.model, console)
        if names != class_names:
            what = f"is of {len(names)} classes ({', '.join(names[:3])}, ...), the source has {len(class_names)}"
            raise UserError(what, f"--model {options.model}", "give a checkpoint of the source's classes")
        return network, True
    with preserved_rng():
        seed_everything(sample_seed(options.seed, _STREAM, 0))
        network = build_network(
            options.net,
            classes=len(class_names),
            console=console,
            weights=options.weights if options.model is None else "scratch",
            size=options.size,
            width=options.width,
            domain_norm=options.dsbn,
            offline=options.offline,
        )
    if options.model is None:
        return network, False
    load_published(network, read_published(options.model))
    return network, True


def source_fingerprint(domains: Domains) -> str:
    """A checksum of the source's names, labels and, of images in memory, pixels; empty without a source."""
    if domains.source is None:
        return ""
    found = hashlib.sha1(usedforsecurity=False)
    source = domains.source
    found.update("\n".join((*source.class_names, *source.names)).encode("utf-8", "surrogateescape"))
    found.update(source.targets.numpy().tobytes())
    if _in_memory(source):
        for row in range(len(source)):
            found.update(source.read(row).tobytes())
    else:
        sizes = (str((Path(source.name) / name).stat().st_size) for name in source.names)
        found.update(",".join(sizes).encode())
    return found.hexdigest()


def _model_classes(options: AdaptOptions, console: Console) -> tuple[str, ...] | None:
    """The class names where there is no source to give them."""
    if options.source_name is not None or options.model is None:
        return None
    if options.model.is_file():
        return open_network(options.model, console)[1]
    if options.classes is None:
        raise UserError("does not name its classes", f"--model {options.model}", "give --classes FILE, one a line")
    try:
        lines = options.classes.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot be read as text", f"--classes {options.classes}", str(error)) from error
    return tuple(line.strip() for line in lines if line.strip())


def domain_images(one: ImageSource | Pool, lab: Lab, pixels: PixelConfig) -> DomainImages:
    """Further images as a network of the run takes them."""
    return _images(one, pixels, lab.options.workers, lab.circumstances.device)


def _images(one: ImageSource | Pool, pixels: PixelConfig, workers: int, device: torch.device) -> DomainImages:
    names = one.names if isinstance(one, ImageSource) else one.ids
    if _in_memory(one) and len(one) and one.read(0).size == (pixels.input_size, pixels.input_size):
        return MemoryImages(torch.stack([pil_to_tensor(one.read(row)) for row in range(len(one))]), names=names)
    pin = device.type == "cuda" and workers > 0
    return ReadImages(len(one), one.read, pixels, workers, pin_memory=pin, names=names)


def _in_memory(one: ImageSource | Pool) -> bool:
    """Whether the images are embedded ones: those of files are named by their folder."""
    return one.root is None if isinstance(one, Pool) else one.name.partition(" ")[0] in EMBEDDED
