"""`vtk segment` by two processes: what one process trains, labels and measures, they come to together.

All scenes have one size. Where images have several, a batch is padded to its largest one, half a batch perhaps to less:
two processes then train as well as one, but not the very same.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.command_line import Said
from tests.segment.runs import inputs
from tests.shared_runs import run_together
from vtk_cli.app import main
from vtk_cli.engine.processes.distributed import World
from vtk_cli.segment.refine.stage import own_share

pytestmark = pytest.mark.slow  # whole runs in processes of their own

RUN = ("--recipe", "digits", "--model", "solov2-micro", "--size", "64", "--batch-size", "6", "--device", "cpu")
STEPS = ("--teacher-steps", "20", "--student-steps", "2", "--refine-steps", "20", "--evaluations", "1")
TRAINED = {"teacher": "teacher/model", "refine": "refine/best"}
"""Stages that train; a student is trained as a teacher is."""
FOUND = [("teacher", "ddp"), ("teacher", "fsdp"), ("refine", "ddp")]


def together(scenes: Path, folder: Path, *commands: tuple[object, ...], processes: int = 2) -> list[list[Said]]:
    said = run_together(
        [("segment", *command) for command in commands],
        folder=folder,
        cache=scenes / "cache",
        preload="vtk_cli.segment.use",
        patches="tests.segment.doubled",
        processes=processes,
    )
    for command in said:
        assert [one.code for one in command] == [0] * processes, command
    return said


@pytest.fixture(scope="module")
def runs(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in float64 by one process, and copies of it in which two processes make a stage that trains again."""
    folder = tmp_path_factory.mktemp("together")
    start = ("run", *inputs(scenes), *RUN, *STEPS, "--workers", "0", "--quiet", "--out", "one")
    together(scenes, folder, start, processes=1)
    commands = []
    for stage, how in FOUND:
        shutil.copytree(folder / "one", folder / f"{stage}-{how}")
        words = ("--redo", "--parallel", how, "--device", "cpu", "--quiet")
        commands.append((stage, f"{stage}-{how}", *words))
    together(scenes, folder, *commands)
    return folder


@pytest.mark.parametrize(("stage", "parallel"), FOUND)
def test_two_processes_come_to_the_weights_of_one(runs: Path, stage: str, parallel: str) -> None:
    """In 20 updates, all batch norms over both processes; the crops of the MaskRefineNet do not share out evenly."""
    one, two = (load_file(runs / run / f"{TRAINED[stage]}.safetensors") for run in ("one", f"{stage}-{parallel}"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-6, rtol=0, msg=lambda text, name=name: name + text)
    alone, shared = (
        [*map(json.loads, (runs / run / stage / "metrics.jsonl").read_text().splitlines())]
        for run in ("one", f"{stage}-{parallel}")
    )
    assert alone[-1]["step"] >= 20
    assert [row["step"] for row in shared] == [row["step"] for row in alone]
    for name in {"ap", "pseudo_ap", "iou"} & alone[-1].keys():
        assert [row.get(name) for row in shared] == pytest.approx([row.get(name) for row in alone], abs=1e-4)


@pytest.mark.parametrize("prompt", ["none", "point", "classes"])
def test_seven_images_are_measured_by_two_as_by_one_to_the_last_bit(
    runs: Path, scenes: Path, tmp_path: Path, prompt: str
) -> None:
    content = json.loads((scenes / "all_25p_s.json").read_text())
    more = json.loads((scenes / "all.json").read_text())
    strong = {image["id"] for image in content["images"]}
    kept = [*content["images"], next(image for image in more["images"] if image["id"] not in strong)]
    assert len(kept) == 7
    ids = {image["id"] for image in kept}
    more["images"], more["annotations"] = kept, [each for each in more["annotations"] if each["image_id"] in ids]
    (tmp_path / "seven.json").write_text(json.dumps(more))
    measure = ("eval", runs / "one", "seven.json", "--images", scenes / "train", "--prompt", prompt, "--workers", "0")
    alone = together(scenes, tmp_path, (*measure, "--device", "cpu", "--json", "-o", "by-one"), processes=1)[0][0]
    first, second = together(scenes, tmp_path, (*measure, "--device", "cpu", "--json", "-o", "by-two"))[0]
    assert first.out == alone.out
    assert (second.out, second.err) == ("", "")
    assert (tmp_path / "by-two/results.json").read_bytes() == (tmp_path / "by-one/results.json").read_bytes()


def test_crops_are_shared_as_evenly_as_they_can_be() -> None:
    def shares(count: int, size: int) -> list[list[int]]:
        worlds = [World(rank, size, rank, torch.device("cpu")) for rank in range(size)]
        return [own_share(torch.arange(count), world).tolist() for world in worlds]

    assert shares(7, 3) == [[0, 1, 2], [3, 4], [5, 6]]
    assert shares(2, 3) == [[0, 1]] * 3


def test_the_plan_names_processes_and_what_each_has(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(scenes / "cache"))
    words = ["segment", "run", *inputs(scenes), *RUN, "--dry-run", "--json", "--nproc", "2"]
    assert main(words) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["processes"], plan["images a process"]) == ("2", "3")
    assert plan["each holds"] == "all weights and their optimiser state"
    assert not [*tmp_path.iterdir()]
