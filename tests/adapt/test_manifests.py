from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.adapt.drawn_domains import draw_images
from vtk_cli.adapt.manifest import (
    make_manifest,
    read_manifest,
    require_same_contents,
    require_same_files,
    shared_images,
    write_manifest,
)
from vtk_cli.adapt.pool import Pool, files_pool
from vtk_cli.console import Console
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)
NAMES = ("a,1.png", "b.png", "c.png", "d.png", "e.png")


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return files_pool("t", draw_images(tmp_path / "t", NAMES), NAMES)


def test_a_manifest_survives_its_file(pool: Pool, tmp_path: Path) -> None:
    manifest = make_manifest(pool, QUIET)
    write_manifest(tmp_path / "manifest.csv", manifest)
    again = read_manifest(tmp_path / "manifest.csv")
    assert again == manifest
    assert again.sha1 == manifest.sha1
    assert (tmp_path / "manifest.csv").read_text().splitlines()[0] == "sample_id,size,sha1_16"
    require_same_contents(again, pool, QUIET)


def test_a_missing_image_and_one_of_another_size_are_noticed_without_reading_all(pool: Pool) -> None:
    manifest = make_manifest(pool, QUIET)
    assert pool.root is not None
    with pytest.raises(UserError, match=r"1 target images are missing since the run began, first c\.png"):
        require_same_files(manifest, pool.only([name for name in NAMES if name != "c.png"]))
    (pool.root / "b.png").write_bytes(b"more")
    with pytest.raises(UserError, match=r"1 target images have changed since the run began, first b\.png"):
        require_same_files(manifest, pool)


def test_a_change_that_keeps_the_size_is_noticed_by_the_checksum(pool: Pool) -> None:
    manifest = make_manifest(pool, QUIET)
    assert pool.root is not None
    for name in NAMES[:4]:
        content = bytearray((pool.root / name).read_bytes())
        content[-1] ^= 1
        (pool.root / name).write_bytes(content)
    require_same_files(manifest, pool)
    with pytest.raises(
        UserError, match=r"4 target images have changed since the run began, first a,1\.png, b\.png, c\.png;"
    ):
        require_same_contents(manifest, pool, QUIET)


def test_new_images_in_the_folder_do_not_matter(pool: Pool, tmp_path: Path) -> None:
    manifest = make_manifest(pool.only(NAMES[:3]), QUIET)
    require_same_contents(manifest, pool, QUIET)


def test_images_that_are_in_two_sets_are_found_by_their_content(pool: Pool) -> None:
    manifest = make_manifest(pool, QUIET)
    assert shared_images(manifest, [pool.content(3), b"other"]) == ["d.png"]


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("sample_id,size\na.png,3\n")
    with pytest.raises(UserError, match=r"manifest\.csv: is no manifest"):
        read_manifest(tmp_path / "manifest.csv")
    with pytest.raises(UserError, match="is no manifest"):
        read_manifest(tmp_path / "none.csv")


def test_images_of_a_pool_are_read_by_id(pool: Pool) -> None:
    assert pool.root is not None
    some = pool.only(["d.png", "b.png"])
    assert some.ids == ("b.png", "d.png")
    with Image.open(pool.root / "d.png") as expected:
        assert some.image("d.png").tobytes() == expected.convert("RGB").tobytes()
    assert some.content(1) == (pool.root / "d.png").read_bytes()
    assert some.rows(["d.png", "b.png"]) == [1, 0]
