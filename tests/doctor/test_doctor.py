"""`vtk doctor` says what is used, why, and what cannot work."""

import json
import sys

import pytest

from vtk_cli.app import main
from vtk_cli.doctor import examination
from vtk_kernels import dispatch


def doctor(capsys, code=0):
    assert main(["doctor", "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def _plain(monkeypatch, tmp_path):
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))


def test_every_operator_is_listed_with_the_backend_that_dispatch_picks(capsys):
    found = doctor(capsys)
    on_cpu = {each["operator"]: each for each in found["kernels"] if each["device"] == "cpu"}
    assert set(on_cpu) == set(dispatch.OPERATORS)
    for operator, choice in on_cpu.items():
        assert choice["backend"] == dispatch.which(operator, "cpu")
        assert choice["why"] == dispatch.why(operator, "cpu")
    assert found["problems"] == []


def test_a_forced_backend_is_named_as_the_reason(capsys, monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    found = doctor(capsys)
    assert {each["backend"] for each in found["kernels"]} == {"reference"}
    assert all("VTK_KERNELS=reference" in each["why"] for each in found["kernels"])


@pytest.mark.parametrize(("forced", "says"), [("fast", "got 'fast'"), ("cuda", "VTK_KERNELS=cuda")])
def test_a_backend_that_cannot_run_is_a_problem_and_exit_code_1(capsys, monkeypatch, forced, says):
    monkeypatch.setenv(dispatch.VARIABLE, forced)
    found = doctor(capsys, code=1)
    assert any(says in problem for problem in found["problems"])
    assert any(each["backend"] is None for each in found["kernels"])


def test_without_compiled_kernels_it_says_so_and_nothing_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr(examination, "find_spec", lambda name: None)
    found = doctor(capsys)
    assert found["compiled"].startswith("not built")
    assert found["problems"] == []


def test_compiled_kernels_that_cannot_be_loaded_are_a_problem(capsys, monkeypatch):
    monkeypatch.setattr(examination, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "vtk_kernels._cpu", None)  # its import then fails
    found = doctor(capsys, code=1)
    assert any("the compiled kernels cannot be loaded" in problem for problem in found["problems"])


def test_a_cache_that_cannot_be_written_is_a_problem(capsys, monkeypatch, read_only_folder):
    monkeypatch.setenv("VTK_CACHE", str(read_only_folder))
    found = doctor(capsys, code=1)
    assert any("the cache cannot be written" in problem for problem in found["problems"])


def test_a_look_makes_no_folder(capsys, tmp_path):
    doctor(capsys)
    assert not list(tmp_path.iterdir())


def test_people_get_tables_and_a_last_word(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for word in ("Python", "torch", "compiled", "threads", "cache", "keep_tokens", "nothing is wrong"):
        assert word in shown
