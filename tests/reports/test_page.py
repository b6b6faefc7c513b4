from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
from PIL import Image as PilImage

from vtk_cli.errors import UserError
from vtk_cli.reports.page import Image, Page, Section, Table, Text, render_page, write_page

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Keeps the tags with their attributes, the text, and whether every tag was closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    PilImage.new("RGB", (3, 2), "red").save(path)
    return path


def full(picture: Path) -> Page:
    return Page(
        title="Similarity of <resnet50> & vit_b",
        subtitle="450 digits",
        summary={"SAT": 1.57, "transfer": "4.8 %"},
        sections=[
            Section(
                "First", [Text("plain <script>alert(1)</script>"), Text("careful", "warning"), Text("fine", "good")]
            ),
            Section(
                "Second", [Table(["name", "value"], [["a", 1], ["b", None]], "caption"), Image(picture, "a <red> one")]
            ),
        ],
        footer="vtk similarity resnet50 vit_b",
    )


def test_a_page_is_well_formed_and_holds_everything_in_order(picture: Path) -> None:
    text = "".join(read(render_page(full(picture))).text)
    body = text[text.index("450 digits") :]
    wanted = ["450 digits", "SAT", "1.57", "4.8 %", "First", "careful", "fine", "Second", "caption", "name", "vtk sim"]
    places = [body.index(word) for word in wanted]
    assert places == sorted(places)


def test_every_text_is_escaped(picture: Path) -> None:
    reader = read(render_page(full(picture)))
    assert "script" not in {tag for tag, _ in reader.tags}
    assert "plain <script>alert(1)</script>" in reader.text
    assert "Similarity of <resnet50> & vit_b" in reader.text
    assert [attributes["alt"] for tag, attributes in reader.tags if tag == "img"] == ["a <red> one"]


def test_a_page_asks_nothing_of_the_network(picture: Path) -> None:
    html = render_page(full(picture))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<script", html)
    policy = next(a["content"] for t, a in read(html).tags if t == "meta" and a.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_pictures_are_carried_bit_by_bit(picture: Path, tmp_path: Path) -> None:
    vector = tmp_path / "v.svg"
    vector.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    html = render_page(Page("t", sections=[Section("s", [Image(picture, "a"), Image(vector, "b", "below")])]))
    sources = [str(attributes["src"]) for tag, attributes in read(html).tags if tag == "img"]
    kinds, contents = zip(*(source.split(";base64,") for source in sources), strict=True)
    assert kinds == ("data:image/png", "data:image/svg+xml")
    assert [base64.b64decode(content) for content in contents] == [picture.read_bytes(), vector.read_bytes()]


def test_a_page_suits_phones_and_both_colour_schemes(picture: Path) -> None:
    html = render_page(full(picture))
    metas = [attributes for tag, attributes in read(html).tags if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    assert "prefers-color-scheme: dark" in html


def test_columns_of_numbers_are_aligned_right() -> None:
    table = Table(
        ["name", "number", "percent", "gaps", "mixed", "empty"],
        [["a", 1, "3.5 %", "", "1", ""], ["b", -2.5, "10%", "7", "one", None], ["c", "1e-3", "2 %", "-", "3", "-"]],
    )
    assert table.numeric == [False, True, True, True, False, False]
    cells = [
        attributes
        for tag, attributes in read(render_page(Page("t", sections=[Section("s", [table])]))).tags
        if tag == "td"
    ]
    assert [cell.get("class") for cell in cells[:6]] == [None, "number", "number", "number", None, None]


def test_a_row_that_does_not_fit_its_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="row 2 has 1 cells for 2 columns"):
        Table(["a", "b"], [[1, 2], [3]])


def test_a_missing_picture_and_a_picture_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.png: the picture cannot be read"):
        render_page(Page("t", sections=[Section("s", [Image(tmp_path / "none.png", "a")])]))
    with pytest.raises(UserError, match=r"x\.tiff: is no picture a page can hold"):
        render_page(Page("t", sections=[Section("s", [Image(tmp_path / "x.tiff", "a")])]))


def test_a_title_alone_makes_a_page() -> None:
    reader = read(render_page(Page("only a title")))
    assert {"dl", "footer", "section"}.isdisjoint({tag for tag, _ in reader.tags})


def test_a_page_is_one_file(tmp_path: Path, picture: Path) -> None:
    write_page(tmp_path / "out" / "report.html", full(picture))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8") == render_page(full(picture))


def test_a_misspelt_field_of_the_template_would_be_an_error() -> None:
    from vtk_cli.reports.page import _template

    assert _template().environment.undefined is jinja2.StrictUndefined
