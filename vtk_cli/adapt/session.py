"""A run that a verb works on: found, held against other processes, brought into agreement, and told apart."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vtk_cli.adapt.ledger import LabelRow
from vtk_cli.adapt.manifest import read_manifest, require_same_contents, require_same_files
from vtk_cli.adapt.network_file import open_network
from vtk_cli.adapt.options import AdaptOptions
from vtk_cli.adapt.preparation import Lab, open_lab, read_domains
from vtk_cli.adapt.rounds import SOURCE_NETWORK, read_unreadable
from vtk_cli.adapt.run_files import RunFiles, held, load_run
from vtk_cli.adapt.state import AdaptState, check_invariants
from vtk_cli.adapt.undoing import finish_undo
from vtk_cli.adapt.verb_options import StartOptions
from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device, resolve_device
from vtk_cli.engine.processes.distributed import World, shared_run_folder
from vtk_cli.engine.run_config import RunConfig
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.errors import UserError
from vtk_cli.options import RUN_CONFIG, read_config

COMMANDS = ("adapt start", "adapt run")
MAY_CHANGE = {"device", "workers", "checkpoint-seconds", "skip-nonfinite", "parallel"}
"""Options that may differ when a run goes on."""


@dataclass(frozen=True, eq=False)
class Session:
    """A run and where it stands.

    Args:
        options: it was started with.
        files: its folder.
        state, rows: as they are on disk.
        pool: sample ids of the target.
        run: its records; None for verbs that only look.
    """

    options: AdaptOptions
    files: RunFiles
    state: AdaptState
    rows: tuple[LabelRow, ...]
    pool: tuple[str, ...]
    run: RunFolder | None = None

    @property
    def name(self) -> str:
        """What the user types for it."""
        return str(self.files.folder)

    def lab(
        self, console: Console, device: str | None = None, *, look: bool = False, world: World | None = None
    ) -> Lab:
        """Its data and settings.

        Args:
            console: shows the progress.
            device: in place of that of the start.
            look: compare the content of every target image, not sizes alone.
            world: this process among those that train together, of which the first looks; None: it is alone.

        Raises:
            UserError: data have changed since the start.
        """
        domains, _ = read_domains(self.options, Console(quiet=True), read_unreadable(self.files))
        manifest = read_manifest(self.files.manifest)
        pool = domains.pool

        def compare() -> None:
            if look:
                require_same_contents(manifest, pool, console)
            else:
                require_same_files(manifest, pool)

        compare() if world is None else world.on_main(compare)
        if domains.pool.ids != tuple(manifest.entries):
            more = [name for name in domains.pool.ids if name not in manifest.entries]
            console.note(f"{len(more)} target images are new since the start, and are left out")
            domains = replace(domains, pool=domains.pool.only(manifest.entries.keys()))
        network, _ = open_network(self.files.folder / SOURCE_NETWORK, Console(quiet=True))
        return open_lab(self.options, domains, network.pixels, console, device=device, world=world)


def look_at(folder: Path | None) -> Session:
    """A run as it is now, not held.

    Raises:
        UserError: it is none.
    """
    files = RunFiles(found_run(folder))
    state, rows = load_run(files)
    options, _ = _read_options(files.folder)
    return Session(options, files, state, rows, tuple(read_manifest(files.manifest).entries))


@contextmanager
def at_work(
    folder: Path | None, console: Console, device: str | None = None, world: World | None = None
) -> Iterator[Session]:
    """A run that this process, or those that train together, alone work on while the context lasts.

    Args:
        folder: of the run; None: the newest.
        console: shows what is done.
        device: in place of that of the start.
        world: this process among those that train together; None: it is alone.

    Raises:
        UserError: it is none, or another process holds it.
    """
    world = world or World(0, 1, 0, resolve_device(device or began(folder).device))
    files = RunFiles(world.on_main(lambda: found_run(folder)))
    world.on_main(lambda: load_run(files))  # before anything is written into a folder that is no run
    options, command = _read_options(files.folder)

    def opened() -> AbstractContextManager[RunFolder]:
        return RunFolder.open(
            command,
            options.name,
            config=options.as_config(),
            out=files.folder,
            console=console,
            seed=options.seed,
            device=describe_device(world.device),
        )

    def found() -> tuple[AdaptState, tuple[LabelRow, ...]]:
        finish_undo(files)
        return load_run(files)

    with held_together(files, world), shared_run_folder(world, opened) as run:
        state, rows = world.on_main(found)
        pool = tuple(read_manifest(files.manifest).entries)
        with _damage_named(files):
            check_invariants(state, rows, pool)
        yield Session(options, files, state, rows, pool, run)


@contextmanager
def held_together(files: RunFiles, world: World) -> Iterator[None]:
    """As `held`, by the first of several processes for all of them.

    Raises:
        UserError: another process holds the run; raised in every process.
    """
    with ExitStack() as stack:
        world.on_main(lambda: stack.enter_context(held(files)))
        yield


def began(folder: Path | None) -> StartOptions:
    """The options that a run was begun with.

    Raises:
        UserError: there is no such run.
    """
    found = found_run(folder)
    load_run(RunFiles(found))
    return _read_options(found)[0]


def found_run(folder: Path | None) -> Path:
    """The folder that is meant.

    Raises:
        UserError: none is named and there is none.
    """
    if folder is not None:
        return folder
    runs = [path for command in COMMANDS for path in Path("runs", command.replace(" ", "-")).glob("*/state.json")]
    if not runs:
        raise UserError("there is no run here", "RUN", "name its folder, or begin with vtk adapt start")
    return max(runs, key=lambda path: path.stat().st_mtime).parent


@contextmanager
def _damage_named(files: RunFiles) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UserError(
            f"the run is damaged: {error}", str(files.folder), "restore its files, or start anew"
        ) from error


def _read_options(folder: Path) -> tuple[StartOptions, str]:
    """The options of a run, and the command that began it.

    Raises:
        UserError: they are missing or damaged.
    """
    config = RunConfig.read(folder)
    if config is None or config.command not in COMMANDS:
        raise UserError("has no configuration of vtk adapt", str(folder / RUN_CONFIG), "restore the file")
    values = read_config(folder / RUN_CONFIG, StartOptions, config.command)
    hints = typing.get_type_hints(StartOptions)
    return StartOptions(**{name: _typed(value, hints[name]) for name, value in values.items()}), config.command


def _typed(value: Any, hint: Any) -> Any:
    """A value of TOML as the field has it."""
    with suppress(TypeError):
        if hint is Path or (isinstance(hint, types.UnionType) and Path in typing.get_args(hint)):
            return Path(value)
    return value
