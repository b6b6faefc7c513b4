"""Videos that cannot be decoded, in trainings and tests of trainings: counted, named, never lost."""

from __future__ import annotations

import csv
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.video_pretrain.tiny_runs import SSL, SUPERVISED, Call, load
from vtk_cli.engine.update import Updater
from vtk_cli.errors import ExitCode


def listed(clips: Path, part: str, to: Path, broken: int) -> list[Path]:
    """Write the list of a part with broken videos at its end, and return those."""
    lines = [f"{clips / line}" for line in (clips / f"{part}.csv").read_text().splitlines()]
    bad = [to.with_name(f"{to.stem}-bad-{number}.mp4") for number in range(broken)]
    for path in bad:
        path.write_bytes(b"no video")
    to.write_text("\n".join([*lines, *(f"{path} 0" for path in bad)]) + "\n")
    return bad


def told(run: Path) -> set[str]:
    with (run / "bad_files.csv").open() as stream:
        return {row["path"] for row in csv.DictReader(stream)}


def test_a_broken_test_video_ends_a_training_with_an_error_once_all_is_saved(
    clips: Path, run: Call, tmp_path: Path
) -> None:
    bad = listed(clips, "val", tmp_path / "val.csv", 2)
    command = ["run", clips, "--val", "val.csv", *SUPERVISED, "--epochs", "1", "--out", "run"]
    code, _, err = run(*command)
    assert code == 2
    assert "the training is done and saved, but 2 of 10 test videos cannot be decoded" in err
    assert load(Path("run/summary.json"))["missing test videos"] == 2
    assert Path("run/report.html").is_file()
    assert told(Path("run")) == set(map(str, bad))
    assert run(*command, "--allow-missing")[0] == 0


def test_broken_videos_that_were_found_before_a_stop_are_named_at_the_end(
    clips: Path, run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = listed(clips, "train", tmp_path / "train.csv", 2)
    update, made = Updater.__call__, 0

    def stopping(*arguments: Any) -> None:
        nonlocal made
        made += 1
        if made == 4:  # the last of the epoch
            signal.raise_signal(signal.SIGTERM)
        update(*arguments)

    command = ["run", "train.csv", *SSL, "--epochs", "1", "--out", "run"]
    with monkeypatch.context() as patch:
        patch.setattr(Updater, "__call__", stopping)
        assert run(*command)[0] == ExitCode.PREEMPTED
    code, _, err = run(*command)
    assert code == 0, err
    assert "2 of 26 videos" in err
    assert load(Path("run/summary.json"))["broken videos"] == 2
    assert told(Path("run")) == set(map(str, bad))


def test_too_many_broken_videos_end_a_training(clips: Path, run: Call, tmp_path: Path) -> None:
    listed(clips, "train", tmp_path / "train.csv", 6)
    code, _, err = run("run", "train.csv", *SSL, "--epochs", "1")
    assert code == 2
    assert "more than 2 % of the videos are broken" in err
    assert "vtk data check" in err
