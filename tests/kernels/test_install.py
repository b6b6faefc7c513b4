"""The install: with a compiler there are compiled kernels, without one the rest still works."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTHING = "vtk_kernels is installed without its compiled CPU kernels"


def configure(folder, **environment):
    pytest.importorskip("nanobind")
    command = ["cmake", "-S", ROOT, "-B", folder, f"-DPython_EXECUTABLE={sys.executable}"]
    command += ["-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    try:
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no cmake")
    return done


@pytest.mark.parametrize("compiler", ["/bin/false", "/nowhere/c++"])
def test_without_a_working_compiler_nothing_is_built_and_nothing_fails(tmp_path, compiler):
    done = configure(tmp_path, CXX=compiler)
    assert done.returncode == 0, done.stderr
    assert NOTHING in " ".join(done.stderr.split())
    subprocess.run(["cmake", "--build", tmp_path], check=True, capture_output=True)
    assert not list(tmp_path.rglob("*.so"))


def test_an_install_after_a_compiler_came_finds_it(tmp_path):
    configure(tmp_path, CXX="/bin/false")
    again, fresh = configure(tmp_path), configure(tmp_path / "fresh")
    assert (NOTHING in " ".join(again.stderr.split())) == (NOTHING in " ".join(fresh.stderr.split()))


def test_every_operator_with_a_cpu_source_is_compiled(tmp_path):
    done = configure(tmp_path)
    if NOTHING in " ".join(done.stderr.split()):
        pytest.skip("there is no compiler")
    assert done.returncode == 0, done.stderr
    sources = sorted(ROOT.glob("kernels/vtk_kernels/*/cpu.cpp"))
    assert [source.parent.name for source in sources] == ["deformable", "frequency", "masking"]
    compiled = {entry["file"] for entry in json.loads((tmp_path / "compile_commands.json").read_text())}
    assert {str(source) for source in sources} <= compiled
