"""A trained supernet on disk: its weights before and after training, found again by the folder of its run.

supernet/initial.safetensors   supernet/final.safetensors   supernet/halves.json   supernet/images.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from vtk_cli.engine.run_config import RunConfig
from vtk_cli.errors import UserError
from vtk_cli.models.described_weights import as_described, refuse_absurd, save_described
from vtk_cli.models.names import file_metadata
from vtk_cli.models.spaces.catalog import space_named
from vtk_cli.models.spaces.space import Shape, Space
from vtk_cli.models.spaces.supernet import Supernet
from vtk_cli.models.weights import state_sha256
from vtk_cli.options import option_fields
from vtk_cli.search.official import load_strictly, read_checkpoint
from vtk_cli.search.options import SupernetOptions

FOLDER = "supernet"
INITIAL, FINAL, HALVES, LISTING = "initial.safetensors", "final.safetensors", "halves.json", "images.json"
RUNS = Path("runs")
_COMMANDS = ("search run", "search supernet")


@dataclass(frozen=True)
class SupernetRun:
    """The supernet of a run.

    Args:
        folder: of the run.
        options: that its supernet was trained with.
        shape: of the supernet.
        class_names: by label.
    """

    folder: Path
    options: SupernetOptions
    shape: Shape
    class_names: tuple[str, ...]

    @property
    def space(self) -> Space:
        """Whose architectures it holds."""
        return space_named(self.shape.space)

    @property
    def name(self) -> str:
        """Data and space, for the folders of what is done with it."""
        return f"{self.options.data_name}-{self.space.name}"

    @property
    def final(self) -> Path:
        """The file of the trained weights."""
        return self.folder / FOLDER / FINAL

    @property
    def initial(self) -> Path | None:
        """The file of the weights before training; None where they were not kept."""
        path = self.folder / FOLDER / INITIAL
        return path if path.is_file() else None

    @property
    def halves(self) -> Path:
        """The file that says which training images were trained and which are scored on."""
        return self.folder / FOLDER / HALVES

    @property
    def listing(self) -> str | None:
        """The checksum of the list of its training images, which the halves number; None where it was not kept."""
        try:
            found = json.loads((self.folder / FOLDER / LISTING).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found.get("sha256") if isinstance(found, dict) else None

    @cached_property
    def sha256(self) -> dict[str, str | None]:
        """Of the tensors in both files: the same training gives the same, the bytes around them may differ."""
        return {
            "final": state_sha256(self._loaded(self.final)),
            "initial": None if self.initial is None else state_sha256(self._loaded(self.initial)),
        }

    def network(self) -> Supernet:
        """The supernet with its trained weights, in eval mode on the CPU.

        Raises:
            UserError: the file does not hold the weights of this supernet.
        """
        return self._loaded(self.final)

    def _loaded(self, path: Path) -> Supernet:
        with as_described(path):
            supernet = self.space.supernet(self.shape)
        load_strictly(supernet, read_checkpoint(path, self.space))
        return supernet.eval()

    def initial_state(self) -> dict[str, Tensor] | None:
        """The weights before training, if they were kept.

        Raises:
            UserError: the file is damaged.
        """
        return None if self.initial is None else dict(read_checkpoint(self.initial, self.space).state)


def save_state(path: Path, state: Mapping[str, Tensor], shape: Shape, class_names: tuple[str, ...]) -> None:
    """Write the weights of a supernet with what they are of.

    Raises:
        JobError, UserError: the disk is full, or the folder may not be written.
    """
    save_described(path, state, {"supernet": json.dumps(asdict(shape)), "class_names": json.dumps(class_names)})


def open_supernet(run: Path | None) -> SupernetRun:
    """The supernet of a run's folder.

    Args:
        run: the folder; None: the newest with a trained supernet in `runs/search-*`.

    Raises:
        UserError: there is none, it is not finished, or its files are damaged.
    """
    folder = _newest() if run is None else run
    config = RunConfig.read(folder)
    if config is None or config.command not in _COMMANDS:
        raise UserError("holds no run of `vtk search`", str(folder), "name the folder of one: --supernet RUN")
    final = folder / FOLDER / FINAL
    if not final.is_file():
        fix = f"go on with it: vtk {config.command} --resume {folder}"
        raise UserError("its supernet is not trained yet", str(folder), fix)
    shape, names = _described(final)
    return SupernetRun(folder, _options(config), shape, names)


def _options(config: RunConfig) -> SupernetOptions:
    known = option_fields(SupernetOptions)
    given = {name.replace("-", "_"): value for name, value in config.options.items()}
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if isinstance(values.get("split_file"), str):
        values["split_file"] = Path(values["split_file"])
    return SupernetOptions(**{name: value for name, value in values.items() if name in known and name != "out"})


def _described(path: Path) -> tuple[Shape, tuple[str, ...]]:
    metadata = file_metadata(path)
    try:
        said = json.loads(metadata["supernet"])
        refuse_absurd(said, path)
        shape = Shape(**said)
        names = tuple(str(name) for name in json.loads(metadata["class_names"]))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError("does not say what supernet it is of", str(path), "train it anew") from error
    if shape.classes != len(names):
        raise UserError(f"has {len(names)} class names for {shape.classes} classes", str(path), "train it anew")
    return shape, names


def _newest() -> Path:
    trained = sorted(RUNS.glob(f"search-*/*/{FOLDER}/{FINAL}"), key=lambda path: path.stat().st_mtime)
    if not trained:
        fix = "train one: vtk search supernet, or name its folder"
        raise UserError(f"there is no trained supernet in {RUNS}/search-*", "--supernet", fix)
    return trained[-1].parent.parent
