"""`vtk doctor` says what is used, why, and what cannot work."""

import json
import sys
from pathlib import Path

import pytest
import torch

from vtk_cli.app import main
from vtk_cli.doctor import examination, graphics, packages, room
from vtk_kernels import dispatch


@pytest.fixture
def program(monkeypatch, tmp_path_factory):
    """A PATH with nothing but a shell, and a way to put programs on it."""
    folder = tmp_path_factory.mktemp("programs")
    monkeypatch.setenv("PATH", str(folder))

    def put(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


def mends(found):
    return {each["what"]: each["mend"] for each in found["missing"]}


def without(monkeypatch, *absent):
    there = packages.installed
    monkeypatch.setattr(packages, "installed", lambda name: None if name in absent else there(name))


def doctor(capsys, code=0):
    assert main(["doctor", "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def _plain(monkeypatch, tmp_path):
    for variable in (dispatch.VARIABLE, "SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))


def test_every_operator_is_listed_with_the_backend_that_dispatch_picks(capsys):
    found = doctor(capsys)
    on_cpu = {each["operator"]: each for each in found["kernels"] if each["device"] == "cpu"}
    assert set(on_cpu) == set(dispatch.OPERATORS)
    for operator, choice in on_cpu.items():
        assert choice["backend"] == dispatch.which(operator, "cpu")
        assert choice["why"] == dispatch.why(operator, "cpu")
    assert found["problems"] == []


def test_a_forced_backend_is_named_as_the_reason(capsys, monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    found = doctor(capsys)
    assert {each["backend"] for each in found["kernels"]} == {"reference"}
    assert all("VTK_KERNELS=reference" in each["why"] for each in found["kernels"])


@pytest.mark.parametrize(("forced", "says"), [("fast", "got 'fast'"), ("cuda", "VTK_KERNELS=cuda")])
def test_a_backend_that_cannot_run_is_a_problem_and_exit_code_1(capsys, monkeypatch, forced, says):
    monkeypatch.setenv(dispatch.VARIABLE, forced)
    found = doctor(capsys, code=1)
    assert any(says in problem for problem in found["problems"])
    assert any(each["backend"] is None for each in found["kernels"])


def test_without_compiled_kernels_it_says_so_and_nothing_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr(examination, "find_spec", lambda name: None)
    found = doctor(capsys)
    assert found["compiled"].startswith("not built")
    assert found["problems"] == []


def test_compiled_kernels_that_cannot_be_loaded_are_a_problem(capsys, monkeypatch):
    monkeypatch.setattr(examination, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "vtk_kernels._cpu", None)  # its import then fails
    found = doctor(capsys, code=1)
    assert any("the compiled kernels cannot be loaded" in problem for problem in found["problems"])


def test_a_cache_that_cannot_be_written_is_a_problem(capsys, monkeypatch, read_only_folder):
    monkeypatch.setenv("VTK_CACHE", str(read_only_folder))
    found = doctor(capsys, code=1)
    assert any("the cache cannot be written" in problem for problem in found["problems"])


def test_a_look_makes_no_folder(capsys, tmp_path):
    doctor(capsys)
    assert not list(tmp_path.iterdir())


def test_people_get_tables_of_80_columns_and_a_last_word(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "Python",
        "torch",
        "CUDA",
        "driver",
        "compiler",
        "PyAV",
        "Slurm",
        "threads",
        "cache",
        "working folder",
    ):
        assert word in shown
    for operator in dispatch.OPERATORS:
        assert operator in shown
    assert shown.rstrip().endswith("nothing is wrong")
    assert max(map(len, shown.splitlines())) <= 80


def test_the_cache_is_told_with_its_size_and_both_disks_with_their_room(capsys, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "a").write_bytes(bytes(3000))
    (tmp_path / "cache" / "dangling").symlink_to("nowhere")
    found = doctor(capsys)
    assert found["cache"]["bytes"] == 3000 + (tmp_path / "cache" / "dangling").lstat().st_size
    assert found["cache"]["folder"] == str(tmp_path / "cache")
    assert found["cache"]["free_bytes"] > 0
    assert found["working_folder"]["folder"] == str(Path.cwd())
    assert found["working_folder"]["free_bytes"] > 0


def test_little_room_is_told_with_what_makes_some(capsys, monkeypatch):
    monkeypatch.setattr(room, "LITTLE", float("inf"))
    found = doctor(capsys)
    assert mends(found)["room in the working folder"] == "vtk runs clean"
    assert "VTK_CACHE" in mends(found)["room for the cache"]


def test_a_working_folder_that_is_gone_is_a_problem(capsys, monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert any("the working folder" in problem for problem in doctor(capsys, code=1)["problems"])


def test_without_compiler_and_kernels_the_commands_that_bring_both_are_named(capsys, monkeypatch, program):
    monkeypatch.setattr(examination, "find_spec", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    program("apt-get", "")
    found = doctor(capsys)
    (mend,) = [command for what, command in mends(found).items() if "compiler" in what]
    assert mend.startswith("apt install build-essential && pip install --force-reinstall")
    assert found["problems"] == []


def test_a_compiler_without_kernels_asks_for_a_new_install_alone(capsys, monkeypatch, program):
    monkeypatch.setattr(examination, "find_spec", lambda name: None)
    program("g++", "echo 'g++ (Debian 12.2.0-14) 12.2.0'")
    found = doctor(capsys)
    assert found["compiler"].endswith("g++, version 12.2.0")
    assert mends(found)["compiled kernels"].startswith("pip install")


def test_what_the_compiler_of_another_system_is_called_in_its_words(capsys, monkeypatch, program):
    monkeypatch.setattr(examination, "find_spec", lambda name: None)
    program("dnf", "")
    assert any("dnf install gcc-c++" in command for command in mends(doctor(capsys)).values())


def test_slurm_is_told_with_its_version_and_the_job_around(capsys, monkeypatch, program):
    for name in ("sbatch", "srun"):
        program(name, "echo slurm 24.05.1")
    found = doctor(capsys)["slurm"]
    assert (found["version"], found["job"]) == ("slurm 24.05.1", None)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert doctor(capsys)["slurm"]["job"] == "77"
    main(["doctor"])
    assert "inside job 77, process 3 of 8" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_no_slurm_is_missing_and_half_of_it_is_a_problem(capsys, program):
    assert "Slurm" in mends(doctor(capsys))
    program("sbatch", "echo slurm 24.05.1")
    assert any("srun is not on PATH" in problem for problem in doctor(capsys, code=1)["problems"])


def test_a_slurm_without_a_cluster_lacks_its_configuration(capsys, program):
    for name in ("sbatch", "srun"):
        program(name, "exit 1")
    found = doctor(capsys)
    assert found["slurm"]["version"] is None
    assert "SLURM_CONF" in mends(found)["Slurm's configuration"]


def test_extras_that_are_not_installed_are_told_with_their_command(capsys, monkeypatch):
    without(monkeypatch, "onnx", "onnxruntime")
    found = doctor(capsys)
    assert mends(found)["onnx, onnxruntime"] == "pip install 'vtk-cli[export]'"
    assert found["packages"]["onnx"] is None
    assert found["packages"]["timm"]


def test_readers_of_videos_that_are_not_installed_are_missing(capsys, monkeypatch):
    without(monkeypatch, "av", "decord")
    monkeypatch.setattr(packages, "_decord_has_wheels", lambda: True)
    found = mends(doctor(capsys))
    assert (found["PyAV"], found["decord"]) == ("pip install av", "pip install decord")
    monkeypatch.setattr(packages, "_decord_has_wheels", lambda: False)
    assert "decord" not in mends(doctor(capsys))


def test_a_reader_that_is_there_and_cannot_be_loaded_is_a_problem(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)  # its import then fails
    monkeypatch.setattr(packages, "installed", lambda name: "1.0")
    assert any(problem.startswith("PyAV cannot be loaded") for problem in doctor(capsys, code=1)["problems"])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build", "570.124.06"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  460.39  Fri Jan 22", "460.39"),
        ("something else", "of unknown version"),
    ],
)
def test_the_driver_is_read_from_the_kernel(monkeypatch, tmp_path, text, number):
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(graphics, "DRIVER", tmp_path / "version")
    assert graphics.driver_version() == number


def test_without_the_kernels_file_the_drivers_own_program_is_asked(monkeypatch, tmp_path, program):
    monkeypatch.setattr(graphics, "DRIVER", tmp_path / "none")
    assert graphics.driver_version() is None
    program("nvidia-smi", "echo 550.54.15")
    assert graphics.driver_version() == "550.54.15"
    program("nvidia-smi", "echo 'has failed because it could not communicate'; exit 9")
    assert graphics.driver_version() is None


@pytest.mark.parametrize(
    ("cuda", "says"), [(None, "built without CUDA"), ("13.2", "update the driver to one for CUDA")]
)
def test_a_gpu_that_torch_cannot_use_is_a_problem_unless_it_is_hidden(capsys, monkeypatch, cuda, says):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(graphics, "driver_version", lambda: "460.39")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    found = doctor(capsys, code=1)
    assert any("460.39" in problem and says in problem for problem in found["problems"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert doctor(capsys)["problems"] == []
