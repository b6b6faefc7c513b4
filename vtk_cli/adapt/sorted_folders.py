"""Labels given by sorting image files into class folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vtk_cli.adapt.labels import Given
from vtk_cli.adapt.manifest import Manifest, checksum
from vtk_cli.adapt.pool import Pool, pixel_bytes
from vtk_cli.data.image_layouts import is_image
from vtk_cli.data.images import BrokenImage, decode_image
from vtk_cli.data.walking import check_folder, read_folder, walk_files
from vtk_cli.errors import UserError


def write_images(folder: Path, pool: Pool, ids: Sequence[str]) -> None:
    """Put copies of images into `folder`, to be sorted: named by rank and file name, files byte for byte."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank, name in enumerate(ids, 1):
        if pool.root is None:
            pool.image(name).save(folder / f"{rank:04d}_{name.replace('/', '_')}.png")
        else:
            (folder / f"{rank:04d}_{PurePosixPath(name).name}").write_bytes(pool.content(pool.row_of[name]))


def read_sorted(folder: Path, pool: Pool, manifest: Manifest, asked: Sequence[str]) -> tuple[Given, ...]:
    """Take the subfolder in which an image lies as its label; images are known by their content, not their names.

    Args:
        folder: with subfolders called like classes, or `skip`, `bad`, `other`; images beside them have no label yet.
        pool: the target.
        manifest: its checksums.
        asked: which ids are meant where images are the same.

    Raises:
        UserError: there are no subfolders, or an image is none of the target.
    """
    check_folder(folder)
    subfolders = read_folder(folder).folders
    if not subfolders:
        raise UserError("has no class folders", str(folder), "sort the images into one folder a class")
    wanted = frozenset(asked)
    given: list[Given] = []
    for label in subfolders:
        for found in walk_files(folder, label, is_image):
            path = folder / found.path
            names = _known(path, pool, manifest)
            if not names:
                raise UserError(
                    "is no image of the target", str(path), "sort the files that were asked about, unchanged"
                )
            given += [Given(name, label, str(path)) for name in (sorted(wanted.intersection(names)) or names[:1])]
    return tuple(given)


def _known(path: Path, pool: Pool, manifest: Manifest) -> list[str]:
    """The ids of a file: of a pool in memory, of its pixels."""
    try:
        content = path.read_bytes() if pool.root is not None else pixel_bytes(decode_image(path))
    except (OSError, BrokenImage):
        return []
    return manifest.by_checksum.get(checksum(content), [])
