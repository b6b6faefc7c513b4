"""How a run ends: its tables printed, its pictures drawn, its page and its JSON written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.files import write_json
from vtk_cli.reports import page
from vtk_cli.similarity.section import Section, plain


@dataclass(frozen=True)
class Report:
    """What a run has to say.

    Args:
        headline: the result in a line.
        about: on what it rests, in a sentence.
        sections: the findings, in order.
        warnings: what a reader must know.
        summary: what `--json` prints.
    """

    headline: str
    about: str
    sections: Sequence[Section]
    warnings: Sequence[str]
    summary: Mapping[str, Any]


def publish(report: Report, run: RunFolder, console: Console) -> None:
    """Draw, write and print a report, the result last."""
    pictures = {section.key: section.draw(run.plots) for section in report.sections if section.draw is not None}
    write_json(run.path / "similarity.json", report.summary)
    clusters = next((section for section in report.sections if section.key == "clusters"), None)
    if clusters is not None:
        write_json(run.path / "clusters.json", plain(clusters.data))
    web_page = run.path / "report.html"
    page.write_page(web_page, _as_page(report, pictures))
    run.finish(report.summary)
    console.text(report.about)
    for section in report.sections:
        if section.columns:
            console.table(section.title, section.columns, section.rows)
            if section.note:
                console.text(section.note)
    for warning in report.warnings:
        console.warn(warning)
    console.text(report.headline, style="bold")
    console.text(f"everything is in {run.path}; look at {web_page}")
    console.emit(report.summary)


def _as_page(report: Report, pictures: Mapping[str, Path]) -> page.Page:
    sections = [page.Section("Read this first", [page.Text(text, "warning") for text in report.warnings])]
    for section in report.sections:
        parts: list[page.Text | page.Table | page.Image] = []
        if section.key in pictures:
            parts.append(page.Image(pictures[section.key], alt=section.title))
        if section.columns:
            parts.append(page.Table(section.columns, section.rows))
        if section.note:
            parts.append(page.Text(section.note))
        sections.append(page.Section(section.title, parts))
    shown = [section for section in sections if section.parts]
    return page.Page(report.headline, report.about, sections=shown, footer="Numbers and versions: similarity.json")
