"""Text and Markdown as manual pages have them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from vtk_cli.roff import markdown_as_roff, roff

PAGE = """Some *plain* text of `vtk -x` and
**bold words**, after [the paper](https://example.org/a-b).

```bash
vtk a \\
  .b - c
```

### Next to it

<!-- marks of a table -->
| work | ours | note |
|---|---|---|
| `one` | 1 | a\\|b |
| two | 2 |  |
<!-- end -->
.Text that begins with a dot.
"""


def test_backslashes_hyphens_and_lines_that_look_like_requests_are_escaped():
    assert roff("a-b\\n") == "a\\-b\\en"
    assert roff(".TH") == "\\&.TH"
    assert roff("'it") == "\\&'it"


def test_markdown_becomes_paragraphs_code_headings_and_lists():
    assert markdown_as_roff(PAGE) == [
        "Some \\fIplain\\fR text of \\fBvtk \\-x\\fR and \\fBbold words\\fR, after the paper.",
        ".PP",
        ".nf",
        "vtk a \\e",
        "  .b \\- c",
        ".fi",
        ".SH NEXT TO IT",
        ".TP",
        "\\fBone\\fR",
        "ours: 1; note: a|b",
        ".TP",
        "two",
        "ours: 2",
        ".PP",
        "\\&.Text that begins with a dot.",
    ]


def test_mandoc_prints_what_was_written(tmp_path):
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    page = tmp_path / "some.7"
    page.write_text("\n".join([".TH SOME 7 2026-01-31", ".SH TEXT", *markdown_as_roff(PAGE)]) + "\n")
    shown = subprocess.run(["mandoc", "-Tascii", page], capture_output=True, text=True, check=True).stdout
    plain = re.sub(".\b", "", shown)  # bold is a letter over itself
    assert "vtk a \\\n" in plain
    assert " .b - c\n" in plain
    assert "ours: 1; note: a|b" in plain
