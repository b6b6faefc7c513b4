"""Image files that mean harm, and odd ones that mean well, by name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, rows: int | None = None) -> bytes:
    """A PNG of zeros: 60,000 x 60,000 pixels are 10 GB in 10 MB.

    Args:
        width, height: as its header has them.
        depth, colour: as PNG numbers them; colour 0 is grey, 2 RGB, 6 RGBA.
        rows: how many are there; None for all.
    """
    channels = {0: 1, 2: 3, 6: 4}[colour]
    row = bytes(1 + width * channels * depth // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _tiff() -> bytes:
    """Its one strip has 2^32 - 1 bytes, it says."""
    entries = [(256, 4, 10**4), (257, 4, 10**4), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    entries += [(278, 4, 10**4), (279, 4, 2**32 - 1)]
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)


def _jpeg() -> bytes:
    stream = BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(content)


def _gif() -> bytes:
    """Its screen has 65,500 x 65,500 pixels and 10,000 frames of one."""
    stream = BytesIO()
    Image.new("P", (1, 1)).save(stream, "GIF")
    one = stream.getvalue()
    frame = one[one.index(b",", 13 + 6) : -1]
    return one[:6] + struct.pack("<HH", 65500, 65500) + one[10 : one.index(b",", 13 + 6)] + frame * 10**4 + b";"


def _text_bomb() -> bytes:
    """A PNG whose text unpacks to 1 GiB."""
    good = png(4, 4)
    piece = 2**24
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(piece)) for _ in range(2**28 // piece)) + packer.flush()
    data = b"Comment\0\0" + packed
    text = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return good[:33] + text + good[33:]


_EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n"
    b"(%pipe%touch it-ran) (w) file\nshowpage\n%%EOF\n"
)

HOSTILE: Mapping[str, Callable[[], bytes]] = {
    "a PNG of 60,000 x 60,000": lambda: png(60_000, 60_000, rows=3000),
    "a PNG of 2^31 x 2^31": lambda: png(2**31 - 1, 2**31 - 1, colour=0, depth=1, rows=0),
    "a PNG with a text of 256 MiB": _text_bomb,
    "a JPEG of 65,500 x 65,500": _jpeg,
    "a TIFF with a strip of 4 GiB": _tiff,
    "a GIF of 65,500 x 65,500 and 10,000 frames": _gif,
    "half a PNG": lambda: png(64, 64)[:60],
    "an empty file": lambda: b"",
    "zeros": lambda: bytes(10**5),
    "an SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "a PDF": lambda: b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
    "a PostScript program": lambda: _EPS,
}


def _sample() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (40, 32, 3), dtype=np.uint8))


def _saved(image: Image.Image, kind: str, **how: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **how)  # type: ignore[arg-type]
    return stream.getvalue()


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved(_sample(), "JPEG", exif=exif)


ODD: Mapping[str, Callable[[], bytes]] = {
    "CMYK": lambda: _saved(_sample().convert("CMYK"), "JPEG"),
    "16 bits": lambda: _saved(Image.fromarray(np.arange(1280, dtype=np.uint16).reshape(40, 32)), "PNG"),
    "a palette": lambda: _saved(_sample().quantize(16), "PNG"),
    "transparency": lambda: _saved(_sample().convert("RGBA"), "PNG"),
    "a photo on its side": _turned,
    "a profile of noise": lambda: _saved(_sample(), "JPEG", icc_profile=bytes(range(256)) * 8),
    "a GIF in its place": lambda: _saved(_sample(), "GIF"),
    "one pixel": lambda: _saved(Image.new("RGB", (1, 1)), "PNG"),
}


def write(folder: Path, name: str, content: bytes) -> Path:
    """A file, whatever its suffix promises."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name
