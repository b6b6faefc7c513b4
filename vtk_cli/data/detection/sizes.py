"""The sizes of a dataset's images: each is decoded once, and remembered until it changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vtk_cli.data.images import decode_image
from vtk_cli.files import cache_folder, content_key, lock, write_text

Size = tuple[int, int]
SizeOf = Callable[[Path], Size]


@contextmanager
def remembered_sizes(root: Path) -> Iterator[SizeOf]:
    """Yield a function that gives the (width, height) of an image as it decodes, upright.

    Opening a dataset decodes every image, so that a broken one stops a job before it starts; the sizes of the good
    ones are kept in the cache with their bytes and time of change, so that this takes time once. Processes that open
    the same dataset wait for the first. The function may be called from threads; it raises `BrokenImage`.

    Args:
        root: of the dataset; what is remembered is kept by it.
    """
    file = cache_folder() / "detection" / f"sizes-{content_key(str(root.absolute()))}.json"
    with lock(file.with_suffix(".lock")):
        known = _read(file)
        seen: dict[str, list[int]] = {}

        def size_of(path: Path) -> Size:
            name = str(path)
            try:
                status = path.stat()
            except OSError:
                return decode_image(path).size  # raises, with the reason
            mark = [status.st_size, status.st_mtime_ns]
            before = known.get(name)
            if before is not None and before[:2] == mark:
                seen[name] = before
            else:
                seen[name] = [*mark, *decode_image(path).size]
            return seen[name][2], seen[name][3]

        yield size_of
        if any(known.get(name) != row for name, row in seen.items()):
            write_text(file, json.dumps(known | seen))


def _read(file: Path) -> dict[str, list[int]]:
    """What was remembered; nothing where it was torn."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        whole = all(len(row) == 4 and all(type(value) is int for value in row) for row in known.values())
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return known if whole else {}
