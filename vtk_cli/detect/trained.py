"""A trained detector, found again by its run folder or its file, with all that is needed to use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from vtk_cli.detect.checkpoint import Detector, SavedDetector, read_detector, save_detector
from vtk_cli.detect.classes import UNUSED, labels_of, select_labels
from vtk_cli.detect.configurations import Classes, DetectorConfig
from vtk_cli.detect.network import first_layers
from vtk_cli.detect.preprocessing import Preprocessing
from vtk_cli.engine.run_config import RunConfig
from vtk_cli.engine.run_weights import Which, newest_run, weights_of_run
from vtk_cli.errors import UserError

RUNS = Path("runs/detect-train")
_NAMED = 5


@dataclass(frozen=True)
class Trained:
    """A detector that is ready to use.

    Args:
        saved: its file: configuration, classes, weights.
        network: in eval mode on the CPU.
        preprocessing: of its images.
        run: the configuration of the run that trained it; None for other weights.
    """

    saved: SavedDetector
    network: Detector
    preprocessing: Preprocessing
    run: RunConfig | None

    @property
    def has_masks(self) -> bool:
        """Whether it can say what belongs to an object within its box."""
        return self.network.config.mask_coefficients > 0

    def of_classes(self, classes: Classes) -> Trained:
        """The same detector with these classes in this order, which it must know by name; exact.

        Raises:
            UserError: it does not know one of them.
        """
        known, where = self.saved.classes, str(self.saved.path)
        if classes.names == known.names:
            return self
        labels = None if self.saved.config.neck == "none" else labels_of(classes, known)
        if labels is None:
            strange = [name for name in classes.names if name not in known.names]
            what = f"its {len(known.names)} classes are not the {len(classes.names)} of the data"
            unknown = f" (it does not know {', '.join(strange[:_NAMED])})" if strange else ""
            raise UserError(what + unknown, where, "name other data, or train it on these classes")
        state, config = select_labels(self.saved.state, self.saved.config, labels)
        saved = replace(self.saved, config=config, classes=classes, state=state)
        network: Detector = saved.build()
        if self.network.config.decoder_layers < config.decoder_layers:
            network = first_layers(network, self.network.config.decoder_layers).eval()
        return replace(self, saved=saved, network=network)

    def labels_named(self, names: tuple[str, ...]) -> list[int] | None:
        """The labels of the classes called so; None for no names.

        Raises:
            UserError: there is no such class.
        """
        known = self.saved.classes.names
        for name in names:
            if name not in known or name == UNUSED:
                shown = ", ".join(one for one in known if one != UNUSED)
                raise UserError(f"the detector knows no class {name!r}", "--classes", f"it knows {shown}")
        return [label for label, name in enumerate(known) if name in names] if names else None


def save_trained(
    path: Path,
    state: Mapping[str, Tensor],
    *,
    config: DetectorConfig,
    classes: Classes,
    preprocessing: Preprocessing,
    note: Mapping[str, str],
) -> None:
    """Write weights that `open_trained` reads.

    Args:
        path: `.safetensors`.
        state: of the detector.
        config: what it is.
        classes: what its labels mean.
        preprocessing: of its images.
        note: what else the file says of itself.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    save_detector(path, state, config, classes, {**note, **preprocessing.note()})


def weights_file(spec: str | Path, which: Which = "last") -> Path:
    """The weight file that `spec` names: itself, or in its run folder; empty: in the newest run.

    Raises:
        UserError: there is none.
    """
    path = Path(spec) if str(spec) else newest_run(RUNS, "--model")
    if path.is_dir():
        return weights_of_run(path, which)
    if not path.is_file():
        raise UserError("no such run folder or weight file", str(path), "name one that vtk detect train wrote")
    return path


def open_trained(spec: str | Path, which: Which = "last", *, dec_layers: int | None = None) -> Trained:
    """The detector that `spec` names.

    Args:
        spec: a run folder, a weight file of ours or a published one; empty: the newest run in `runs/detect-train`.
        which: of a run, the weights at its end, their average, or those that did best on its validation images.
        dec_layers: predict after so many layers of the decoder; None: after all.

    Raises:
        UserError: there is none, or the weights do not fit.
    """
    path = weights_file(spec, which)
    saved = read_detector(path)
    try:
        preprocessing = Preprocessing.of_note(saved.metadata)
    except ValueError as error:
        raise UserError(f"describes no detector ({error})", str(path), "write the file anew") from error
    network: Detector = saved.build()
    if dec_layers is not None:
        network = first_layers(network, dec_layers).eval()
    return Trained(saved, network, preprocessing, RunConfig.read(path.parent))
