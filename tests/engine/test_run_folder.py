"""A run's folder: one owner, one configuration, and a record of how it went."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
from contextlib import AbstractContextManager
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from vtk_cli.console import Console
from vtk_cli.engine.run_config import RunConfig
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.errors import JobError, Preempted, UserError

HOLD = """
import sys, time
from pathlib import Path
from vtk_cli.console import Console
from vtk_cli.engine.run_folder import RunFolder
assert "torch" not in sys.modules
out = Path(sys.argv[1])
with RunFolder.open("train", "x", config={"lr": 0.1}, out=out, console=Console(), seed=0, device="cpu"):
    (out / "checkpoints").mkdir(exist_ok=True)
    (out / "checkpoints" / ".tmp-half.pt").touch()
    (out / ".tmp-folder").mkdir(exist_ok=True)
    (out / ".tmp-folder" / "part").touch()
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(
    config: dict[str, object] | None = None,
    out: Path | None = None,
    *,
    command: str = "train",
    name: str = "x",
    may_change: tuple[str, ...] = (),
) -> AbstractContextManager[RunFolder]:
    return RunFolder.open(
        command,
        name,
        config={"lr": 0.1} if config is None else config,
        out=out,
        console=Console(quiet=True),
        seed=4,
        device="cpu",
        may_change=may_change,
    )


def record(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((path / "run.json").read_text())
    return content


def test_the_default_folder_is_named_for_the_command_the_day_and_the_run() -> None:
    with run() as folder:
        assert folder.path == Path("runs", "train", f"{date.today().isoformat()}-x")
        assert folder.checkpoints == folder.path / "checkpoints"
        assert folder.plots == folder.path / "plots"


def test_a_name_with_odd_characters_stays_inside_the_runs_folder() -> None:
    with run(name="../hf_hub:timm/vit tiny") as folder:
        assert folder.path.name == f"{date.today().isoformat()}-hf_hub-timm-vit-tiny"
        assert folder.path.parent == Path("runs", "train")
    with run(name="..") as folder:
        assert folder.path.name.endswith("-run")


def test_the_same_run_reuses_its_default_folder_and_another_takes_the_next_number() -> None:
    paths = []
    for lr in (0.1, 0.2, 0.1, 0.3, 0.2):
        with run({"lr": lr}) as folder:
            paths.append(folder.path)
    base = paths[0]
    second, third = (base.with_name(f"{base.name}-{number}") for number in (2, 3))
    assert paths == [base, second, base, third, second]


def test_a_default_folder_passes_by_foreign_files() -> None:
    base = Path("runs", "train", f"{date.today().isoformat()}-x")
    base.mkdir(parents=True)
    (base / "notes.txt").touch()
    base.with_name(f"{base.name}-2").touch()
    with run() as folder:
        assert folder.path == base.with_name(f"{base.name}-3")
    assert [entry.name for entry in base.iterdir()] == ["notes.txt"]


def test_the_configuration_is_written_so_that_it_can_be_read_back(tmp_path: Path) -> None:
    class Kind(Enum):
        SMALL = "small"

    config: dict[str, object] = {
        "data": Path("some/where"),
        "limit": None,
        "sizes": (1, 2),
        "kind": Kind.SMALL,
        "attack": {"steps": 10, "start": None},
        "text": 'a "quoted" \n line',
    }
    with run(config, tmp_path / "out"):
        text = (tmp_path / "out" / "config.toml").read_text()
    assert text.startswith('command = "train"\n')
    assert tomllib.loads(text) == {
        "command": "train",
        "data": "some/where",
        "sizes": [1, 2],
        "kind": "small",
        "attack": {"steps": 10},
        "text": 'a "quoted" \n line',
    }
    read = RunConfig.read(tmp_path / "out")
    assert read is not None
    assert read.changes_from(RunConfig.of("train", config)) == {}


def test_a_chosen_folder_with_another_configuration_is_refused_naming_every_difference(tmp_path: Path) -> None:
    with run({"lr": 0.1, "attack": {"steps": 10}, "ema": True}, tmp_path / "out"):
        pass
    before = (tmp_path / "out" / "config.toml").read_bytes()
    with (
        pytest.raises(UserError) as caught,
        run({"lr": 0.2, "attack": {"steps": 20}, "data": Path("x")}, tmp_path / "out"),
    ):
        pass
    for difference in ("lr: 0.1 -> 0.2", "attack.steps: 10 -> 20", "ema: true -> unset", 'data: unset -> "x"'):
        assert difference in str(caught.value)
    assert str(tmp_path / "out") in str(caught.value)
    assert (tmp_path / "out" / "config.toml").read_bytes() == before


def test_options_that_may_change_do_and_the_new_value_is_written(tmp_path: Path) -> None:
    with run({"lr": 0.1, "data": {"workers": 2}}, tmp_path / "out"):
        pass
    with run({"lr": 0.1, "data": {"workers": 4}}, tmp_path / "out", may_change=("data.workers",)):
        pass
    assert tomllib.loads((tmp_path / "out" / "config.toml").read_text())["data"] == {"workers": 4}


def test_a_default_folder_is_reused_when_only_what_may_change_has_changed() -> None:
    with run({"lr": 0.1, "workers": 4}) as first:
        pass
    with run({"lr": 0.1, "workers": 8}, may_change=("workers",)) as again:
        assert again.path == first.path


def test_the_same_run_started_twice_at_once_is_refused_and_takes_no_other_folder() -> None:
    with run() as first, pytest.raises(UserError, match="in use by another process"), run():
        pass
    assert [entry.name for entry in Path("runs", "train").iterdir()] == [first.path.name]


def test_a_chosen_folder_with_a_run_of_another_command_is_refused(tmp_path: Path) -> None:
    with run(out=tmp_path / "out"):
        pass
    with (
        pytest.raises(UserError, match="holds a run of `vtk train`, not of `vtk search`"),
        run(out=tmp_path / "out", command="search"),
    ):
        pass


@pytest.mark.parametrize("stranger", ["photo.jpg", "config.toml", "run.json"])
def test_a_chosen_folder_with_foreign_files_is_refused_and_left_alone(stranger: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / stranger).write_text("[tool]\nname = 1\n")
    with pytest.raises(UserError, match=f"holds no run of vtk .it holds {stranger}"), run(out=folder):
        pass
    assert [entry.name for entry in folder.iterdir()] == [stranger]


def test_a_chosen_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="is a file, not a folder"), run(out=tmp_path / "out"):
        pass


def test_an_empty_folder_and_one_of_a_run_killed_at_its_start_are_taken(tmp_path: Path) -> None:
    for leftovers in ((), (".lock", ".tmp-1.toml", "log.txt")):
        folder = tmp_path / f"out{len(leftovers)}"
        folder.mkdir()
        for name in leftovers:
            (folder / name).touch()
        with run(out=folder):
            assert not (folder / ".tmp-1.toml").exists()


def test_a_folder_that_holds_only_the_jobs_of_its_run_is_taken_and_they_are_left_alone(tmp_path: Path) -> None:
    jobs = tmp_path / "out" / "slurm"
    jobs.mkdir(parents=True)
    (jobs / ".tmp-1.json").touch()  # somebody else writes there
    with run(out=tmp_path / "out"):
        assert (jobs / ".tmp-1.json").exists()
    (tmp_path / "new" / "slurm").mkdir(parents=True)
    with pytest.raises(UserError, match="no such network"):
        refuse_inside(tmp_path / "new")
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["slurm"]


def test_a_second_process_is_refused_with_the_name_of_the_first_until_that_dies(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(
                UserError, match=rf"in use by another process \(process {holder.pid} on {socket.gethostname()}\)"
            ),
            run(out=out),
        ):
            pass
        assert (out / "checkpoints" / ".tmp-half.pt").exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with run(out=out):
        assert record(out)["history"][0]["status"] == "killed"
        assert [path.name for path in out.rglob(".tmp-*")] == []


def test_the_record_says_how_the_run_was_started(tmp_path: Path) -> None:
    with run(out=tmp_path / "out"):
        found = record(tmp_path / "out")
    assert found["status"] == "running"
    assert found["argv"] == sys.argv
    assert (found["host"], found["pid"]) == (socket.gethostname(), os.getpid())
    assert (found["seed"], found["device"], found["command"]) == (4, "cpu", "train")
    assert set(found["versions"]) == {"python", "vtk", "torch", "timm", "numpy"}
    assert all(found["versions"].values())
    assert datetime.fromisoformat(found["started"]).tzinfo is not None
    assert found["ended"] is None


def test_a_finished_run_has_its_summary_and_is_done(tmp_path: Path) -> None:
    with run(out=tmp_path / "out") as folder:
        folder.finish({"accuracy": 0.5})
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == {"accuracy": 0.5}
    found = record(tmp_path / "out")
    assert (found["status"], found["message"]) == ("done", None)
    assert datetime.fromisoformat(found["ended"]) >= datetime.fromisoformat(found["started"])


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (Preempted("stopped by SIGTERM"), "preempted", "stopped by SIGTERM"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (JobError("the loss is nan"), "failed", "the loss is nan"),
        (ZeroDivisionError(), "failed", "ZeroDivisionError"),
    ],
)
def test_a_run_left_by_an_error_says_how_it_ended(
    error: BaseException, status: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(type(error)), run(out=tmp_path / "out"):
        raise error
    found = record(tmp_path / "out")
    assert (found["status"], found["message"]) == (status, message)
    assert f"{status}: {message}" in (tmp_path / "out" / "log.txt").read_text()


def refuse_inside(out: Path | None, made: str | None = None) -> None:
    with run(out=out) as folder:
        if made is not None:
            (folder.path / made).touch()
        raise UserError("no such network")


def test_a_run_that_is_refused_at_its_start_leaves_nothing_behind(tmp_path: Path) -> None:
    for out in (None, tmp_path / "a" / "b" / "c"):
        with pytest.raises(UserError, match="no such network"):
            refuse_inside(out)
        assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_refused_leaves_the_folders_that_were_there_before(tmp_path: Path) -> None:
    (tmp_path / "mine" / "empty").mkdir(parents=True)
    with pytest.raises(UserError, match="no such network"):
        refuse_inside(tmp_path / "mine" / "empty")
    assert list((tmp_path / "mine" / "empty").iterdir()) == []


def test_a_run_that_is_refused_later_keeps_what_it_made_and_its_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such network"):
        refuse_inside(tmp_path / "out", "result.npy")
    assert record(tmp_path / "out")["status"] == "failed"
    with pytest.raises(UserError, match="no such network"):
        refuse_inside(tmp_path / "out")
    assert (tmp_path / "out" / "result.npy").exists()


def test_an_error_after_the_end_leaves_the_run_done(tmp_path: Path) -> None:
    def finish_and_fail() -> None:
        with run(out=tmp_path / "out") as folder:
            folder.finish({})
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        finish_and_fail()
    assert record(tmp_path / "out")["status"] == "done"


def test_every_sitting_of_a_run_stays_in_its_record(tmp_path: Path) -> None:
    for error in (Preempted("one"), JobError("two")):
        with pytest.raises(type(error)), run(out=tmp_path / "out"):
            raise error
    with run(out=tmp_path / "out"):
        pass
    found = record(tmp_path / "out")
    assert [sitting["status"] for sitting in found["history"]] == ["preempted", "failed"]
    assert found["status"] == "done"


def test_what_is_said_goes_to_the_log_while_the_run_lasts(tmp_path: Path) -> None:
    console = Console(quiet=True)
    with RunFolder.open("train", "x", config={}, out=tmp_path / "out", console=console, seed=0, device="cpu"):
        console.note("inside")
    console.note("outside")
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "note: inside" in log
    assert "outside" not in log


def test_a_full_disk_does_not_hide_the_first_error(tiny_disk: Path) -> None:
    def fill_and_fail() -> None:
        with run(out=tiny_disk / "out") as folder, (folder.path / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"\0" * 4096) == 4096:
                pass

    with pytest.raises(OSError, match="No space left"):
        fill_and_fail()
    assert record(tiny_disk / "out")["status"] == "running"


def test_a_folder_that_may_not_be_written_is_the_users_mistake(read_only_folder: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"), run(out=read_only_folder / "out"):
        pass


def test_a_follower_writes_nothing(tmp_path: Path) -> None:
    folder = RunFolder.follow(tmp_path / "out")
    folder.finish({"accuracy": 1.0})
    assert folder.checkpoints == tmp_path / "out" / "checkpoints"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "command = 3\n", "lr = 1\ncommand = 'x'\n", "command = [", "\xff"])
def test_a_foreign_configuration_is_none_of_ours(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(text.encode("latin-1"))
    assert RunConfig.read(tmp_path) is None


def test_one_and_true_and_one_point_zero_are_three_values() -> None:
    one, true, real = (RunConfig.of("train", {"a": value}) for value in (1, True, 1.0))
    assert one.changes_from(true) == {"a": ("true", "1")}
    assert one.changes_from(real) == {"a": ("1.0", "1")}


def test_a_folder_is_the_same_however_its_path_is_written(tmp_path: Path) -> None:
    for written in (Path("out"), Path("./out/../out"), tmp_path / "out"):
        with run({"lr": 0.1, "out": written}, written):
            pass
    assert len(record(tmp_path / "out")["history"]) == 2


@pytest.mark.parametrize("name", ["a" * 300, "/proc/none/of/ours"])
def test_a_folder_that_cannot_be_is_the_users_mistake(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can be"), run(out=tmp_path / name):
        pass
