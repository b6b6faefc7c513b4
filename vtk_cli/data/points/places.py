"""Where the images lie that a labelling tool names: it may have seen them in another folder or on another machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vtk_cli.data.detection.sizes import SizeOf
from vtk_cli.data.images import BrokenImage
from vtk_cli.data.problems import Problem
from vtk_cli.data.walking import file_size, path_within


@dataclass(frozen=True)
class FoundImage:
    """An image and its width and height, upright."""

    file: Path
    size: tuple[int, int]


def find_image(
    folder: Path, names: list[str], where: str, size_of: SizeOf, listed: tuple[object, object] = (None, None)
) -> FoundImage | Problem:
    """The first of some names that is an image in `folder`, or what is wrong.

    Args:
        folder: that images must lie in or below.
        names: paths in it, most likely first; Windows' separators are understood.
        where: the entry, for the message.
        size_of: decodes an image.
        listed: its width and height as the tool has them; None where it does not say.
    """
    places = [path_within(folder, name.replace("\\", "/")) for name in names if name]
    place = next((place for place in places if place is not None and file_size(place) is not None), None)
    if place is None:
        return Problem(f"{where} ({names[0] if names else 'no name'}, images in {folder})", "image is missing")
    try:
        size = size_of(place)
    except BrokenImage as error:
        return Problem(f"{where} ({place}: {error.what})", "image does not decode")
    if any(given not in (None, found) for given, found in zip(listed, size, strict=True)):
        about = f"{place.name} is {size[0]}x{size[1]}, listed as {listed[0]}x{listed[1]}"
        return Problem(f"{where} ({about})", "image has another size than listed")
    return FoundImage(place, size)


def last_part(name: str) -> str:
    """The file name at the end of a path or address."""
    return name.replace("\\", "/").rpartition("/")[2]
