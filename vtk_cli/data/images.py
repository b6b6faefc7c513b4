"""The user's image folders: found, labelled, decoded, and what cannot be decoded named.

Layouts are those of `image_layouts`. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vtk_cli.console import Console
from vtk_cli.data.image_layouts import EXTENSIONS, Layout, evaluated_part, read_layout, unlabelled_images
from vtk_cli.data.walking import check_folder
from vtk_cli.errors import UserError
from vtk_cli.files import content_key

Labels = Literal["folders", "agree"]
BROKEN_SHARE = 0.01
"""The share of images that may be broken; one always may."""
NAMED = 5
"""How many of many offenders an error names."""
DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,  # Pillow's word for a broken PNG
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on bytes that are no image."""
_SINCE_PILLOW_11_3 = ("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "DIB", "TIFF", "WEBP", "GIF", "JPEG2000", *_SINCE_PILLOW_11_3)
"""What a file may be, whatever its name says. Not among them: what Pillow hands to another program (EPS to
Ghostscript), and what hardly anyone reads, so that hardly anyone has looked for holes in its reader."""
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of images that are large, but are read
_LARGE = 2**25
"""Pixels from which on one image is decoded at a time in a process: each may take 2 GB."""
_ONE_LARGE = threading.Lock()
_STRIP = 2**22
"""Pixels that are laid on white at a time."""
_ON_THEIR_SIDE = (5, 6, 7, 8)
"""EXIF's orientations in which width and height change places."""


class BrokenImage(UserError):
    """An image that cannot be decoded: `where` is the file, `what` the reason."""


@dataclass(frozen=True, eq=False)
class ImageList:
    """Images of a folder.

    Args:
        root: the folder that the paths are relative to.
        paths: relative, with `/` between, sorted.
        sizes: of the files, in bytes; -1 for a dead link.
        labels: int64 (N,), or None when unlabelled.
        class_names: by label, or None when the layout names no classes.
    """

    root: Path
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    labels: npt.NDArray[np.int64] | None
    class_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def fingerprint(self) -> str:
        """A content key over paths, sizes and labels: another list, another key."""
        labels = None if self.labels is None else self.labels.tolist()
        return content_key({"paths": self.paths, "sizes": self.sizes, "labels": labels})

    def file(self, index: int) -> Path:
        """Where image `index` lies."""
        return self.root / self.paths[index]

    def subset(self, indices: Sequence[int]) -> ImageList:
        """The images at `indices`, in ascending order."""
        kept = sorted(indices)
        return ImageList(
            self.root,
            tuple(self.paths[index] for index in kept),
            tuple(self.sizes[index] for index in kept),
            None if self.labels is None else self.labels[kept],
            self.class_names,
        )


def open_images(
    path: Path,
    *,
    labels: Labels = "folders",
    class_map: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ImageList:
    """Find the images of the folder `path`; nothing is decoded.

    Args:
        path: the folder, in one of the layouts of `image_layouts`.
        labels: `folders` takes them from the layout; `agree` has none (the images at any depth, whatever the layout).
        class_map: a JSON file {class folder: label} in place of the sorted order of the class folders.
        limit: keep so many, drawn by `seed`: as many of each class as of any other, where it has them. A smaller limit
            keeps a part of what a larger one keeps; the order of the files on disk plays no role.
        seed: of the draw.

    Raises:
        UserError: no such folder, no images, no labels in it, or a wrong `val.txt`, class map or limit.
    """
    if limit is not None and limit < 1:
        raise UserError(f"a limit of {limit} images is out of range", fix="give at least 1")
    if labels == "agree" and class_map is not None:
        raise UserError("labels that the models agree on take no class map", str(class_map))
    layout = _unlabelled(path) if labels == "agree" else read_layout(path, class_map)
    if layout.problems:
        first = layout.problems[0]
        more = f" (and {len(layout.problems) - 1} more)" if len(layout.problems) > 1 else ""
        raise UserError(first.what + more, first.where, f"see all with vtk data check {path}")
    if not layout.images:
        raise UserError(f"no images in {layout.root}", fix=f"supported: {' '.join(EXTENSIONS)}")
    images = layout.images
    if labels == "folders" and images[0].label is None:
        raise UserError(
            "no labels: there are no class folders",
            str(layout.root),
            "put the images in one folder a class, add a val.txt with a line `file index` each, or use labels that"
            " the models agree on (agree)",
        )
    listed = ImageList(
        layout.root,
        tuple(image.path for image in images),
        tuple(image.size for image in images),
        None if labels == "agree" else np.array([image.label for image in images], np.int64),
        layout.class_names,
    )
    return listed if limit is None else listed.subset(_drawn(listed, limit, seed))


def decode_image(path: Path) -> Image.Image:
    """Read an image as upright 8-bit RGB.

    The EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled to 8 bits; of several frames
    the first is taken.

    Raises:
        BrokenImage: it is missing, no image, truncated, too large to be meant (Pillow's decompression bomb limit,
            about 179 megapixels), or of a kind whose range is not known (floating point, 32 bits).
    """
    with (
        _broken_if_unreadable(path),
        Image.open(path, formats=FORMATS) as opened,
        _ONE_LARGE if opened.width * opened.height > _LARGE else nullcontext(),
    ):
        opened.load()
        return upright_rgb(opened)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height that `decode_image` would give, in pixels; of most formats only the header is read.

    Raises:
        BrokenImage: it is missing, or no image.
    """
    with _broken_if_unreadable(path), Image.open(path, formats=FORMATS) as opened:
        if opened.format != "TIFF":  # whose size Pillow may have turned by itself
            width, height = opened.size
            on_its_side = opened.getexif().get(ExifTags.Base.Orientation, 1) in _ON_THEIR_SIDE
            return (height, width) if on_its_side else (width, height)
    return decode_image(path).size


def upright_rgb(opened: Image.Image) -> Image.Image:
    """An opened image as `decode_image` returns it; `opened` itself where nothing is to be changed.

    Raises:
        ValueError: the range of its values is not known.
    """
    turned = opened.getexif().get(ExifTags.Base.Orientation, 1) != 1
    image = ImageOps.exif_transpose(opened) if turned else opened
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("grey values of 32 bits: their range is not known")
        values = values.astype(np.uint32)  # 65535 x 255 fits
        values *= 255
        values += 32767
        values //= 65535
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("grey values in floating point: their range is not known")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """A transparent image as RGB; strip by strip, for the whole of a large one would be in memory five times."""
    rows, laid = max(1, _STRIP // image.width), Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        strip = image.crop(box).convert("RGBA")
        laid.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), box)
    return laid


def scan(images: ImageList, console: Console) -> tuple[ImageList, tuple[tuple[str, str], ...]]:
    """Decode every image once: those that can be, and (path, reason) of those that cannot, each named in a warning.

    Raises:
        UserError: more than one, and more than 1 %, of the images are broken, or none is left.
    """
    reason_of = dict(broken_images([images.file(index) for index in range(len(images))], console))
    broken = tuple((path, reason_of[images.root / path]) for path in images.paths if images.root / path in reason_of)
    if len(broken) > max(1, int(BROKEN_SHARE * len(images))) or len(broken) == len(images):
        named = ", ".join(f"{path} ({reason})" for path, reason in broken[:NAMED])
        raise UserError(
            f"{len(broken)} of {len(images)} images cannot be read, first {named}",
            str(images.root),
            "replace or remove them",
        )
    for path, reason in broken:
        console.warn(f"{images.root / path}: {reason}; skipped")
    return images.subset([index for index in range(len(images)) if images.file(index) not in reason_of]), broken


@contextmanager
def _broken_if_unreadable(path: Path) -> Iterator[None]:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise BrokenImage("is no file of bytes", str(path))
        yield
    except FileNotFoundError as error:
        raise BrokenImage("no such file", str(path)) from error
    except UnidentifiedImageError as error:
        raise BrokenImage("not an image" if path.stat().st_size else "empty file", str(path)) from error
    except DECODE_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BrokenImage(reason, str(path)) from error


def broken_images(files: Sequence[Path], console: Console) -> list[tuple[Path, str]]:
    """Decode every file once: those that cannot be, each with the reason."""
    with (
        console.progress("reading images", len(files)) as progress,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        broken = []
        for file, reason in zip(files, pool.map(_why_broken, files), strict=True):
            if reason is not None:
                broken.append((file, reason))
            progress.advance()
        return broken


def _unlabelled(path: Path) -> Layout:
    check_folder(path)
    root = evaluated_part(path)
    return Layout(root, unlabelled_images(root))


def _drawn(images: ImageList, limit: int, seed: int) -> list[int]:
    """Indices of `limit` images: every class gives its first before any gives its second, in an order set by `seed`."""

    def chance(word: str) -> bytes:
        return hashlib.sha256(f"{seed}:{word}".encode("utf-8", "surrogateescape")).digest()

    labels = [0] * len(images) if images.labels is None else images.labels.tolist()
    given: Counter[int] = Counter()
    turns: list[tuple[int, bytes, int]] = []
    for index in sorted(range(len(images)), key=lambda index: chance(f"image {images.paths[index]}")):
        label = labels[index]
        turns.append((given[label], chance(f"class {label}"), index))
        given[label] += 1
    return [index for _, _, index in sorted(turns)[:limit]]


def _why_broken(path: Path) -> str | None:
    try:
        decode_image(path)
    except BrokenImage as error:
        return error.what
    return None
