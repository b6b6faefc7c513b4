"""`vtk detect` by two processes: what one process trains and measures, they train and measure together.

All images have one size. Where they have several, a batch is padded to its largest one, half a batch perhaps to less,
and window attention sees the padding: two processes then train as well as one, but not the very same. Dropout and
stochastic depth are off, for each process draws its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.command_line import Said
from tests.detect.shape_folders import write_coco
from tests.shared_runs import run_together
from tests.stopped_runs import run_stopped
from vtk_cli.app import main
from vtk_cli.engine.processes import local_processes
from vtk_cli.errors import ExitCode

pytestmark = pytest.mark.slow  # trainings in processes of their own

TRAIN = (
    *("detect", "train", "images", "--recipe", "digits", "--size", "64", "--batch-size", "4", "--steps", "20"),
    *("--warmup-steps", "4", "--dropout", "0", "--drop-path", "0", "--ema-decay", "0.9", "--device", "cpu"),
    *("--workers", "0", "--evaluate-epochs", "10", "--quiet"),
)
PLUS = ("--model", "vidt-plus-micro", "--masks", "on")
CASES: dict[str, tuple[str, ...]] = {
    "boxes, masks, IoU and token labels": PLUS,
    "normalised over both": (*PLUS, "--backbone", "test_resnet", "--weights", "none", "--sync-bn"),
}
"""In float64: that two processes compute what one does is told from how they round."""
FOUND = [*((name, "ddp") for name in CASES), ("boxes, masks, IoU and token labels", "fsdp")]
SINGLE = (*TRAIN, *PLUS, "--val", "others", "--lr", "1e-4")
"""In float32, at the published learning rate, and measured."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 8 `images` and 7 `others`, of which some have no object and some fewer."""
    folder = tmp_path_factory.mktemp("together")
    for name, split, count in (("images", "train", 8), ("others", "val", 7)):
        write_coco(folder / name, {split: count})
        file = folder / name / f"annotations/instances_{split}2017.json"
        content = json.loads(file.read_text())
        few = {1: 0, 2: 1, 5: 1}
        content["annotations"] = [
            entry for number, entry in enumerate(content["annotations"]) if number % 2 < few.get(entry["image_id"], 2)
        ]
        file.write_text(json.dumps(content))
    return folder


def together(root: Path, *commands: tuple[str, ...], processes: int, double: bool = False) -> list[list[Said]]:
    said = run_together(
        commands,
        folder=root,
        cache=root / "cache",
        preload="vtk_cli.detect.use",
        patches="tests.detect.doubled" if double else None,
        processes=processes,
    )
    for command in said:
        assert [one.code for one in command] == [0] * processes, command
    return said


def weights(run: Path) -> dict[str, Tensor]:
    """Those at the end and their average, but for the keys' biases.

    No softmax depends on them, so that their gradients are rounding errors, which Adam makes into whole steps.
    """
    found = {}
    for file in ("model", "ema"):
        for name, tensor in load_file(run / f"{file}.safetensors").items():
            parts = tensor.chunk(3) if name.endswith(("qkv.bias", "in_proj_bias")) else (tensor,)
            found |= {f"{file} {name} {index}": part for index, part in enumerate(parts) if index != 1}
    return found


def assert_close(one: Path, other: Path, atol: float) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=atol, rtol=0, msg=lambda text, name=name: name + text)


@pytest.fixture(scope="module")
def runs(root: Path) -> Path:
    """The runs of one process and of two."""
    alone = [(*TRAIN, *case, "--out", f"{name}, one") for name, case in CASES.items()]
    together(root, *alone, processes=1, double=True)
    shared = [(*TRAIN, *CASES[name], "--parallel", how, "--out", f"{name}, {how}") for name, how in FOUND]
    together(root, *shared, processes=2, double=True)
    return root


@pytest.mark.parametrize(("name", "parallel"), FOUND)
def test_two_processes_come_to_the_weights_of_one(runs: Path, name: str, parallel: str) -> None:
    assert_close(runs / f"{name}, one", runs / f"{name}, {parallel}", 1e-9)
    rows = [
        [json.loads(line) for line in (runs / f"{name}, {run}" / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", parallel)
    ]
    assert len(rows[0]) == len(rows[1]) == 10
    assert len({row["loss"] for row in rows[0]}) == 10
    for one, two in zip(*rows, strict=True):
        assert two == pytest.approx(one, abs=1e-9)


@pytest.fixture(scope="module")
def single(root: Path) -> Path:
    """A run of one process in float32."""
    together(root, (*SINGLE, "--out", "single"), processes=1)
    return root / "single"


def test_a_run_of_one_process_is_gone_on_with_by_two_and_differs_by_rounding_alone(root: Path, single: Path) -> None:
    begun = {"arguments": [*SINGLE, "--out", "stopped"], "at": 7, "signal": "SIGTERM"}
    assert run_stopped("vtk_cli.detect", [begun], folder=root, cache=root / "cache") == [ExitCode.PREEMPTED]
    together(root, ("detect", "train", "--resume", "stopped", "--parallel", "fsdp", "--quiet"), processes=2)
    assert_close(single, root / "stopped", 1e-6)
    first, second = load_file(single / "model.safetensors"), load_file(root / "stopped" / "model.safetensors")
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_seven_images_are_measured_by_two_as_by_one_to_the_last_bit(root: Path, single: Path) -> None:
    measure = ("detect", "eval", str(single), "--batch-size", "2", "--device", "cpu", "--json", "-o")
    alone = together(root, (*measure, "by-one"), processes=1)[0][0]
    first, second = together(root, (*measure, "by-two"), processes=2)[0]
    assert first.out == alone.out
    assert json.loads(first.out)["boxes"]["AP"] is not None
    assert (second.out, second.err) == ("", "")
    for file in ("results.json", "evaluation.json", "per-class.csv"):
        assert (root / "by-two" / file).read_bytes() == (root / "by-one" / file).read_bytes(), file
    seen = [entry["image_id"] for entry in json.loads((root / "by-two" / "results.json").read_text())]
    assert sorted(set(seen)) == [*range(1, 8)]
    assert seen == sorted(seen)


def test_a_broken_image_ends_both_processes(root: Path, single: Path) -> None:
    shutil.copytree(root / "others", root / "broken")
    image = root / "broken" / "val2017" / "6.png"
    image.write_bytes(image.read_bytes()[:200])
    measure = ("detect", "eval", str(single), "broken", "--batch-size", "1", "--device", "cpu", "--workers", "0")
    (said,) = run_together([measure], folder=root, cache=root / "cache", preload="vtk_cli.detect.use")
    assert [one.code for one in said] == [ExitCode.USAGE] * 2, said
    assert "6.png" in "".join(one.err for one in said)


def test_eval_starts_its_own_processes(root: Path, single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start(arguments: Sequence[str], count: int, *, show_agent: bool) -> ExitCode:
        started.append((list(arguments), count, show_agent))
        return ExitCode.DONE

    monkeypatch.setattr(local_processes, "run_processes", start)
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")  # which is put back afterwards
    words = ["detect", "eval", str(single), str(root / "others"), "--device", "cpu", "--nproc", "2"]
    assert main(words) == 0
    assert started == [(words, 2, False)]


def test_the_plan_names_processes_and_what_each_has(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    words = [*TRAIN[:-1], *PLUS, "--dry-run", "--json", "--parallel", "fsdp", "--nproc"]
    assert main([*words, "2"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["processes"], plan["images a process"]) == ("2", "2")
    assert plan["each holds"] == "1/2 of weights, gradients and optimiser state"
    assert main([*words, "3"]) == ExitCode.USAGE
    assert "a batch of 4 cannot be shared equally by 3 processes" in capsys.readouterr().err
