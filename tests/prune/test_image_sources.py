"""The layouts of CelebA, CIFAR-10 and LSUN."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.prune.data import Splits, open_data
from vtk_cli.prune.image_sources import read_celeba

QUIET = Console(quiet=True)


def opened(root: Path, size: int = 32) -> Splits:
    return open_data(str(root), size=size, channels=3, console=QUIET)


def celeba(root: Path, folder: str = "img_align_celeba") -> list[tuple[str, int]]:
    (root / folder).mkdir(parents=True)
    rows = [(f"{number:06d}.jpg", part) for number, part in enumerate((0, 0, 0, 1, 1, 2, 2, 2, 0), start=1)]
    for name, _ in rows:
        Image.new("RGB", (178, 218), (90, 120, 30)).save(root / folder / name)
    return rows


@pytest.mark.parametrize("folder", ["img_align_celeba", "img_align_celeba/img_align_celeba"])
def test_celeba_is_split_by_its_list(tmp_path: Path, folder: str) -> None:
    rows = celeba(tmp_path, folder)
    lines = ["image_id,partition", *(f"{name},{part}" for name, part in rows)]
    (tmp_path / "list_eval_partition.csv").write_text("\n".join(lines) + "\n")
    splits = opened(tmp_path)
    assert splits.train.ids == ("000001.jpg", "000002.jpg", "000003.jpg", "000009.jpg")
    assert splits.held_out.ids == ("000006.jpg", "000007.jpg", "000008.jpg")
    assert splits.validation is not None
    assert splits.validation.ids == ("000004.jpg", "000005.jpg")
    assert next(iter(splits.train.batches(4))).shape == (4, 3, 32, 32)


def test_celebas_own_list_without_a_header_is_read_as_well(tmp_path: Path) -> None:
    rows = celeba(tmp_path)
    (tmp_path / "list_eval_partition.txt").write_text("".join(f"{name} {part}\n" for name, part in rows))
    assert len(opened(tmp_path).train) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [("000001.jpg,7", "where a file and a partition"), ("000099.jpg,0", "not in"), ("../../secret.jpg,0", "not in")],
)
def test_wrong_lines_of_celebas_list_are_refused(tmp_path: Path, line: str, message: str) -> None:
    celeba(tmp_path)
    path = tmp_path / "list_eval_partition.csv"
    path.write_text(f"image_id,partition\n000001.jpg,0\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_celeba(tmp_path, path)


def cifar(root: Path, count: int = 4) -> np.ndarray:
    root.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (6, count, 3072)).astype(np.uint8)
    for name, data in zip((*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"), images, strict=True):
        (root / name).write_bytes(
            pickle.dumps({"data": data, "labels": [0] * count, "filenames": ["a.png"]}, protocol=2)
        )
    return images.reshape(6, count, 3, 32, 32)


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py"])
def test_cifars_batches_are_read_as_they_are(tmp_path: Path, below: str) -> None:
    images = cifar(tmp_path / below)
    splits = opened(tmp_path)
    train, test = (torch.cat(list(part.batches(3))).numpy() for part in (splits.train, splits.held_out))
    np.testing.assert_array_equal(train, images[:5].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(test, images[5])


class _Calls:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("never"),)  # type: ignore[return-value]


def test_code_in_a_batch_of_cifar_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cifar(tmp_path)
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps({"data": _Calls()}))
    with pytest.raises(UserError, match=r"data_batch_2: is no batch of CIFAR-10 .*no part of an array"):
        opened(tmp_path)
    assert not (tmp_path / "never").exists()


def test_missing_and_torn_batches_of_cifar_are_named(tmp_path: Path) -> None:
    cifar(tmp_path)
    (tmp_path / "data_batch_3").write_bytes((tmp_path / "data_batch_3").read_bytes()[:500])
    with pytest.raises(UserError, match="data_batch_3: is no batch"):
        opened(tmp_path)
    cifar(tmp_path)
    (tmp_path / "test_batch").unlink()
    with pytest.raises(UserError, match="test_batch: this batch of CIFAR-10 is missing"):
        opened(tmp_path)


class _Database:
    """As much of lmdb as is used, on a dictionary."""

    def __init__(self, entries: dict[bytes, bytes]) -> None:
        self.entries = entries

    def begin(self) -> _Database:
        return self

    def __enter__(self) -> _Database:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def cursor(self) -> _Database:
        return self

    def iternext(self, *, values: bool) -> Iterator[bytes]:
        assert not values
        return iter(sorted(self.entries))

    def get(self, key: bytes) -> bytes:
        return self.entries[key]


def lsun(root: Path, monkeypatch: pytest.MonkeyPatch, entries: dict[bytes, bytes]) -> None:
    (root / "data.mdb").write_bytes(b"")
    module = ModuleType("lmdb")
    module.Error = OSError  # type: ignore[attr-defined]
    module.open = lambda *_, **options: _Database(entries) if options["readonly"] else None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lmdb", module)


def test_lsuns_databases_are_read_and_a_share_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {}
    for number in range(10):
        stream = io.BytesIO()
        Image.new("RGB", (64, 48), (number * 20, 0, 0)).save(stream, "webp", lossless=True)
        entries[f"{number:040x}".encode()] = stream.getvalue()
    lsun(tmp_path, monkeypatch, entries)
    splits = opened(tmp_path)
    assert (len(splits.train), len(splits.held_out)) == (8, 2)
    reds = torch.cat(list(splits.train.batches(3)))[:, 0, 16, 16].tolist()
    assert reds == [int(identity, 16) * 20 for identity in splits.train.ids]


def test_a_broken_image_of_lsun_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lsun(tmp_path, monkeypatch, {f"{number}".encode(): b"torn" for number in range(10)})
    with pytest.raises(UserError, match=r": \d: "):
        list(opened(tmp_path).train.batches(2))


def test_lsun_without_the_package_that_reads_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.mdb").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match="pip install lmdb"):
        opened(tmp_path)
