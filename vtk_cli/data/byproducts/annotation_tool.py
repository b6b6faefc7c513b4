"""Reads what the ImageNet annotation tool records: the data of ImageNet-AB as JSON, before it became XML.

A list of records, or an object with the list under `annotations`; each record is what one annotator did on one image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from vtk_cli.data.byproducts.marks import NOT_SELECTED, Collected
from vtk_cli.data.byproducts.places import is_true, listed, place


def collect_tool_records(collected: Collected, records: Iterable[Any]) -> None:
    """Add the clicks and traces of the records; what cannot be used is counted."""
    blocks: Counter[int] = Counter()
    for record in _flat(records):
        name = record.get("imageID") if isinstance(record, dict) else None
        if not isinstance(name, str) or not name:
            collected.skip("records without an imageID")
            continue
        image = collected.image(name)
        block = blocks[image]
        blocks[image] += 1
        trace = _places(collected, record.get("mouseTracking"))
        collected.add_trace([x for x, _ in trace], [y for _, y in trace])
        if not is_true(record.get("selected")):
            collected.skip(NOT_SELECTED)
            continue
        clicks = _places(collected, record.get("selectedRecord"))
        if not clicks:
            collected.skip("selections without a recorded place")
        for click in clicks:
            collected.add("clicks", image, click, block=block)
        if trace:
            collected.add("trace-end", image, trace[-1], block=block)


def _flat(records: Iterable[Any]) -> Iterable[Any]:
    for record in records:
        if isinstance(record, dict) and isinstance(record.get("annotations"), list):
            yield from record["annotations"]
        else:
            yield record


def _places(collected: Collected, records: Any) -> list[tuple[float, float]]:
    found = [place(record) for record in listed(records)]
    places = [at for at in found if at is not None]
    if len(places) < len(found):
        collected.skip("records whose place is not two numbers", len(found) - len(places))
    return places
