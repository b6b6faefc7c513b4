"""Reads ImageNet-AB: one XML file an image, in `train_xml/<wnid>/` or `Annotations/<split>/train_enriched/<wnid>/`.

Each `<metadata>` of a file is what one annotator did on the image's thumbnail (arXiv 2303.17595, Section 3). Its clicks
(`selectedRecord`) count where the image was left `selected`; their places are fractions of the whole image. Boxes of
ILSVRC (`object/bndbox`) are read where there are any.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from xml.etree import ElementTree as ET

from vtk_cli.console import Progress
from vtk_cli.data.byproducts.marks import NOT_SELECTED, OWN_LABEL, Collected, Read, joined
from vtk_cli.data.byproducts.places import fractions_of, is_true, number
from vtk_cli.data.plain_xml import read_xml
from vtk_cli.errors import UserError, VtkError

LARGEST_FILE = 1 << 24
"""Bytes; an XML file of the dataset has a few thousand."""
ENOUGH_FOR_PROCESSES = 50_000
"""With fewer files than this, starting processes takes longer than reading them."""
_CHUNK = 1000


def read_imagenet_ab(root: Path, files: Sequence[str], progress: Progress) -> Read:
    """Read the XML `files`, paths relative to `root`.

    Raises:
        UserError: files that are no XML, the first of them with its line.
    """
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    parts: list[Read] = []
    wrong: list[str] = []

    def take(part: Read, faults: list[str], count: int) -> None:
        parts.append(part)
        wrong.extend(faults)
        progress.advance(count)

    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(files) < ENOUGH_FOR_PROCESSES or workers == 1:
        for chunk in chunks:
            take(*read_files(root, chunk), len(chunk))
    else:
        # Started afresh, not forked: the process may hold threads and an accelerator by now.
        # Ctrl-C reaches them too; the main process ends them.
        ignored = (signal.SIGINT, signal.SIG_IGN)
        with ProcessPoolExecutor(workers, get_context("spawn"), signal.signal, ignored) as pool:
            results = pool.map(read_files, [root] * len(chunks), chunks)
            for chunk, result in zip(chunks, results, strict=True):
                take(*result, len(chunk))
    if wrong:
        more = f" (and {len(wrong) - 1} more such files)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0]}{more}", "--byproducts", "mend or remove the file")
    return joined(parts)


def read_files(root: Path, files: Sequence[str]) -> tuple[Read, list[str]]:
    """Read some of the files: what they hold, and what is wrong with those that are no XML."""
    collected, wrong = Collected(), []
    for file in files:
        try:
            _read_annotation(collected, _name(file), read_xml(root / file, LARGEST_FILE))
        except VtkError as error:
            wrong.append(str(error))
    return Read.of(collected), wrong


def _name(file: str) -> str:
    """`n01440764/n01440764_10026`: the class folder and the stem, whatever lies above."""
    return "/".join(file.split("/")[-2:]).rpartition(".")[0]


def _read_annotation(collected: Collected, name: str, annotation: ET.Element) -> None:
    image = collected.image(name)
    for block, metadata in enumerate(annotation.iterfind("metadata")):
        trace = _places(collected, metadata, "mouseTracking")
        collected.add_trace([x for x, _ in trace], [y for _, y in trace])
        if not is_true(metadata.findtext("selected")):
            collected.skip(NOT_SELECTED)
            continue
        clicks = _places(collected, metadata, "selectedRecord")
        if not clicks:
            collected.skip("selections without a recorded place")
        for click in clicks:
            collected.add("clicks", image, click, block=block)
        if trace:
            collected.add("trace-end", image, trace[-1], block=block)
    _read_boxes(collected, image, name.partition("/")[0], annotation)


def _places(collected: Collected, metadata: ET.Element, tag: str) -> list[tuple[float, float]]:
    places = []
    for record in metadata.iterfind(tag):
        x, y = number(record.findtext("x")), number(record.findtext("y"))
        if x is not None and y is not None:
            places.append((x, y))
        elif len(record):  # `<mouseTracking>None</mouseTracking>` is how the dataset writes that there is none
            collected.skip("records whose place is not two numbers")
    return places


def _read_boxes(collected: Collected, image: int, folder: str, annotation: ET.Element) -> None:
    width, height = (number(annotation.findtext(f"size/{side}")) for side in ("width", "height"))
    for thing in annotation.iterfind("object"):
        corners = [number(thing.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
        box = fractions_of(corners, width, height)
        if box is None:
            collected.skip("boxes without an area inside the image")
            continue
        name = (thing.findtext("name") or "").strip()
        label = OWN_LABEL if name in {"", folder} else collected.label(name)
        collected.add("boxes", image, box, label=label)
