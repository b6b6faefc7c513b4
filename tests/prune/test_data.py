"""Real images: squares, splits, fingerprints."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.data.digits import load_glyphs
from vtk_cli.errors import UserError
from vtk_cli.prune.data import Pictures, Splits, hold_out, open_data, selection, signed

QUIET = Console(quiet=True)


def opened(name: str | Path, size: int = 16, channels: int = 3, **rest: object) -> Splits:
    return open_data(str(name), size=size, channels=channels, console=QUIET, **rest)  # type: ignore[arg-type]


def pixels(pictures: Pictures, size: int = 7) -> torch.Tensor:
    return torch.cat(list(pictures.batches(size)))


def folder_of(root: Path, count: int, *, below: str = "", start: int = 0) -> Path:
    """Images of one colour each: red tells the number."""
    (root / below).mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        Image.new("RGB", (20, 24), (number * 5, 7, 9)).save(root / below / f"{number:03d}.png")
    return root


def test_digits_have_their_fixed_split_and_the_values_of_torchs_interpolation() -> None:
    splits = opened("digits", channels=1)
    assert (len(splits.train), len(splits.held_out)) == (1437, 360)
    assert not set(splits.train.ids) & set(splits.held_out.ids)
    ink = torch.from_numpy(load_glyphs("val").ink)[:, None]
    expected = F.interpolate(ink, size=16, mode="bilinear", align_corners=False) * 255
    found = pixels(splits.held_out, 100)
    assert found.shape == (360, 1, 16, 16)
    assert (found - expected).abs().max() <= 0.5 + 1e-6
    coloured = pixels(opened("digits").held_out.part("some", range(5)))
    assert torch.equal(coloured, found[:5].expand(-1, 3, -1, -1))


def test_images_are_found_at_any_depth_and_in_any_format(tmp_path: Path) -> None:
    folder_of(tmp_path, 3)
    folder_of(tmp_path, 4, below="00000/deep", start=3)
    Image.new("L", (30, 18), 200).save(tmp_path / "grey.webp")
    Image.new("RGBA", (30, 18), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (30, 18), (10, 20, 30)).save(tmp_path / "photo.JPG")
    (tmp_path / "notes.txt").write_text("no image")
    splits = opened(tmp_path)
    every = {*splits.train.ids, *splits.held_out.ids}
    assert every == {f"{n:03d}.png" for n in range(3)} | {f"00000/deep/{n:03d}.png" for n in range(3, 7)} | {
        "grey.webp",
        "clear.png",
        "photo.JPG",
    }
    assert len(splits.held_out) == 2
    shown: dict[str, torch.Tensor] = {}
    for part in (splits.train, splits.held_out):
        shown |= dict(zip(part.ids, pixels(part), strict=True))
    assert (shown["clear.png"] == 255).all()  # what is transparent lies on white
    assert shown["00000/deep/006.png"][:, 8, 8].tolist() == [30, 7, 9]


def test_the_shorter_side_is_scaled_and_the_centre_cut_out(tmp_path: Path) -> None:
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 32:64] = 255
    for name in ("a", "b", "c", "d"):
        Image.fromarray(wide).save(tmp_path / f"{name}.png")
    found = pixels(opened(tmp_path, holdout=0.5).train)
    assert found.shape == (2, 3, 16, 16)
    assert (found[..., 2:-2] == 255).all()


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    found = pixels(opened(folder_of(tmp_path, 6), channels=1, holdout=0.4).train)
    assert found.shape == (4, 1, 16, 16)


def test_batches_of_any_size_hold_the_same_images_in_the_same_order(tmp_path: Path) -> None:
    train = opened(folder_of(tmp_path, 20)).train
    assert torch.equal(pixels(train, 3), pixels(train, 100))
    assert [len(batch) for batch in train.batches(5)] == [5, 5, 5, 1]


def test_what_is_held_out_depends_on_names_and_seed_alone(tmp_path: Path) -> None:
    folder_of(tmp_path, 40)
    one, again, other = (opened(tmp_path, seed=seed) for seed in (0, 0, 1))
    assert one.held_out.ids == again.held_out.ids
    assert one.held_out.ids != other.held_out.ids
    assert len(one.held_out) == 8
    assert sorted((*one.train.ids, *one.held_out.ids)) == [f"{n:03d}.png" for n in range(40)]
    folder_of(tmp_path, 5, start=40)
    more = opened(tmp_path, holdout=8 / 45)
    assert len(set(more.held_out.ids) & set(one.held_out.ids)) >= 8 - 5


def test_train_and_val_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    folder_of(tmp_path, 5, below="train/x")
    folder_of(tmp_path, 3, below="test/x", start=5)
    splits = opened(tmp_path)
    assert (splits.train.ids, splits.held_out.ids) == (
        tuple(f"x/{n:03d}.png" for n in range(5)),
        tuple(f"x/{n:03d}.png" for n in range(5, 8)),
    )


def test_other_images_can_be_measured_on_and_none_is_held_out_then(tmp_path: Path) -> None:
    train, other = folder_of(tmp_path / "a", 6), folder_of(tmp_path / "b", 4)
    splits = opened(train, eval_data=str(other))
    assert (len(splits.train), len(splits.held_out)) == (6, 4)


def test_measuring_on_the_images_that_are_searched_on_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of(tmp_path, 6)
    opened(tmp_path, eval_data=str(tmp_path))
    assert "both searched and measured on" in " ".join(capsys.readouterr().err.split())


def test_a_fingerprint_follows_the_content_and_the_size(tmp_path: Path) -> None:
    for number in range(10):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / f"{number}.bmp")
    before = opened(tmp_path).train.fingerprint
    assert before == opened(tmp_path).train.fingerprint
    assert before != opened(tmp_path, size=32).train.fingerprint
    assert before != opened(tmp_path, channels=1).train.fingerprint
    file = tmp_path / opened(tmp_path).train.ids[0]
    status = file.stat()
    Image.new("RGB", (20, 20), (0, 99, 0)).save(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size
    assert before != opened(tmp_path).train.fingerprint


def test_selection_and_report_share_no_image(tmp_path: Path) -> None:
    splits = opened(folder_of(tmp_path, 40), holdout=0.5)
    validation, test = selection(splits, seed=0)
    assert sorted((*validation.ids, *test.ids)) == list(splits.held_out.ids)
    assert len(validation) == len(test) == 10
    assert selection(splits, seed=1)[0].ids != validation.ids


def test_signed_images_lie_between_minus_one_and_one() -> None:
    assert signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_a_broken_image_is_left_out_and_many_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of(tmp_path, 10)
    (tmp_path / "004.png").write_bytes(b"torn")
    splits = opened(tmp_path)
    assert "004.png" not in {*splits.train.ids, *splits.held_out.ids}
    assert "004.png" in capsys.readouterr().err
    for number in (5, 6):
        (tmp_path / f"{number:03d}.png").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"3 of 10 images cannot be read, first 004\.png"):
        opened(tmp_path)


def test_folders_without_enough_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        opened(tmp_path / "missing")
    with pytest.raises(UserError, match="no images"):
        opened(tmp_path)
    folder_of(tmp_path, 1)
    with pytest.raises(UserError, match="at least 2 are needed"):
        opened(tmp_path)
    folder_of(tmp_path, 5)
    with pytest.raises(UserError, match=r"1 image\(s\) are too few for the statistics"):
        opened(tmp_path)  # a fifth of five is one
    assert len(opened(tmp_path, holdout=0.4).held_out) == 2


@pytest.mark.parametrize("size", [8, 17, 48, 0])
def test_sizes_that_no_generator_makes_are_refused(size: int) -> None:
    with pytest.raises(UserError, match="power of two, at least 16"):
        opened("digits", size=size)


def test_shares_and_channels_out_of_range_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, 5)
    for share in (0.0, 1.0, -0.1):
        with pytest.raises(UserError, match="--holdout"):
            opened(tmp_path, holdout=share)
    with pytest.raises(UserError, match="1 or 3 channels, not 4"):
        opened("digits", channels=4)


def test_holding_out_keeps_the_readers_images_with_their_names(tmp_path: Path) -> None:
    splits = opened(folder_of(tmp_path, 30))
    left, right = hold_out(splits.train, 0.5, seed=9)
    for part in (left, right):
        reds = pixels(part)[:, 0, 8, 8].tolist()
        assert reds == [int(identity[:3]) * 5 for identity in part.ids]
