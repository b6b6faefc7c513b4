"""Results on stdout, everything else on stderr, and nothing read as markup."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from vtk_cli import console as console_module
from vtk_cli.console import Console

ODD = "a [bold]file[/bold] [0/3].png :smile: \\[x]"


def test_notes_and_warnings_go_to_stderr_and_results_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.note("a note")
    console.warn("a warning")
    console.error("an error")
    console.text("a result")
    out, err = capsys.readouterr()
    assert out == "a result\n"
    assert err == "a note\nwarning: a warning\nerror: an error\n"


def test_quiet_hides_notes_and_progress_but_no_warning_and_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)
    console.note("a note")
    console.warn("a warning")
    console.text("a result")
    with console.progress("work", 2) as progress:
        progress.advance(2)
    out, err = capsys.readouterr()
    assert (out, err) == ("a result\n", "warning: a warning\n")


@pytest.mark.parametrize(("verbose", "shown"), [(False, ""), (True, "a detail\n")])
def test_only_verbose_shows_details(verbose: bool, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    Console(verbose=verbose).detail("a detail")
    assert capsys.readouterr().err == shown


def test_with_json_stdout_holds_the_one_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(json_output=True)
    console.text("a result")
    console.table("results", ["name"], [["a"]])
    console.note("a note")
    console.emit({"b": 1, "a": [0.1, None]})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"b": 1, "a": [0.1, None]}
    assert err == "a note\n"


def test_without_json_the_summary_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Console().emit({"a": 1})
    assert capsys.readouterr().out == ""


def test_a_summary_with_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        Console(json_output=True).emit({"a": float("nan")})


def test_brackets_and_colons_print_as_they_are_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(verbose=True)
    for say in (console.note, console.detail, console.warn, console.error, console.text):
        say(ODD)
    console.table(ODD, [ODD], [[ODD]])
    out, err = capsys.readouterr()
    assert err.count(ODD) == 4
    assert out.count(ODD) == 4


def test_long_lines_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    Console().warn("word " * 100)
    assert capsys.readouterr().err.count("\n") == 1


def test_numbers_are_aligned_right_and_words_left(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table("", ["name", "value"], [["a", "1.5"], ["longer", "10.25"]])
    rows = [re.split("[│┃|]", line)[1:3] for line in capsys.readouterr().out.splitlines() if "." in line]
    assert rows == [[" a      ", "   1.5 "], [" longer ", " 10.25 "]]


def test_the_log_holds_everything_that_was_said_also_what_was_not_shown(tmp_path: Path) -> None:
    console = Console(quiet=True)
    console.note("before")
    with console.log_to(tmp_path / "log.txt"):
        console.note("a note")
        console.detail("a detail")
        with console.log_to(tmp_path / "inner.txt"):
            console.warn("inside")
        console.error("an error")
    console.note("after")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line[20:] for line in lines] == ["note: a note", "detail: a detail", "error: an error"]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    assert (tmp_path / "inner.txt").read_text()[20:] == "warning: inside\n"


def test_without_a_terminal_progress_is_a_line_every_few_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now)
    with Console().progress("reading", 40) as progress:
        for _ in range(20):
            now += 1.0
            progress.advance(status="loss 0.5")
    assert capsys.readouterr().err.splitlines() == [
        f"reading: {done}/40, about {40 - done} s left, loss 0.5" for done in (5, 10, 15, 20)
    ]


def test_on_a_terminal_progress_is_a_bar_that_shows_count_and_status() -> None:
    screen = io.StringIO()
    console = Console(_err=RichConsole(file=screen, force_terminal=True, width=120, _environ={"TERM": "xterm"}))
    with console.progress(ODD, 4) as progress:
        progress.advance(3, "loss [0.5]")
        progress.advance()
    assert "4/4" in screen.getvalue()
    assert "loss [0.5]" in screen.getvalue()
    assert ODD in screen.getvalue()


def test_an_error_inside_progress_comes_out() -> None:
    with pytest.raises(ZeroDivisionError), Console().progress("work", 1):
        raise ZeroDivisionError


def test_what_a_terminal_would_obey_or_cannot_show_is_spelled_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console(verbose=True)
    hostile = "\x1b[2J\x1b]0;title\x07\x9b31m\udcff.png"
    spelled = "\\x1b[2J\\x1b]0;title\\x07\\x9b31m\\udcff.png"
    with console.log_to(tmp_path / "log.txt"):
        for say in (console.note, console.detail, console.warn, console.error, console.text):
            say(hostile)
    console.table("t", ("name",), [(hostile,)])
    out, err = capsys.readouterr()
    assert err.count(spelled) == 4
    assert out.count(spelled) == 2
    assert (tmp_path / "log.txt").read_text().count(spelled) == 4
    assert not set("\x1b\x07\x9b") & set(out + err)
