"""Files that were torn, cut short, flipped or replaced by folders: passed over or made anew, never believed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.cases import held
from tests.engine.linear_trainings import line, train, weights
from tests.faults.forks import Forks
from tests.faults.trainings import TRAININGS, differing, leftovers
from vtk_cli.console import Console
from vtk_cli.engine.checkpoint import latest_checkpoint

Harm = Callable[[Path], None]
PLAN = {"epochs": 3, "ema_decay": 0.5, "checkpoint_steps": 1}
FLIPS, SEED = 32, 12


def cut_at(part: float) -> Harm:
    """Keep this part of it."""

    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])

    return cut


def flipped(part: float, bits: int) -> Harm:
    """Flip bits of the byte at this part of it."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(part * len(content))] ^= bits
        path.write_bytes(content)

    return flip


def folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").touch()


DRAW = random.Random(SEED)  # noqa: S311
HARMS: dict[str, list[Harm]] = {
    "cut short at every 1/16 of its length, to nothing too": [cut_at(part / 16) for part in range(16)],
    "a byte flipped at 32 places": [flipped(DRAW.random(), DRAW.randrange(1, 256)) for _ in range(FLIPS)],
    "a folder in its place": [folder_in_its_place],
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor, bytes]:
    """The checkpoints of a training in its last epoch but one; the weights and metrics of one that was left alone."""
    folder = tmp_path_factory.mktemp("stopped")
    train(line(), checkpoints=folder / "checkpoints", metrics=folder / "m.jsonl", plan={**PLAN, "epochs": 2})
    alone = train(line(), metrics=folder / "alone.jsonl", plan=PLAN)
    return folder / "checkpoints", weights(alone.model), (folder / "alone.jsonl").read_bytes()


@pytest.mark.parametrize("kind", HARMS)
@pytest.mark.parametrize("both", [False, True], ids=["the newest", "both"])
def test_a_damaged_checkpoint_changes_nothing_in_the_end(
    kind: str, both: bool, stopped: tuple[Path, torch.Tensor, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints, expected, metrics = stopped
    for number, harm in enumerate(HARMS[kind]):
        folder = tmp_path / str(number)
        shutil.copytree(checkpoints, folder)
        older, newest = sorted(folder.iterdir())
        harmed = (older, newest) if both else (newest,)
        for path in harmed:
            harm(path)
        capsys.readouterr()
        found = latest_checkpoint(folder, Console())
        assert (None if found is None else found[0]) == (None if both else 5)
        said = capsys.readouterr().err
        assert [said.count(f"warning: {path}: ") for path in harmed] == [1] * len(harmed)
        assert said.count("no checkpoint there is whole; starting from the beginning") == both
        result = train(line(), checkpoints=folder, metrics=tmp_path / "m.jsonl", plan=PLAN)
        assert torch.equal(weights(result.model), expected), number
        assert (tmp_path / "m.jsonl").read_bytes() == metrics
        assert [int(path.name[5:13]) for path in sorted(folder.iterdir())] == [8, 9]
        assert all(path.is_file() for path in folder.iterdir())
    which = "both checkpoints" if both else "the newest checkpoint"
    how = "starts from the beginning" if both else "goes on from the one before it"
    held("faults", f"{which}: {kind}", f"a warning; {how}, to the same bits", len(HARMS[kind]))


@pytest.mark.slow
def test_a_command_with_torn_records_loses_nothing(forks: Forks, tmp_path: Path) -> None:
    """One run after another goes on in a folder where something else is torn each time."""

    def words(out: str) -> list[str]:
        return TRAININGS["train"].command(tmp_path / out, tmp_path)

    assert forks.run(*words("alone")).code == 0
    shutil.copytree(tmp_path / "alone", tmp_path / "kept")
    run = tmp_path / "run"
    assert forks.run(*words("run"), hooks=[("save_often",), ("spoil_losses", ".*", 9)]).code == 1
    torn: list[tuple[str, str]] = [
        ("metrics.jsonl", '{"epoch": 1, "st'),
        ("run.json", '{"command": "train", "status": "fai'),
        ("run.json", ""),
        ("summary.json", '{"top1": 0.'),
        ("log.txt", "2026-01-01 00:0"),
    ]
    for name, content in torn:
        path = run / name
        path.write_text((path.read_text() if name in {"metrics.jsonl", "log.txt"} else "") + content)
        said = forks.run(*words("run"), hooks=[("spoil_losses", ".*", 9)])
        assert "is nan at step 9" in said.failure
        record = json.loads((run / "run.json").read_text())
        assert record["status"] == "failed"
        rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [4, 8]
        held("faults", f"{name} torn", "repaired: the run goes on", 1)
    for path in (run / "checkpoints").iterdir():
        cut_at(0.5)(path)
    said = forks.run(*words("run"))
    assert said.code == 0, said.err
    assert "no checkpoint there is whole; starting from the beginning" in said.err
    assert not differing(tmp_path / "alone", run)
    assert not leftovers(run)


@pytest.mark.slow
def test_a_torn_configuration_is_named_and_nothing_is_touched(forks: Forks, tmp_path: Path) -> None:
    """Nothing says any more that the folder is a run's, so it is not written to."""
    run = tmp_path / "run"
    words = TRAININGS["train"].command(run, tmp_path)
    assert forks.run(*words, hooks=[("save_often",), ("spoil_losses", ".*", 3)]).code == 1
    whole = (run / "config.toml").read_bytes()
    for content in ("", 'command = "tra', 'command = "train"\nepochs = "'):
        (run / "config.toml").write_text(content)
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        said = forks.run(*words)
        assert str(run) in said.complaint
        assert "config.toml" in said.complaint
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
        held("faults", "config.toml torn", "exit 2; the line names the folder and the file; nothing is touched")
    (run / "config.toml").write_bytes(whole)
    assert forks.run(*words).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detect train", "search run"])
def test_torn_entries_of_a_cache_are_made_anew(
    name: str, forks: Forks, data_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """Every file of the cache, and of the store of finished rows."""
    cache, store, data = tmp_path / "cache", tmp_path / "run-store", data_of(name)
    words = TRAININGS[name].command(tmp_path / "run", data)
    assert forks.run(*words, folder=data, cache=cache).code == 0
    (tmp_path / "run").rename(tmp_path / "alone")
    entries = [
        path for folder in (cache, store) for path in folder.rglob("*") if path.is_file() and path.stat().st_size
    ]
    assert entries
    before = {path: json.loads(path.read_bytes()) for path in entries}  # threads write theirs in any order
    for path in entries:
        cut_at(0.5)(path)
    said = forks.run(*words, folder=data, cache=cache)
    assert said.code == 0, said.err
    assert not differing(tmp_path / "alone", tmp_path / "run")
    assert [path for path in entries if json.loads(path.read_bytes()) != before[path]] == []
    assert not leftovers(tmp_path)
    held("faults", f"torn entries in the cache of `vtk {name}`", "made anew; the same result", len(entries))
