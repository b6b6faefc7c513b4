"""The folders of the benchmarks of domain adaptation: Office-31, Office-Home, VisDA-2017, DomainNet.

Each is a folder of domains, and a domain is a tree of class folders, in Office-31 below `images/`. Counts: Saenko et
al., ECCV 2010; Venkateswara et al., arXiv 1706.07522; Peng et al., arXiv 1710.06924 and 1812.01754.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from vtk_cli.data.walking import check_folder, read_folder
from vtk_cli.errors import UserError, nearest


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Args:
        name: as its paper calls it.
        classes: how many.
        domains: images by folder name, in lower case without blanks, `_` and `-`; None where releases differ.
    """

    name: str
    classes: int
    domains: Mapping[str, int | None]


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark("Office-31", 31, MappingProxyType({"amazon": 2817, "dslr": 498, "webcam": 795})),
    Benchmark("Office-Home", 65, MappingProxyType({"art": 2427, "clipart": 4365, "product": 4439, "realworld": 4357})),
    Benchmark("VisDA-2017", 12, MappingProxyType({"train": 152_397, "validation": 55_388, "test": 72_372})),
    Benchmark(
        "DomainNet",
        345,
        MappingProxyType(dict.fromkeys(("clipart", "infograph", "painting", "quickdraw", "real", "sketch"))),
    ),
)
_INNER = "images"


def domain_folder(path: Path) -> Path:
    """The folder of class folders that a user means: of Office-31's `amazon` it is `amazon/images`.

    Raises:
        UserError: there is no such folder, or it holds the domains of a benchmark, of which one is to be named.
    """
    if not path.exists() and path.parent.is_dir():
        siblings = read_folder(path.parent).folders
        raise UserError("no such folder", str(path), nearest(path.name, siblings))
    check_folder(path)
    content = read_folder(path)
    if content.folders == (_INNER,) and read_folder(path / _INNER).folders:
        return path / _INNER
    for benchmark in BENCHMARKS:
        found = [name for name in content.folders if _is_domain(benchmark, path / name)]
        if len(found) > 1:
            what = f"holds the domains {', '.join(found)} of {benchmark.name}"
            raise UserError(what, str(path), f"name one, e.g. {path / found[0]}")
    return path


def benchmark_note(path: Path, images: int, classes: int) -> str:
    """What is to be said of a benchmark's domain that is not whole; empty where there is nothing."""
    folder = path.parent if path.name == _INNER else path
    for one in BENCHMARKS:
        whole = one.domains.get(_plain(folder.name))
        if whole is not None and classes == one.classes and images != whole:
            return f"{path}: {images} images; {folder.name} of {one.name} has {whole}"
    return ""


def _is_domain(benchmark: Benchmark, folder: Path) -> bool:
    """Whether a folder is a domain and no class of that name, and of VisDA no part of somebody's own data."""
    if _plain(folder.name) not in benchmark.domains or not (inside := read_folder(folder)).folders:
        return False
    if benchmark.name != "VisDA-2017":
        return True
    return "aeroplane" in inside.folders or any(file.path == "image_list.txt" for file in inside.files)


def _plain(name: str) -> str:
    return name.lower().translate({ord(sign): None for sign in " _-"})
