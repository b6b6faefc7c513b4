"""The checked-in manual pages and completion scripts are those the program makes, and are well formed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from vtk_cli.app import SUBCOMMANDS
from vtk_cli.manual import files

ROOT = Path(__file__).parents[1]


def test_what_is_checked_in_is_what_the_program_makes():
    made = files()
    stale = [str(path) for path, content in made.items() if (ROOT / path).read_text() != content]
    assert not stale, f"run `python -m vtk_cli.manual`: {stale}"
    there = {path.relative_to(ROOT) for folder in ("man", "completions") for path in (ROOT / folder).iterdir()}
    assert there == set(made)


@pytest.mark.parametrize(
    "name", ["vtk.1", "vtk-scale.7", "vtk-guarantees.7", *(f"vtk-{name}.1" for name in SUBCOMMANDS)]
)
def test_a_manual_page_has_no_warning_of_mandoc(name):
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    page = ROOT / "man" / name
    done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("shell", "script"), [("bash", "vtk.bash"), ("zsh", "_vtk"), ("fish", "vtk.fish")])
def test_a_completion_script_is_accepted_by_its_shell(shell, script):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", ROOT / "completions" / script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
