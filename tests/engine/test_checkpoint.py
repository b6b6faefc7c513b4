"""The newest whole checkpoint is found, whatever happened to the newest one."""

from __future__ import annotations

import hashlib
import io
import resource
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from vtk_cli.console import Console
from vtk_cli.engine.checkpoint import _HashingWriter, latest_checkpoint, save_checkpoint
from vtk_cli.errors import JobError, UserError
from vtk_cli.files import sha256_file


def state(step: int) -> dict[str, Any]:
    return {"weights": torch.arange(1000.0) + step, "nested": {"list": [1, 2.5, None, "text", (step, True)]}}


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A folder with checkpoints of steps 1 and 2."""
    return tmp_path, save_checkpoint(tmp_path, 1, state(1)), save_checkpoint(tmp_path, 2, state(2))


def found_step(folder: Path) -> int:
    found = latest_checkpoint(folder, Console())
    assert found is not None
    step, content = found
    assert torch.equal(content["weights"], state(step)["weights"])
    assert content["nested"] == state(step)["nested"]
    return step


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "absent", Console()) is None
    (tmp_path / "step-00000001.pt").write_bytes(b"of another program")
    (tmp_path / ".tmp-1234.pt").write_bytes(b"half a checkpoint")
    assert latest_checkpoint(tmp_path, Console()) is None


def test_the_newest_checkpoint_comes_back(two: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert found_step(two[0]) == 2
    assert capsys.readouterr().err == ""


def test_a_checkpoint_is_an_ordinary_torch_file_with_its_checksum_in_the_name(two: tuple[Path, Path, Path]) -> None:
    assert torch.load(two[2], weights_only=True)["nested"] == state(2)["nested"]
    assert two[2].name == f"step-00000002-{hashlib.sha256(two[2].read_bytes()).hexdigest()[:32]}.pt"


@pytest.mark.parametrize("part", [0.0, 0.0001, 0.3, 0.5, 0.9, 0.9999])
def test_a_truncated_checkpoint_is_passed_over_with_a_warning(
    part: float, two: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    content = two[2].read_bytes()
    two[2].write_bytes(content[: int(part * len(content))])
    assert found_step(two[0]) == 1
    assert f"warning: {two[2]}: damaged" in capsys.readouterr().err


@pytest.mark.parametrize("part", [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99999])
def test_a_checkpoint_with_one_flipped_bit_is_passed_over_with_a_warning(
    part: float, two: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(two[2].read_bytes())
    content[int(part * len(content))] ^= 0b00010000
    two[2].write_bytes(content)
    assert found_step(two[0]) == 1
    assert "damaged" in capsys.readouterr().err


def test_a_checkpoint_with_bytes_after_its_end_is_passed_over(two: tuple[Path, Path, Path]) -> None:
    with two[2].open("ab") as file:
        file.write(b"\0")
    assert found_step(two[0]) == 1


def test_when_all_are_damaged_there_is_none(two: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for path in two[1:]:
        path.write_bytes(b"")
    assert latest_checkpoint(two[0], Console()) is None
    assert capsys.readouterr().err.count("damaged (its checksum is another)") == 2


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(keep: int, tmp_path: Path) -> None:
    for step in (5, 10, 100_000_000, 200_000_000):
        save_checkpoint(tmp_path, step, state(step), keep)
    steps = sorted(int(path.name.split("-")[1]) for path in tmp_path.iterdir())
    assert steps == [5, 10, 100_000_000, 200_000_000][-keep:]
    assert found_step(tmp_path) == 200_000_000


def test_saving_after_going_back_removes_the_damaged_one_and_not_the_good_ones(two: tuple[Path, Path, Path]) -> None:
    folder, first, second = two
    damaged = save_checkpoint(folder, 7, state(7), keep=3)
    damaged.write_bytes(b"damaged")
    assert found_step(folder) == 2
    third = save_checkpoint(folder, 3, state(3), keep=3)
    assert set(folder.iterdir()) == {first, second, third}


def test_saving_a_step_again_replaces_it(two: tuple[Path, Path, Path]) -> None:
    again = save_checkpoint(two[0], 2, {"other": 1})
    assert set(two[0].iterdir()) == {two[1], again}


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"\x80\x02}q\x00.", [1, 2]], ids=["empty", "text", "pickle", "list"]
)
def test_a_file_that_is_no_checkpoint_but_has_its_own_checksum_is_an_error_in_one_line(
    content: bytes | list[int], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    if isinstance(content, bytes):
        made.write_bytes(content)
    else:
        torch.save(content, made)
    made.rename(tmp_path / f"step-00000001-{sha256_file(made)[:32]}.pt")
    with pytest.raises(JobError, match=r"step-00000001-\w+\.pt: (torch .* cannot read it|is no checkpoint)") as caught:
        latest_checkpoint(tmp_path, Console(quiet=True))
    assert len(str(caught.value).splitlines()) == 1


def test_a_whole_checkpoint_that_torch_cannot_read_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, state(1))
    save_checkpoint(tmp_path, 2, {"an object of a class": Fraction(1, 3)})
    with pytest.raises(JobError, match="cannot read it"):
        latest_checkpoint(tmp_path, Console())


def test_on_a_full_disk_the_earlier_checkpoint_stays_and_nothing_else(tiny_disk: Path) -> None:
    path = save_checkpoint(tiny_disk, 1, state(1))
    with pytest.raises(JobError, match="no space left"):
        save_checkpoint(tiny_disk, 2, {"weights": torch.zeros(1_000_000)})
    assert list(tiny_disk.iterdir()) == [path]
    assert found_step(tiny_disk) == 1


def test_at_a_file_size_limit_the_earlier_checkpoint_stays_and_nothing_else(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, state(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(JobError, match="no space left"):
            save_checkpoint(tmp_path, 2, {"weights": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_may_not_be_written_is_the_users_mistake(read_only_folder: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(read_only_folder, 1, state(1))


def test_what_torch_cannot_save_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, TypeError)):
        save_checkpoint(tmp_path, 1, {"generator": (number for number in range(3))})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pieces", [[100], [70_000], [5, 70_000, 66_000, 1, 70_000]])
def test_a_file_that_takes_a_part_of_what_is_written_gets_the_rest_too(pieces: list[int]) -> None:
    """As Linux does with more than 2 GB at once; large pieces are summed beside, small ones before, all in order."""

    class Reluctant(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(data[: 1 + len(data) // 3])

    file, content = Reluctant(), [bytes(torch.arange(size).to(torch.uint8).tolist()) for size in pieces]
    with ThreadPoolExecutor(1) as thread:
        writer = _HashingWriter(file, thread)
        assert [writer.write(piece) for piece in content] == pieces
    assert file.getvalue() == b"".join(content)
    assert writer.checksum() == hashlib.sha256(b"".join(content)).hexdigest()


def test_a_large_state_is_summed_as_its_file_is(tmp_path: Path) -> None:
    large = {"large": torch.arange(3e5), "small": [torch.ones(3)] * 5, "next": torch.ones(9**6)}
    saved = save_checkpoint(tmp_path, 1, large)
    assert sha256_file(saved).startswith(saved.stem.rpartition("-")[2])
    found = latest_checkpoint(tmp_path, Console())
    assert found is not None
    assert torch.equal(found[1]["large"], torch.arange(3e5))
