"""Reads COCO-AB: a JSON list with one item an image, on which annotators dropped a class's icon on one of its objects.

An icon can be added, moved and removed, and there is one of each class. The point of a class is where its icon was left
(arXiv 2303.17595, Section 3), or, as the published loader takes it, where it was last added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vtk_cli.data.byproducts.marks import Collected
from vtk_cli.data.byproducts.places import listed, place

Places = dict[str, tuple[float, float]]


def collect_coco_items(collected: Collected, items: Iterable[Any]) -> None:
    """Add the places and traces of the items; of several items of one image the last counts."""
    last: dict[str, tuple[Places, Places]] = {}
    for item in items:
        name = _name(item)
        if name is None:
            collected.skip("items without an image_id")
            continue
        if name in last:
            collected.skip("earlier items of an image that has several")
        last[name] = _replayed(collected, listed(item.get("actionHistories")))
        trace = [at for at in map(place, listed(item.get("mouseTracking"))) if at is not None]
        collected.add_trace([x for x, _ in trace], [y for _, y in trace])
    for name, (left, added) in last.items():
        image = collected.image(name)
        for category, at in left.items():
            collected.add("clicks", image, at, label=collected.label(category))
        for category, at in added.items():
            collected.add("add", image, at, label=collected.label(category))


def _name(item: Any) -> str | None:
    if not isinstance(item, Mapping):
        return None
    name, identity = item.get("file_name"), item.get("image_id")
    if isinstance(name, str) and name:
        return name
    if isinstance(identity, int) and not isinstance(identity, bool) and identity >= 0:
        return str(identity)
    return identity if isinstance(identity, str) and identity else None


def _replayed(collected: Collected, actions: list[Any]) -> tuple[Places, Places]:
    """Where each icon is after all actions, and where each was last added."""
    left: Places = {}
    added: Places = {}
    for action in actions:
        kind, category = (action.get(key) if isinstance(action, dict) else None for key in ("actionType", "iconType"))
        if kind not in ("add", "move", "remove") or not isinstance(category, str):
            collected.skip("actions that are no add, move or remove of an icon")
            continue
        if kind == "remove":
            left.pop(category, None)
            continue
        at = place(action.get("pointTo"))
        if at is None:
            collected.skip("actions without a place")
            continue
        left[category] = at
        if kind == "add":
            added[category] = at
    return left, added
