"""`vtk search export`: an architecture as a file that `vtk train` and `vtk detect` take, with weights or without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import require_folder
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.models.spaces.architecture import Architecture, network_name, write_architecture
from vtk_cli.models.spaces.space import Shape
from vtk_cli.models.trained_weights import save_trained
from vtk_cli.search.images import calibration_tensors
from vtk_cli.search.measuring import images_of
from vtk_cli.search.official import load_network
from vtk_cli.search.recalibration import calibration_batches, measure_statistics
from vtk_cli.search.retrain_recipes import RETRAIN_RECIPES, retrain_recipe_of
from vtk_cli.search.showing import named_architecture, shape_of
from vtk_cli.search.supernet_file import open_supernet
from vtk_cli.search.treatments import pixels_for
from vtk_cli.search.verb_options import ExportOptions

_IMAGENET = 1000
_CALIBRATION, _BATCH = 850, 64


@dataclass(frozen=True, eq=False)
class Weights:
    """A network's weights, and what else a file of them says.

    Args:
        state: of the network alone.
        shape: of it.
        pixels: the preprocessing that belongs to them.
        class_names: by label.
        source: where they are from.
    """

    state: Mapping[str, Tensor]
    shape: Shape
    pixels: PixelConfig
    class_names: tuple[str, ...]
    source: str


def export_architecture(options: ExportOptions, console: Console) -> ExitCode:
    """Write the file: `.json` of an architecture, `.safetensors` of one with weights.

    Raises:
        UserError: there is no such architecture, or the weights are of another.
        JobError: the disk is full.
    """
    space = options.space or (None if options.supernet is None else open_supernet(options.supernet).space.name)
    architecture = named_architecture(options.architecture, space)
    require_folder(options.out.parent)
    weights = _weights(options, architecture, console)
    if weights is None:
        shape = shape_of(options, architecture)
        path = options.out.with_suffix(".json")
        write_architecture(path, architecture, shape)
    else:
        shape, path = weights.shape, options.out.with_suffix(".safetensors")
        save_trained(
            path,
            weights.state,
            architecture=network_name(architecture, shape),
            config=weights.pixels,
            model_args={},
            class_names=weights.class_names,
            multi_label=False,
            note={"weights_from": weights.source},
        )
    console.text(f"Written to {path}")
    console.text(f"Train it: vtk train DATA --model {path}   ·   detect with it: vtk detect train --backbone {path}")
    summary = {"file": str(path), "weights": None if weights is None else weights.source}
    console.emit({**architecture.as_json(shape), **summary})
    return ExitCode.DONE


def _weights(options: ExportOptions, architecture: Architecture, console: Console) -> Weights | None:
    if options.supernet is not None:
        return _inherited(options, architecture, console)
    if options.weights is None:
        return None
    network, shape = load_network(options.weights, architecture.space, architecture.genes, form=options.form)
    recipe = RETRAIN_RECIPES[retrain_recipe_of(shape.space, shape.form)]
    pixels = pixels_for(
        "", recipe["augmentation"], "auto", shape.resolution, grey=architecture.space.input_channels == 1
    )
    return Weights(network.state_dict(), shape, pixels.config, _names(shape.classes), str(options.weights))


def _inherited(options: ExportOptions, architecture: Architecture, console: Console) -> Weights:
    """The weights that an architecture has in a supernet, its normalisations measured on images of the training half.

    Raises:
        UserError: the supernet is of another space; another network than its own was asked for.
    """
    run = open_supernet(options.supernet)
    if run.space is not architecture.space:
        what = f"the supernet is of {run.space.name}, the architecture of {architecture.space.name}"
        raise UserError(what, "--supernet", "name another run")
    if options.form not in {None, run.space.alone} or options.width or options.cells or options.fit_width:
        what = "weights of a supernet fit the network of its own form and size alone"
        raise UserError(what, "--supernet", "leave out --form, --width, --cells and --fit-width")
    supernet, images = run.network(), images_of(run, console)
    network = architecture.space.network(architecture.genes, supernet.stand_alone_shape)
    network.load_state_dict(supernet.stand_alone_state(architecture.genes))
    calibration, _ = calibration_tensors(images, device=torch.device("cpu"), limit=_CALIBRATION, console=console)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    batches = calibration_batches(calibration[:], _BATCH)
    with torch.no_grad():
        measure_statistics(layers, network.eval(), batches, "cumulative")
    source = f"the supernet of {run.folder}"
    return Weights(network.state_dict(), supernet.stand_alone_shape, images.pixels.config, run.class_names, source)


def _names(classes: int) -> tuple[str, ...]:
    """ImageNet's, where there are as many; else numbers."""
    if classes != _IMAGENET:
        return tuple(str(label) for label in range(classes))
    known = ImageNetInfo()
    return tuple(known.index_to_label_name(label) for label in range(classes))
