"""What a job asks for, from flags and from the `[slurm]` table of a config file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Said
from vtk_cli.app import main
from vtk_cli.slurm.options import JobOptions, config_of

CONFIG = """\
epochs = 3
sub = "none"

[slurm]
partition = "gpu"
gpus = 8
time = 90
modules = ["cuda/12", "nccl"]
cpus_per_task = 4
requeue = false
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs `vtk slurm script`."""

    def call(*words: str) -> Said:
        capsys.readouterr()
        code = main(["slurm", "script", *words])
        return Said(code, *capsys.readouterr())

    return call


def test_the_table_of_the_commands_own_config_sets_the_options_of_the_job(
    script: Callable[..., Said], place: Path
) -> None:
    (place / "c.toml").write_text(CONFIG)
    for words in (("--config", "c.toml"), ("--config=c.toml",)):
        text = script("--", "train", *words).out
        for line in ("partition=gpu", "gpus-per-node=8", "time=90", "cpus-per-task=4", "no-requeue"):
            assert f"#SBATCH --{line}\n" in text
        assert "module load cuda/12 nccl" in text


def test_flags_win_over_a_file_of_the_job_and_that_over_the_commands_own(
    script: Callable[..., Said], place: Path
) -> None:
    (place / "c.toml").write_text(CONFIG)
    (place / "job.toml").write_text('[slurm]\npartition = "mine"\ngpus = 4\n')
    text = script("--gpus", "2", "--config", "job.toml", "--", "train", "--config", "c.toml").out
    assert "--partition=mine\n" in text
    assert "--gpus-per-node=2\n" in text
    assert "--time=90\n" in text


def test_the_command_itself_passes_the_table_over(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "c.toml").write_text('output = "x"\n[slurm]\npartition = 3\nanything = "at all"\n')
    assert main(["similarity", "--config", "c.toml"]) == 2
    assert "has no option 'output'" in capsys.readouterr().err
    (place / "c.toml").write_text('[slurm]\nanything = "at all"\n')
    assert main(["train", "recipes", "--config", "c.toml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('[slurm]\npartion = "x"', "c.toml:2: `vtk slurm script` has no option 'partion'; did you mean partition"),
        ('[slurm]\nmodules = "x"', 'c.toml:2, modules: is no list; write modules = ["..."]'),
        ('[slurm]\ngpus = "many"', "Invalid value for '--gpus'"),
        ("[slurm]\ngpus = 0", "--gpus: 0 is out of range; give a number at least 1"),
        ('[slurm]\npartition = ""', "--partition: is empty"),
        ("slurm = 3", "c.toml:1, slurm: is no table; write [slurm]"),
        ("[slurm", "is not TOML"),
    ],
)
def test_a_mistake_in_the_table_is_named(table: str, message: str, script: Callable[..., Said], place: Path) -> None:
    (place / "c.toml").write_text(table)
    assert message in script("--", "train", "--config", "c.toml").complaint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--"], "there is no command to run; name a command after --"),
        ([], "there is no command to run; name a command after --"),
        (["--", "trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["--", "train", "--epoch", "3"], "No such option: --epoch"),
        (["--", "train", "--epochs", "0"], "--epochs: 0 is out of range"),
        (["--", "data", "make"], "Missing argument 'NAME'"),
        (["--", "data"], "data: is a group of commands; give one: list, make, check"),
        (["--", "slurm", "status"], "slurm: a job does not submit jobs"),
        (["--", "train", "--resume", "nothing"], "--resume nothing: holds no run"),
        (["--array", "3", "--", "train"], "--array: `vtk train` has no pieces that tasks could share; leave it out"),
        (["--array", "x", "--", "similarity", "a", "b"], "'x' is no number of tasks; give e.g. 6, or 69%8"),
        (["--array", "0", "--", "similarity", "a", "b"], "'0' is no number of tasks"),
        (["--array", "3%0", "--", "similarity", "a", "b"], "'3%0' is no number of tasks"),
        (["--array", "3", "--", "similarity", "a", "b", "--shard", "0/3"], "--shard: the tasks of an array have"),
        (["--array", "3", "--", "similarity", "a", "b", "--merge"], "leave out --merge"),
        (["--nodes", "2", "--", "similarity", "a", "b"], "`vtk similarity` is one process; spread its pieces with"),
        (["--nproc", "2", "--", "data", "list"], "--ntasks-per-node: `vtk data list` is one process; leave it out"),
        (["--nproc", "2", "--", "train", "--nproc", "2"], "--nproc: the processes are started by the command and by"),
        (["--nodes", "2", "--", "train", "--nproc", "2"], "--nproc: the processes are started by the command and by"),
        (["--time", "soon", "--", "train"], "--time: 'soon' is no time; give minutes, HH:MM:SS or D-HH:MM:SS"),
        (["--time", "2", "--", "train"], "--time: a limit of 120 s is over when the command is asked to save, 120 s"),
        (["--mount", "/data", "--", "train"], "--mount: there is no container; give --container IMAGE"),
        (["--setup", "a\nb", "--", "train"], "--setup: has a line break or another control character; give one line"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], message: str, script: Callable[..., Said]) -> None:
    assert message in script(*words).complaint


def test_the_name_of_the_program_may_stand_before_the_command(script: Callable[..., Said]) -> None:
    assert script("--", "vtk", "train", "--epochs", "3").out == script("--", "train", "--epochs", "3").out


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("1:30:15", 5415),
        ("2-3", 183600),
        ("2-3:30", 185400),
        ("2-03:30:15", 185415),
        ("infinite", None),
        (None, None),
    ],
)
def test_a_time_limit_is_read_as_slurm_reads_it(time: str | None, seconds: int | None) -> None:
    assert JobOptions(time=time).seconds == seconds


def test_the_config_of_a_command_is_found_among_its_words_but_not_behind_a_double_dash() -> None:
    assert config_of(["train", "--config", "a.toml", "x"]) == "a.toml"
    assert config_of(["train", "--config=b.toml"]) == "b.toml"
    assert config_of(["train", "--", "--config", "a.toml"]) is None
    assert config_of(["train", "--config"]) is None
