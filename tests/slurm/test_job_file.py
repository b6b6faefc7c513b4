"""The job file: what it asks of Slurm, what it runs, and that it is sound bash."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vtk_cli.app import main

FULL = (
    *("--partition", "gpu", "--account", "lab", "--qos", "high", "--time", "1-12:00:00", "--nodes", "4", "--gpus", "8"),
    *("--cpus-per-task", "6", "--mem", "200G", "--constraint", "a100|h100", "--nodelist", "n[1-4]", "--exclude", "n9"),
    *("--dependency", "afterok:12", "--job-name", "big run", "--mail", "me@there", "--signal", "300"),
    *("--modules", "cuda/12", "--modules", "nccl", "--venv", "/opt/my env", "--setup", "ulimit -n 4096"),
    *("--extra", "--exclusive", "--extra", "#SBATCH --comment=x"),
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no Slurm."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Prints a job file."""

    def call(*words: str, command: tuple[str, ...] = ("train",)) -> str:
        code = main(["slurm", "script", *words, "--", *command])
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out

    return call


def directives(text: str) -> dict[str, str]:
    """Flag -> value of the lines that sbatch reads."""
    lines = [shlex.split(line.removeprefix("#SBATCH "))[0] for line in text.splitlines() if line.startswith("#SBATCH ")]
    return {flag.removeprefix("--"): value for flag, _, value in (line.partition("=") for line in lines)}


def test_every_option_becomes_one_of_sbatch(script: Callable[..., str], place: Path) -> None:
    assert directives(script(*FULL)) == {
        "job-name": "big run",
        "partition": "gpu",
        "account": "lab",
        "qos": "high",
        "time": "1-12:00:00",
        "nodes": "4",
        "ntasks-per-node": "8",
        "gpus-per-node": "8",
        "cpus-per-task": "6",
        "mem": "200G",
        "constraint": "a100|h100",
        "nodelist": "n[1-4]",
        "exclude": "n9",
        "dependency": "afterok:12",
        "mail-user": "me@there",
        "mail-type": "END,FAIL,REQUEUE",
        "chdir": str(place),
        "output": "slurm-%j.out",
        "open-mode": "append",
        "signal": "USR1@300",
        "requeue": "",
        "exclusive": "",
        "comment": "x",
    }
    assert not list(place.iterdir())


def test_the_environment_comes_before_the_step_in_the_order_modules_venv_threads_setup(
    script: Callable[..., str],
) -> None:
    text = script(*FULL)
    order = ["module load cuda/12 nccl", "source '/opt/my env/bin/activate'", "OMP_NUM_THREADS=6", "ulimit -n 4096"]
    places = [text.index(line) for line in [*order, "\nsrun "]]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("flags", "command", "processes"),
    [
        ((), ("train",), 1),
        (("--gpus", "8"), ("train",), 8),
        (("--gpus", "8", "--nproc", "4"), ("train",), 4),
        (("--gpus", "8"), ("train", "--nproc", "8"), 1),
        (("--gpus", "8"), ("similarity", "a", "b"), 1),
        (("--gpus", "2"), ("data", "list"), 1),
    ],
)
def test_what_trains_gets_a_process_a_gpu_and_the_rest_one(
    flags: tuple[str, ...], command: tuple[str, ...], processes: int, script: Callable[..., str]
) -> None:
    assert directives(script(*flags, command=command))["ntasks-per-node"] == str(processes)


def test_without_an_environment_of_its_own_the_job_runs_the_python_that_wrote_it(script: Callable[..., str]) -> None:
    assert f"{shlex.quote(sys.executable)} -m vtk_cli \\\n  train " in script()
    assert " vtk \\\n  train " in script("--venv", "/opt/venv")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("vtk.sif", "apptainer exec --nv --pwd {0} --bind {0} --bind /data vtk.sif vtk"),
        ("docker://lab/vtk:1", "apptainer exec --nv --pwd {0} --bind {0} --bind /data docker://lab/vtk:1 vtk"),
        (
            "lab/vtk:1",
            "--container-image=lab/vtk:1 --container-workdir={0} --container-mounts={0}:{0},/data:/data vtk",
        ),
    ],
)
def test_a_container_is_started_as_its_image_is_named(
    image: str, words: str, script: Callable[..., str], place: Path
) -> None:
    assert words.format(place) in script("--gpus", "1", "--container", image, "--mount", "/data")


def test_a_job_that_is_queued_again_finds_its_run_folder(script: Callable[..., str]) -> None:
    assert '--out "runs/train/slurm-$SLURM_JOB_ID"' in script()
    assert "--out" not in script(command=("train", "-o", "there")).replace("--output", "")
    assert "run=there\n" in script(command=("train", "-o", "there"))


def test_an_array_counts_from_0_and_gives_each_task_its_share(script: Callable[..., str]) -> None:
    text = script("--array", "69%16", command=("similarity", "a", "b"))
    assert directives(text)["array"] == "0-68%16"
    assert directives(text)["output"] == "slurm-%A_%a.out"
    assert '--shard "$SLURM_ARRAY_TASK_ID/69" --out "runs/similarity/slurm-$SLURM_ARRAY_JOB_ID" a b' in text


def test_a_job_that_is_not_to_be_queued_again_ends_with_its_step(script: Callable[..., str]) -> None:
    text = script("--no-requeue")
    assert "no-requeue" in directives(text)
    assert "scontrol" not in text
    assert text.splitlines()[-2].startswith("srun ")


def test_words_reach_the_command_as_they_were_given(script: Callable[..., str], place: Path) -> None:
    odd = ("train", "--out", "a b", "--eval-set", "x=$HOME/`id`'\"\\*", "--", "-data $SLURM_JOB_ID")
    text = script(command=odd)
    step = text[text.index("\nsrun ") : text.index("\ncode=$?")]
    shown = step.replace("\nsrun ", "srun() { printf '%s\\0' \"$@\"; }\nsrun ")
    said = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True).stdout.split("\0")
    assert said[-len(odd) - 1 : -1] == list(odd)


@pytest.mark.parametrize(
    "words", [(), FULL, ("--no-requeue",), ("--container", "a b.sif"), ("--array", "6%2"), ("--venv", "v")]
)
def test_a_job_file_has_no_warning_of_shellcheck(words: tuple[str, ...], script: Callable[..., str]) -> None:
    command = ("similarity", "a", "b c") if "--array" in words else ("train", "--out", "it's here")
    text = script(*words, command=command)
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# What the script does when its command has ended, with Slurm's programs played by bash.


def ended(
    code: int, *, state: str = "RUNNING", saves: str = "", seconds: int = 0, times: int = 1, text: str, place: Path
) -> list[str]:
    """What a job whose command ends with `code` prints and asks of Slurm, run so often, and its exit code."""
    run = place / "run"
    save = f"mkdir -p {run}/checkpoints; touch {run}/checkpoints/{saves}.pt;" if saves else ""
    played = (
        f"srun() {{ {save} return {code}; }}\nsqueue() {{ echo {state}; }}\n"
        'scontrol() { echo "asked: $*"; }\n'
        f"SLURM_JOB_ID=12\nSECONDS={seconds}\n"
    )
    for _ in range(times):
        done = subprocess.run(["bash", "-c", played + text], capture_output=True, text=True, check=False)
    return [*done.stdout.splitlines(), *done.stderr.splitlines(), f"exit {done.returncode}"]


@pytest.mark.parametrize("code", [75, 138, 143])
def test_a_command_that_was_asked_to_stop_is_queued_again(code: int, script: Callable[..., str], place: Path) -> None:
    text = script(command=("train", "--out", "run"))
    assert ended(code, text=text, place=place) == [
        "queued again, to go on from what was saved",
        "asked: requeue 12",
        f"exit {code}",
    ]


@pytest.mark.parametrize("code", [0, 1, 2, 130, 137])
def test_any_other_end_is_the_end_of_the_job(code: int, script: Callable[..., str], place: Path) -> None:
    assert ended(code, text=script(command=("train", "--out", "run")), place=place) == [f"exit {code}"]


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", ""])
def test_a_job_that_slurm_has_ended_is_not_queued_again(state: str, script: Callable[..., str], place: Path) -> None:
    assert ended(75, state=state, text=script(command=("train", "--out", "run")), place=place) == ["exit 75"]


def test_a_job_that_saves_something_new_each_time_is_queued_again_however_often(
    script: Callable[..., str], place: Path
) -> None:
    text = script(command=("train", "--out", "run"))
    assert "asked: requeue 12" in ended(75, saves="step-$RANDOM$RANDOM-abc", times=8, text=text, place=place)
    assert "asked: requeue 12" in ended(75, times=4, text=text, place=place)
    last = ended(75, text=text, place=place)
    assert not any(re.match("asked", line) for line in last)
    assert last[-2].startswith("stopped 5 times in a row")


def test_the_same_step_saved_again_is_no_progress_however_long_it_took(script: Callable[..., str], place: Path) -> None:
    text = script(command=("train", "--out", "run"))
    again = {"saves": "step-00000016-$RANDOM", "seconds": 3600}
    assert "asked: requeue 12" in ended(75, times=5, text=text, place=place, **again)
    assert ended(75, text=text, place=place, **again)[-2].startswith("stopped 5 times in a row")


def test_where_there_are_no_checkpoints_ten_minutes_and_a_word_that_it_saved_are_progress(
    script: Callable[..., str], place: Path
) -> None:
    text = script("--array", "2", command=("similarity", "a", "b", "--out", "run"))
    assert "asked: requeue _" in ended(75, seconds=700, times=8, text=text, place=place)
    assert ended(138, seconds=700, times=5, text=text, place=place)[-2].startswith("stopped 5 times in a row")
