"""The README's chapter on clusters: every command in it runs, and job files have the lines that are shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from tests.shared_runs import run_together
from vtk_cli.app import main
from vtk_cli.engine.processes import local_processes

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
CHAPTER = README[README.index("## From a laptop to a cluster") : README.index("## What a run leaves")]
JOBS = re.findall(r"```console\n\$ (.*?[^\\])\n(.*?)```", CHAPTER, re.DOTALL)
(WAYS,) = re.findall(r"```bash\n(.*?)```", CHAPTER, re.DOTALL)
SMALL = ["--images-per-class", "10", "--epochs", "1", "--batch-size", "20", "--device", "cpu", "--json", "--quiet"]


def words_of(line):
    return shlex.split(line.replace("\\\n", " "), comments=True)


def test_the_chapter_shows_five_job_files_and_four_ways():
    assert len(JOBS) == 5
    assert [words_of(line)[0] for line in WAYS.splitlines()] == ["vtk", "vtk", "torchrun", "vtk"]


@pytest.mark.parametrize(("command", "shown"), JOBS, ids=[words_of(command)[3] for command, _ in JOBS])
def test_a_job_file_has_the_lines_that_the_readme_shows_in_their_order(command, shown, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program, *arguments = words_of(command)
    assert (program, arguments[:2]) == ("vtk", ["slurm", "script"])
    assert main(arguments) == 0
    made = iter(capsys.readouterr().out.splitlines())
    for line in shown.splitlines():
        pattern = re.escape(line).replace(re.escape(" ... "), " .* ")
        assert any(re.fullmatch(pattern, one) for one in made), line  # takes what comes before


@pytest.mark.slow
@pytest.mark.parametrize("line", WAYS.splitlines()[:3])
def test_each_way_trains_the_digits_by_the_processes_it_says(line, tmp_path, monkeypatch):
    """As it stands in the README, but for the images: two processes in place of eight, on a CPU."""
    program, *arguments = (word for word in words_of(line) if word != "imagenet/")
    arguments = ["2" if word == "8" else word for word in arguments]
    count = 2 if "2" in arguments else 1
    if program == "torchrun":
        told = get_args_parser().parse_args(arguments)
        assert (told.nproc_per_node, told.module, told.training_script) == ("2", True, "vtk_cli")
        arguments = told.training_script_args
    elif count == 2:
        started = []
        monkeypatch.setattr(
            local_processes, "run_processes", lambda words, count, **_: started.append(([*words], count))
        )
        monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")  # which is put back afterwards
        main([*arguments, *SMALL])
        assert started == [([*arguments, *SMALL], 2)]
    how = {"folder": tmp_path, "cache": tmp_path / "cache", "preload": "vtk_cli.train.job", "processes": count}
    ((first, *_),) = run_together([[*arguments, *SMALL]], **how)
    summary = first.object
    assert (summary["processes"], summary["updates"], summary["folder"]) == (count, 5, "run")
    assert Path(tmp_path, "run", "model.safetensors").exists()


def test_what_is_submitted_is_a_job_of_as_many_processes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, slurm, submit, *arguments = words_of(WAYS.splitlines()[3])
    assert (slurm, submit) == ("slurm", "submit")
    assert main(["slurm", "script", *arguments]) == 0
    made = capsys.readouterr().out.splitlines()
    assert {"#SBATCH --nodes=4", "#SBATCH --ntasks-per-node=8", "#SBATCH --gpus-per-node=8"} <= set(made)
