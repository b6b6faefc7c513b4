from __future__ import annotations

import copy
import importlib
import importlib.util
import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from vtk_cli.errors import JobError, UserError
from vtk_cli.models.names import file_metadata
from vtk_cli.prune import exports
from vtk_cli.prune.exports import export_generator, frozen_weights
from vtk_cli.prune.forms import FORMS, Form
from vtk_cli.prune.generator_file import read_generator
from vtk_cli.prune.generators import GENERATORS, Generator, create_generator
from vtk_cli.prune.keeping import WeightInit
from vtk_cli.prune.masking import Selection, folded, masked, prunable
from vtk_cli.prune.samples import latents
from vtk_cli.prune.weights import WeightRule, initialise_scores, initialise_weights

has_onnx = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not has_onnx, reason="the extra `export` is not installed")
PACKINGS: tuple[Form, ...] = ("safetensors", "csr", "ternary")


def pruned(
    name: str = "dcgan-tiny", init: WeightInit = "signed-constant", keep: Fraction = Fraction(3, 10), ngf: int = 8
) -> tuple[Generator, dict[str, Tensor]]:
    """A plain generator with its kept weights and statistics, and its weights before masking."""
    torch.manual_seed(0)
    generator = create_generator(name, image_size=32, channels=3, nz=8, ngf=ngf)
    initialise_weights(generator, WeightRule(init, seed=2))
    theta = frozen_weights(generator)
    network = masked(generator, Selection(keep, "layer"))
    initialise_scores(network.layers.values(), "uniform", "layer", seed=5)
    network.train()
    network(torch.randn(16, 8))
    plain = folded(network.eval().network)
    assert isinstance(plain, Generator)
    return plain.eval(), theta


def images(network: nn.Module) -> Tensor:
    with torch.no_grad():
        made: Tensor = network(latents(4, 8, seed=1))
    return made


@pytest.mark.parametrize("form", PACKINGS)
@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_comes_back_from_its_file(name: str, form: Form, tmp_path: Path) -> None:
    generator, _ = pruned(name)
    done = export_generator(generator, form, tmp_path / "g")
    assert done.path == tmp_path / f"g{FORMS[form].suffix}"
    assert (done.bytes, done.difference) == (done.path.stat().st_size, 0.0)
    again = read_generator(done.path)
    assert not again.training
    assert torch.equal(images(again), images(generator))


def test_the_sparse_forms_are_smaller_by_what_they_leave_out(tmp_path: Path) -> None:
    generator, _ = pruned(keep=Fraction(1, 10), ngf=32)
    sizes = {form: export_generator(generator, form, tmp_path / "g").bytes for form in PACKINGS}
    weights = sum(layer.weight.numel() for layer in prunable(generator).values())
    assert sizes["safetensors"] > 4 * weights
    assert sizes["csr"] < 0.25 * sizes["safetensors"]  # 8 bytes for each of 10 %, and the rows
    assert sizes["ternary"] < 0.09 * sizes["safetensors"]  # 2 bits for 32


def test_the_plain_file_loads_into_a_plain_module(tmp_path: Path) -> None:
    generator, _ = pruned("sngan")
    done = export_generator(generator, "safetensors", tmp_path / "g.safetensors")
    state = load_file(done.path)
    fresh = create_generator("sngan", image_size=32, nz=8, ngf=8)
    missing, unexpected = fresh.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert torch.equal(images(fresh.eval()), images(generator))
    assert json.loads(file_metadata(done.path)["generator"]) == generator.arguments


def test_torchs_pruning_takes_the_pairs(tmp_path: Path) -> None:
    generator, theta = pruned("resnet")
    done = export_generator(generator, "torch-prune", tmp_path / "g.pt", theta=theta)
    fresh = create_generator("resnet", image_size=32, nz=8, ngf=8)
    for layer in prunable(fresh).values():
        prune.identity(layer, "weight")
    fresh.load_state_dict(torch.load(done.path, weights_only=True))
    assert torch.equal(images(fresh.eval()), images(generator))
    for name, layer in prunable(fresh).items():
        assert torch.equal(layer.weight_orig, theta[name])
        prune.remove(layer, "weight")
    assert torch.equal(images(fresh), images(generator))


def test_weights_before_masking_must_be_those_of_the_generator(tmp_path: Path) -> None:
    generator, theta = pruned()
    with pytest.raises(ValueError, match="before masking"):
        export_generator(generator, "torch-prune", tmp_path / "g", theta={name: -one for name, one in theta.items()})
    assert not list(tmp_path.iterdir())


@needs_onnx
@pytest.mark.parametrize("name", ["dcgan-tiny", "sngan", "biggan"])
def test_onnxruntime_makes_the_same_images_for_any_number_of_them(name: str, tmp_path: Path) -> None:
    generator, _ = pruned(name)
    done = export_generator(generator, "onnx", tmp_path / "g")
    session = importlib.import_module("onnxruntime").InferenceSession(str(done.path))
    assert session.get_modelmeta().custom_metadata_map["image_range"] == "[-1, 1]"
    for count in (1, 4, 7):
        noise = latents(count, 8, seed=3)
        (found,) = session.run(None, {"noise": noise.numpy()})
        with torch.no_grad():
            assert torch.allclose(torch.from_numpy(found), generator(noise), atol=1e-4)
    assert done.difference <= 1e-4


def test_weights_of_many_values_have_no_ternary_form(tmp_path: Path) -> None:
    generator, _ = pruned(init="kaiming-normal")
    with pytest.raises(UserError, match=r"body.layers.0 cannot be written as ternary.*choose safetensors or csr"):
        export_generator(generator, "ternary", tmp_path / "g")
    assert not list(tmp_path.iterdir())
    export_generator(generator, "csr", tmp_path / "g")


def test_a_generator_is_as_it_was_after_every_export(tmp_path: Path) -> None:
    generator, theta = pruned()
    before = copy.deepcopy(generator.state_dict())
    for form in FORMS if has_onnx else PACKINGS:
        export_generator(generator, form, tmp_path / "g", theta=theta)
    assert all(torch.equal(before[name], tensor) for name, tensor in generator.state_dict().items())
    assert len(list(tmp_path.iterdir())) == len(FORMS if has_onnx else PACKINGS)


def test_a_file_that_reads_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, _ = pruned()
    read = exports.generator_state
    monkeypatch.setattr(exports, "generator_state", lambda path: {name: one + 1 for name, one in read(path).items()})
    with pytest.raises(JobError, match="did not come back as it was written"):
        export_generator(generator, "csr", tmp_path / "g")
    assert not list(tmp_path.iterdir())


def test_files_that_hold_no_generator_or_another_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    with pytest.raises(UserError, match="no such weight file"):
        read_generator(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="holds no generator of vtk prune"):
        read_generator(path)
    generator, _ = pruned()
    done = export_generator(generator, "csr", path)
    state, said = load_file(done.path), file_metadata(done.path)
    save_file(state, path, {**said, "generator": json.dumps({**generator.arguments, "ngf": 9})})
    with pytest.raises(UserError, match="do not fit its generator"):
        read_generator(path)
    save_file(state, path, {**said, "generator": "{}"})
    with pytest.raises(UserError, match="describes no generator"):
        read_generator(path)
    name = next(key for key in state if key.endswith("indices"))
    save_file({**state, name: state[name] + 10_000}, path, said)
    with pytest.raises(UserError, match="damaged generator"):
        read_generator(path)
