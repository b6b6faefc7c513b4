"""What is reported of a matrix, and what is refused before anything is computed."""

import csv
import json

import numpy as np
import pytest

from vtk_cli.app import main
from vtk_cli.errors import UserError
from vtk_cli.similarity import analysis, matrix_findings
from vtk_cli.similarity.command import AnalysisOptions, SimilarityOptions
from vtk_cli.similarity.features import FEATURE_NAMES, NAME_COLUMN
from vtk_cli.similarity.matrix_file import write_matrix_csv

NAMES = ("resnet50", "resnet101", "dpn107", "convit_base", "pit_s_224", "tnt_s_patch16_224")


def two_blocks(within=3.5, between=1.5):
    """The first three networks are alike, so are the last three."""
    score = np.where(np.arange(6)[:, None] // 3 == np.arange(6) // 3, within, between)
    np.fill_diagonal(score, np.log(100))
    score[0, 1] = score[1, 0] = within + 0.4
    return score


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory with a matrix in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))
    write_matrix_csv(tmp_path / "matrix.csv", NAMES, two_blocks())
    return tmp_path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 3}, "--clusters: 3 clusters of 3 networks; give at most 2"),
        ({"adjust": "center"}, "--adjust center: centred scores of 3 networks; give at least 4"),
        ({"importance": True}, "--importance: feature importance over 3 networks; give at least 5"),
        ({"pick_ensemble": 4}, "--pick-ensemble: an ensemble of 4 out of 3 networks; give 2 to 3"),
        ({"suggest_teacher": "resnet5"}, "the student 'resnet5' is not among the networks; did you mean resnet50"),
    ],
)
def test_what_cannot_be_asked_of_so_few_networks_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        analysis.require_possible(NAMES[:3], AnalysisOptions(**options))


def test_what_can_be_asked_is_not_refused():
    analysis.require_possible(("a", "b"), AnalysisOptions())
    options = AnalysisOptions(clusters=5, adjust="center", importance=True, pick_ensemble=6, suggest_teacher="resnet50")
    analysis.require_possible(NAMES, options)


def test_impossible_requests_are_refused_before_anything_is_trained(place, capsys):
    (place / "features.csv").write_text("Model name,Stem layer\nresnet18,7s2\n")
    for asked in (["--clusters", "2"], ["--features", "features.csv"], ["--suggest-teacher", "x"]):
        assert main(["similarity", "resnet18", "resnet34", *asked]) == 2
        assert capsys.readouterr().err.count("error: ") == 1
    assert sorted(path.name for path in place.iterdir()) == ["features.csv", "matrix.csv"]


def test_centred_scores_are_not_drawn_with_a_scale_of_transfer(place, monkeypatch):
    scales = []
    monkeypatch.setattr(
        matrix_findings,
        "draw_heatmap",
        lambda *_, value_label, second_scale, **__: scales.append((value_label, second_scale)) or _Picture,
    )

    class _Picture:
        svg = place / "heatmap.svg"

    for adjust in ("none", "center"):
        found = analysis.matrix_sections(NAMES, two_blocks(), AnalysisOptions(adjust=adjust))
        heat_map = next(section for section in found if section.key == "matrix")
        heat_map.draw(place)
    (raw, marks), (centred, nothing) = scales
    assert (raw, marks.label) == ("SAT (nats)", "mean transfer")
    assert (centred, nothing) == ("centred SAT (nats)", None)


def test_teachers_are_ranked_from_an_imported_matrix(place, capsys):
    assert main(["similarity", "--import-matrix", "matrix.csv", "--suggest-teacher", "resnet50", "--json"]) == 0
    teachers = json.loads(capsys.readouterr().out)["teachers"]
    assert [name for name, _ in teachers["same_family"]] == ["resnet101", "dpn107"]
    assert {name for name, _ in teachers["other_family"]} == {"convit_base", "pit_s_224", "tnt_s_patch16_224"}


def test_a_teacher_of_a_network_of_unknown_kind_asks_for_features(place, capsys):
    names = ("mine", *NAMES[1:])
    write_matrix_csv(place / "matrix.csv", names, two_blocks())
    command = ["similarity", "--import-matrix", "matrix.csv", "--suggest-teacher", "mine"]
    assert main(command) == 2
    assert "the base architecture of mine is not known" in capsys.readouterr().err
    with (place / "features.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow([NAME_COLUMN, *FEATURE_NAMES])
        table.writerows([name, "CNN" if index < 3 else "Hybrid", *["x"] * 12] for index, name in enumerate(names))
    assert main([*command, "--features", "features.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["teachers"]
    assert [name for name, _ in found["same_family"]] == ["resnet101", "dpn107"]


@pytest.mark.parametrize(
    "asked", [{"networks": ("resnet50",)}, {"ensembles": True}, {"pick_ensemble": 2}, {"merge": True}]
)
def test_what_needs_networks_is_not_asked_of_a_matrix(place, asked):
    with pytest.raises(UserError, match="an imported matrix holds scores, no networks"):
        SimilarityOptions(import_matrix=place / "matrix.csv", **asked)


def test_a_dry_run_of_an_import_writes_nothing(place, capsys):
    assert main(["similarity", "--import-matrix", "matrix.csv", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["networks"] == list(NAMES)
    assert [path.name for path in place.iterdir()] == ["matrix.csv"]
