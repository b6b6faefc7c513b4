"""Checks COCO datasets: every image, category, box, mask and point."""

from __future__ import annotations

from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.data.coco_faults import Finding, wrong_annotations, wrong_categories, wrong_images
from vtk_cli.data.coco_files import find_coco_files, read_coco_file
from vtk_cli.data.images import decode_image
from vtk_cli.data.problems import Problem
from vtk_cli.errors import UserError


def audit_coco(path: Path, console: Console) -> tuple[int, list[Problem]]:
    """The number of images and annotations of a COCO file or folder, and what is wrong with them.

    Raises:
        UserError: there is no annotation file, or it is no COCO file at all.
    """
    files = [read_coco_file(file) for file in find_coco_files(path)]
    if not files:
        raise UserError("no COCO annotations", str(path), "give the JSON file, or a folder with annotations/")
    findings: list[Finding] = []
    names: dict[int, str] = {}
    for file in files:
        findings += wrong_categories(file, names)
        findings += wrong_images(file, lambda image: decode_image(image).size, console)
        findings += wrong_annotations(file)
    entries = sum(len(file.images) + len(file.annotations) for file in files)
    return entries, [finding.problem for finding in findings]
