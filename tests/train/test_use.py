"""`vtk train eval`, `predict`, `export` and `--ab-check` on a run that is done."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.train.conftest import Vtk, tree, write_images
from vtk_cli.app import main
from vtk_cli.errors import UserError
from vtk_cli.train.trained import open_trained

TINY = ("--model", "test_vit", "--img-size", "32", "--batch-size", "4", "--workers", "0")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shared_pictures: Path) -> Path:
    """A run that is done, with averaged weights; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    arguments = [str(shared_pictures), *TINY, "--epochs", "2", "--ema-decay", "0.5", "--out", str(out), "--quiet"]
    assert main(["train", *arguments]) == 0
    return out


def test_the_evaluation_of_a_run_is_the_one_it_ended_with(vtk: Vtk, finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    for which, prefix in (("last", ""), ("ema", "ema_")):
        found = vtk("eval", finished, "--which", which, "--json").object
        for name in ("top1", "nll", "ece"):
            assert found[name] == pytest.approx(summary[f"{prefix}{name}"], rel=1e-6)
    best = vtk("eval", finished, "--which", "best", "--json").object
    assert best["top1"] == summary["best"]["top1"]


def test_class_folders_are_evaluated_on_whether_or_not_they_are_a_part_of_something(
    vtk: Vtk, finished: Path, shared_pictures: Path
) -> None:
    whole = vtk("eval", finished, shared_pictures, "--json")
    part = vtk("eval", finished, shared_pictures / "val", "--json")
    assert whole.object["nll"] == part.object["nll"]
    assert not part.err
    assert part.object["data"] == str(shared_pictures / "val")
    assert vtk("eval", finished / "model.safetensors", shared_pictures, "--json").object["nll"] == part.object["nll"]


def test_a_set_with_some_of_the_classes_is_scored_among_these(
    vtk: Vtk, tmp_path: Path, finished: Path, shared_pictures: Path
) -> None:
    shutil.copytree(shared_pictures / "val" / "bee", tmp_path / "bees" / "bee")
    found = vtk("eval", finished, "--eval-set", "bees=bees", "--json").object["sets"]
    assert found == [{"name": "bees", "measure": "top-1", "value": 1.0, "images": 6}]


def test_outliers_are_set_beside_the_images_of_the_classes_they_are_taken_for(
    vtk: Vtk, tmp_path: Path, finished: Path, shared_pictures: Path
) -> None:
    shutil.copytree(shared_pictures / "val" / "bee", tmp_path / "strange" / "bee")
    found = vtk("eval", finished, "--outlier-set", "o=strange", "--json").object["sets"]
    # Among a single class everything is sure: half of the images are outliers, and so is half of what is found.
    assert found == [{"name": "o", "measure": "AUPR", "value": 0.5, "images": 12}]
    assert "--outlier-set o=nowhere" in vtk("eval", finished, "--outlier-set", "o=nowhere").err


def test_an_evaluation_that_is_kept_has_a_page_pictures_and_a_line_for_each_class(
    vtk: Vtk, tmp_path: Path, finished: Path
) -> None:
    assert vtk("eval", finished, "--out", "kept").code == 0
    written = {str(path.relative_to(tmp_path / "kept")) for path in tree(tmp_path / "kept") if path.is_file()}
    assert {"evaluation.json", "per-class.csv", "report.html", "plots/confusion.png"} <= written
    rows = list(csv.DictReader((tmp_path / "kept" / "per-class.csv").open()))
    assert [row["class"] for row in rows] == ["ant", "bee"]
    assert [row["images"] for row in rows] == ["6", "6"]


def test_predictions_are_a_table_and_a_contact_sheet(
    vtk: Vtk, tmp_path: Path, finished: Path, shared_pictures: Path
) -> None:
    said = vtk("predict", shared_pictures / "val", "--model", finished, "--top-k", 9)
    assert said.code == 0
    assert "top 2" in said.out
    assert "top 3" not in said.out, "there are two classes"
    rows = list(csv.DictReader((tmp_path / "predictions" / "predictions.csv").open()))
    assert len({row["file"] for row in rows}) == 12
    with Image.open(tmp_path / "predictions" / "predictions.png") as sheet:
        assert min(sheet.size) > 100


def test_an_exported_program_answers_as_the_network(vtk: Vtk, tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    found = vtk("export", "run", "--format", "torch-export", "--json").object["exports"]
    assert [one["format"] for one in found] == ["torch-export"]
    program = torch.export.load(tmp_path / "run" / "model.pt2").module()
    images = torch.rand(2, 3, 32, 32)
    own = open_trained(str(tmp_path / "run")).network.module.eval()
    torch.testing.assert_close(program(images), own(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "verb", ["eval RUN", "predict DATA --model RUN", "export RUN", "DATA --ab-check --byproducts C"]
)
def test_no_verb_writes_where_it_may_not(
    vtk: Vtk, tmp_path: Path, read_only_folder: Path, finished: Path, shared_pictures: Path, verb: str
) -> None:
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("file,x,y\nant/ant0.png,0.5,0.5\n")
    words = {"RUN": finished, "DATA": shared_pictures, "C": clicks}
    extra = TINY if "--ab-check" in verb else ()
    said = vtk(*(words.get(word, word) for word in verb.split()), *extra, "--out", read_only_folder / "there")
    assert said.code == 2
    assert "cannot be written; choose another folder or mend its rights" in said.complaint


def test_a_look_at_the_byproducts_draws_them_and_trains_nothing(
    vtk: Vtk, tmp_path: Path, shared_pictures: Path
) -> None:
    (tmp_path / "clicks.csv").write_text("file,x,y\nant/ant0.png,0.5,0.25\nbee/bee0.png,0.1,0.25\n")
    said = vtk(shared_pictures, *TINY, "--byproducts", "clicks.csv", "--ab-check")
    assert said.code == 0
    assert "2 of 12" in said.out
    assert {path.name for path in (tmp_path / "byproducts").iterdir()} == {
        "points.png",
        "positions.png",
        "positions.svg",
    }
    assert not (tmp_path / "runs").exists()


def test_the_newest_finished_run_is_the_one_that_is_meant(
    vtk: Vtk, tmp_path: Path, finished: Path, shared_pictures: Path
) -> None:
    for name in ("2025-01-01-a", "2025-01-02-b", "2025-01-03-unfinished"):
        shutil.copytree(finished, tmp_path / "runs" / "train" / name)
    (tmp_path / "runs" / "train" / "2025-01-03-unfinished" / "model.safetensors").unlink()
    (tmp_path / "runs" / "train" / "2025-01-02-b" / "model.safetensors").touch()
    assert "2025-01-02-b" in vtk("eval", "--json").object["model"]
    assert "2025-01-02-b" in vtk("predict", shared_pictures / "val" / "ant" / "ant0.png").out


def test_class_names_that_are_not_those_of_the_weights_are_refused(tmp_path: Path, finished: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(finished / "model.safetensors", "pt") as file:
        said = dict(file.metadata())
    for names in ('["ant"]', "no JSON"):
        path = tmp_path / "other.safetensors"
        save_file(load_file(finished / "model.safetensors"), path, {**said, "class_names": names})
        with pytest.raises(UserError, match="its class names do not fit its classes"):
            open_trained(str(path))


def test_published_networks_have_the_classes_of_imagenet() -> None:
    import timm

    from vtk_cli.models.names import parse_network
    from vtk_cli.models.preprocessing import PixelConfig
    from vtk_cli.models.zoo import Network
    from vtk_cli.train.trained import _described

    pixels = PixelConfig(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    known = Network(timm.create_model("test_vit"), parse_network("test_vit"), pixels, "scratch", "", 1000)
    trained = _described(known, None)
    assert (trained.class_names[0], len(trained.class_names)) == ("n01440764", 1000)
    assert "tench" in trained.descriptions[0]
    own = Network(timm.create_model("test_vit", num_classes=3), parse_network("test_vit"), pixels, "scratch", "", 3)
    assert _described(own, None).class_names == ("0", "1", "2")


def test_another_data_set_s_classes_are_told_apart(vtk: Vtk, tmp_path: Path, finished: Path) -> None:
    write_images(tmp_path / "other", classes=("cat", "dog"), count=1, splits=("train", "val"))
    said = vtk("eval", finished, "other")
    assert said.code == 2
    assert "its 2 classes are not the 2 of the network (unknown: cat, dog)" in said.complaint
