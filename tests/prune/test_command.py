"""`vtk prune` and its verbs as a user runs them: what is said, what is written, and every wrong input."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.prune.conftest import TINY, Prune, write_noise
from vtk_cli.prune.generator_source import open_generator
from vtk_cli.prune.recipes import RECIPES
from vtk_cli.prune.samples import latents, quantised
from vtk_cli.prune.ticket_file import read_ticket, write_ticket
from vtk_cli.prune.weights import WeightRule, initialise_weights, weights_sha256

HEAVY = ("torch", "timm", "torchvision", "matplotlib", "sklearn", "scipy", "numpy")


# What is said and written


@pytest.mark.parametrize("arguments", [["prune", "--help"], ["prune", "run", "--help"], ["prune", "recipes"]])
def test_help_and_recipes_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; from vtk_cli.app import main; main({arguments}); print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_command_alone_shows_its_verbs(prune: Prune) -> None:
    said = prune()
    assert said.code == 2
    for verb in ("run", "apply", "info", "verify", "sample", "export", "evaluate", "sweep", "recipes"):
        assert f" {verb} " in said.out


def test_a_search_leaves_a_ticket_its_numbers_and_its_pictures(prune: Prune, tmp_path: Path) -> None:
    found = prune("run", *TINY, "--baselines", "all", "--out", "run", "--export", "csr", "--json").object
    run = tmp_path / "run"
    assert found == json.loads((run / "summary.json").read_text())
    assert found["theta_sha256"]["before"] == found["theta_sha256"]["after"]
    assert found["kept"] == round(found["weights"] / 10) == sum(layer["kept"] for layer in found["layers"])
    names = [one["name"] for one in found["baselines"]]
    assert names == ["random mask, 0.1", "untrained dense", "trained dense", "trained, random mask, 0.1"]
    for quality in (found["quality"], found["floor"], *(one["quality"] for one in found["baselines"])):
        assert quality["embedder"] == "digits-cnn"
        assert len(quality["embedder_sha256"]) == 64
        assert quality["resize"] == "clean"
        assert quality["real_count"] == 360
        assert quality["FD(digits-cnn)"] > 0
    assert found["floor"]["FD(digits-cnn)"] < found["quality"]["FD(digits-cnn)"]
    for name in (
        *("config.toml", "run.json", "log.txt", "ticket.vtkt", "report.html", "generator.csr.safetensors"),
        *("plots/samples.png", "plots/samples-over-training.png", "plots/baselines.png", "plots/search.png"),
        *("samples/step-00000003.png", "samples/step-00000006.png"),
    ):
        assert (run / name).stat().st_size > 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert {"mean_gap", "variance_gap", "mean_gap_2", "flips", "lr", "loss"} <= rows[0].keys()
    page = (run / "report.html").read_text()
    for words in ("body.layers.0", "not the generator fast", "trained dense", "Read this first"):
        assert words in page


def test_the_weights_of_a_ticket_are_those_that_its_seed_draws(prune: Prune) -> None:
    found = prune("run", *TINY, "--seed", 3, "--out", "run", "--json").object
    plain = open_generator(Path("run"))
    initialise_weights(plain, WeightRule(seed=3))
    assert weights_sha256(plain) == found["theta_sha256"]["before"]


def test_another_process_makes_the_same_images_of_a_ticket_bit_for_bit(prune: Prune, tmp_path: Path) -> None:
    assert prune("run", *TINY, "--out", "run").code == 0
    generator = open_generator(Path("run"))
    with torch.no_grad():
        images = quantised(generator(latents(16, generator.nz, 1 << 32)))
    words = ["prune", "sample", str(tmp_path / "run"), "-n", "16", "--single"]
    subprocess.run([sys.executable, "-m", "vtk_cli", *words], check=True, capture_output=True, cwd=tmp_path)
    for number, image in enumerate(images):
        with Image.open(tmp_path / "samples" / f"{number:05d}.png") as opened:
            assert np.array_equal(np.asarray(opened), image[0].numpy())


def test_apply_info_verify_and_export_agree_on_a_ticket(prune: Prune, tmp_path: Path) -> None:
    made = prune("run", *TINY, "--out", "run", "--json").object
    applied = prune("apply", "run", "--out", "plain.safetensors", "--json").object
    ticket = read_ticket(tmp_path / "run" / "ticket.vtkt")
    assert applied["weights_sha256"] == ticket.weights_sha256
    assert weights_sha256(open_generator(Path("plain.safetensors"))) == ticket.weights_sha256
    info = prune("info", "run/ticket.vtkt", "--json").object
    assert info["bytes"]["file"] == made["bytes"]["file"] == Path("run/ticket.vtkt").stat().st_size
    assert info["metrics"]["FD(digits-cnn)"] == made["quality"]["FD(digits-cnn)"]
    told = prune("info", "run").out
    assert f"mean {info['metrics']['KD(digits-cnn)']['mean']:.4g}" in told
    assert "{" not in told
    verified = prune("verify", "run", "--json").object
    assert verified["holds"]
    assert all(finding["holds"] for finding in verified["findings"])
    forms = ("safetensors", "csr", "ternary", "torch-prune")
    exports = prune("export", "run", *(word for form in forms for word in ("--form", form)), "--json").object["exports"]
    assert [one["form"] for one in exports] == list(forms)
    for one in exports[:3]:
        assert weights_sha256(open_generator(Path(one["path"]))) == ticket.weights_sha256
    state = torch.load(exports[3]["path"], weights_only=True)
    original = state["body.layers.0.weight_orig"]
    assert len(original.abs().unique()) == 1, "the pruned weights are there as well"
    assert int(state["body.layers.0.weight_mask"].sum()) == info["layers"][0]["kept"]


def test_verbs_without_a_ticket_take_the_newest_search(prune: Prune) -> None:
    assert "no finished search" in prune("info").complaint
    assert prune("run", *TINY, "--quiet").code == 0
    assert prune("info").code == 0
    assert prune("verify").code == 0


def test_evaluate_repeats_the_numbers_of_the_search(prune: Prune, tmp_path: Path) -> None:
    made = prune("run", *TINY, "--seed", 2, "--out", "run", "--json").object
    options = ("--samples", 24, "--neighbours", 5, "--seed", 2)
    found = prune("evaluate", "run", *options, "--out", "measured", "--json").object
    assert found == json.loads((tmp_path / "measured" / "evaluation.json").read_text())
    assert "precision, k = 5" in prune("evaluate", "run", *options).out
    for name in ("FD(digits-cnn)", "precision", "recall", "coverage"):
        assert found[name] == pytest.approx(made["quality"][name], rel=1e-6)


@pytest.mark.parametrize(
    ("algorithm", "source"), [("dense", None), ("sparse", "stored"), ("imp", "stored"), ("gem-miner", "seed")]
)
def test_every_algorithm_ends_in_what_can_be_sampled(prune: Prune, algorithm: str, source: str | None) -> None:
    rounds = ("--rounds", 2)
    found = prune("run", *TINY, "--algo", algorithm, *rounds, "--out", "run", "--json").object
    assert (found["ticket"] is None) == (source is None)
    if source is not None:
        assert read_ticket(Path("run/ticket.vtkt")).origin.source == source
        assert found["kept"] == round(found["weights"] / 10)
    assert prune("sample", "run", "-n", 4).code == 0
    assert Path("samples.png").stat().st_size > 0


def test_a_ticket_on_a_checkpoint_needs_that_checkpoint(prune: Prune) -> None:
    assert prune("run", *TINY, "--algo", "dense", "--out", "dense").code == 0
    found = prune("run", *TINY, "--theta", "dense", "--out", "run", "--json").object
    assert read_ticket(Path("run/ticket.vtkt")).origin.source == "checkpoint"
    assert found["theta_sha256"]["before"] == weights_sha256(open_generator(Path("dense")))
    assert "--theta" in prune("sample", "run").complaint
    assert prune("sample", "run", "--theta", "dense").code == 0
    assert prune("verify", "run", "--theta", "dense").code == 0
    assert "another generator: ngf is 8, not 16" in prune("run", *TINY, "--ngf", 16, "--theta", "dense").complaint


def test_two_of_four_keeps_one_half_of_every_layer(prune: Prune) -> None:
    found = prune("run", *TINY, "--structure", "2:4", "--keep", 0.5, "--out", "run", "--json").object
    assert [layer["kept"] * 2 for layer in found["layers"]] == [layer["n"] for layer in found["layers"]]
    assert prune("verify", "run").code == 0


def test_the_best_stop_is_kept_where_that_is_asked_for(prune: Prune) -> None:
    found = prune("run", *TINY, "--every", 2, "--eval-every", 2, "--select", "best", "--out", "run", "--json").object
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    distances = {row["step"]: row["distance"] for row in rows}
    assert len(distances) == 3
    assert found["chosen_after"] == min(distances, key=lambda step: distances[step])
    assert found["quality"]["real_count"] == 180, "the other half chose"


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(prune: Prune, tmp_path: Path) -> None:
    plan = prune("run", *TINY, "--dry-run", "--json").object
    assert (plan["steps"], plan["train_images"], plan["held_out_images"]) == (6, 1437, 360)
    assert plan["kept"] == round(plan["weights"] / 10)
    assert prune("run", "--dry-run").code == 0
    assert prune("sweep", *TINY, "--dry-run").code == 0
    assert not list(tmp_path.iterdir())


def test_images_of_ones_own_are_searched_on(prune: Prune, tmp_path: Path) -> None:
    data = write_noise(tmp_path / "data", 40)
    options = ("--recipe", "digits", "--image-size", 16, "--channels", 3, *TINY)
    found = prune("run", data, *options, "--out", "run", "--json").object
    assert (found["train_images"], found["quality"]["real_count"]) == (32, 8)


def test_all_recipes_are_listed_and_each_is_shown(prune: Prune) -> None:
    assert [each["name"] for each in prune("recipes", "--json").object["recipes"]] == list(RECIPES)
    assert "arXiv 2212.08311" in prune("recipes", "sngan-celeba").out
    assert "did you mean sngan-celeba" in prune("recipes", "sngan-celebb").complaint


# Wrong input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--keep", "0"), "--keep: 0 is not a fraction"),
        (("--keep", "1.5"), "--keep: 1.5 is not a fraction of the weights; did you mean 0.01"),
        (("--keep", "10"), "did you mean 0.10?"),
        (("--keep", "-0.1"), "--keep"),
        (("--keep", "much"), "'much' is no number"),
        (("--batch", "1"), "a batch of one has no variance"),
        (("--image-size", "24"), "24 is not a power of two of at least 16"),
        (("--image-size", "8"), "8 is not a power of two of at least 16"),
        (("--nz", "99999999999"), "more than 1,073,741,824 weights"),
        (("--ngf", "9" * 30), "more than 1,073,741,824 weights"),
        (("--gen", "sngann"), "did you mean sngan"),
        (("--score-init", "kaiming"), "give --score-init uniform, or --scope layer"),
        (("--structure", "2:4"), "give --keep 0.5"),
        (("--weight-init", "normal"), "--store-weights"),
        (("--select", "best"), "give --eval-every"),
        (("--samples", "3"), "at least 6 are needed"),
        (("--eval-embedder", "inception"), "--inception"),
        (("--eval-embedder", "inception", "--inception", "here.pth"), "here.pth"),
        (("--extractor-layers", "7"), "it has layers 0 to 2"),
        (("--theta", "nowhere.pt"), "nowhere.pt: no such file"),
        (("--moment-rate", "1.5"), "give a number below 1"),
        (("--algo", "imp", "--rounds", "9"), "--rounds"),
        (("--recipe", "sngan-celebb"), "did you mean sngan-celeba"),
    ],
)
def test_wrong_options_are_one_line(prune: Prune, arguments: tuple[str, ...], words: str) -> None:
    Path("here.pth").write_bytes(b"no weights")
    assert words in prune("run", *TINY, *arguments, "--out", "run").complaint
    assert not Path("run").exists()


def test_too_few_or_unreadable_images_are_one_line(prune: Prune, tmp_path: Path) -> None:
    own = ("--recipe", "digits", "--channels", 3, *TINY, "--holdout", 0.5)
    assert "no such folder" in prune("run", "nowhere", *own).complaint
    (tmp_path / "empty").mkdir()
    assert "empty" in prune("run", "empty", *own).complaint
    assert "are too few for the statistics" in prune("run", write_noise(tmp_path / "one", 2), *own).complaint
    assert "at least 6 are needed" in prune("run", write_noise(tmp_path / "eight", 8), *own).complaint
    broken = write_noise(tmp_path / "broken", 12)
    for name in ("000.png", "001.png", "002.png", "003.png", "004.png", "005.png", "006.png"):
        (broken / name).write_bytes(b"no image")
    assert "000.png" in prune("run", broken, *own).complaint


def test_a_torn_a_changed_and_a_newer_ticket_are_one_line(prune: Prune, tmp_path: Path) -> None:
    assert prune("run", *TINY, "--out", "run").code == 0
    whole = (tmp_path / "run" / "ticket.vtkt").read_bytes()
    torn = tmp_path / "torn.vtkt"
    torn.write_bytes(whole[:-200])
    changed = tmp_path / "changed.vtkt"
    at = whole.index(b"mask.bin") + 100
    changed.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    for verb in ("info", "verify", "apply", "sample", "export", "evaluate"):
        assert "damaged or cut short" in prune(verb, torn).complaint
        assert "changed.vtkt" in prune(verb, changed).complaint
    assert "no such file" in prune("info", "nowhere.vtkt").complaint


def test_a_ticket_of_another_architecture_and_of_other_weights_are_told(prune: Prune, tmp_path: Path) -> None:
    assert prune("run", *TINY, "--out", "run").code == 0
    ticket = read_ticket(tmp_path / "run" / "ticket.vtkt")
    write_ticket(tmp_path / "wider.vtkt", replace(ticket, generator={**ticket.generator, "ngf": 16}))
    assert (
        "layers are not those of dcgan-tiny: body.layers.0 is (8, 16, 4, 4)" in prune("apply", "wider.vtkt").complaint
    )
    other = replace(ticket, origin=replace(ticket.origin, seed=ticket.origin.seed + 1))
    write_ticket(tmp_path / "other.vtkt", other)
    assert "not those that the ticket was written from" in prune("sample", "other.vtkt").complaint
    said = prune("verify", "other.vtkt", "--json")
    assert said.code == 1
    assert not json.loads(said.out)["holds"]


def test_a_weight_file_of_nothing_known_is_one_line(prune: Prune, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    assert load_file(tmp_path / "other.safetensors")
    assert "holds no generator of vtk prune" in prune("sample", "other.safetensors").complaint
    assert "at most 100000" in prune("sample", "other.safetensors", "-n", 10**12).complaint
    assert "is no PNG" in prune("sample", "other.safetensors", "-o", "here.jpg").complaint
