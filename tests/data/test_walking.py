from __future__ import annotations

from pathlib import Path

import pytest

from vtk_cli.data.walking import path_within


@pytest.mark.parametrize("name", ["a.png", "b/a.png", "./a.png", "b/../a.png", "b/..a.png", "/data/set/a.png"])
def test_a_name_that_stays_inside_is_a_path(name):
    path = path_within(Path("/data/set"), name)
    assert path is not None
    assert Path("/data/set") in path.parents
    assert ".." not in path.parts


@pytest.mark.parametrize("name", ["../a.png", "b/../../a.png", "/etc/passwd", "..", ".", "", "/data/setting/a.png"])
def test_a_name_that_leads_outside_is_none(name):
    assert path_within(Path("/data/set"), name) is None


def test_a_relative_folder_is_meant_from_where_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert path_within(Path(), "a.png") == tmp_path / "a.png"
    assert path_within(Path("x/.."), "../a.png") is None


def test_links_inside_are_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    assert path_within(tmp_path / "set", "link/a.png") == tmp_path / "set" / "link" / "a.png"
