from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vtk_cli.errors import UserError
from vtk_cli.similarity.clusters import dendrogram, spectral_clusters
from vtk_cli.similarity.embedding import embed
from vtk_cli.similarity.ensembles import suggest_teacher
from vtk_cli.similarity.importance import BoostedTrees, feature_importance
from vtk_cli.similarity.matrix_file import read_matrix_csv, write_matrix_csv
from vtk_cli.similarity.sat import MAX_SAT, Floats, center
from vtk_cli.similarity.statistics import separate_families, summarise

NAMES = ("resnet50", "resnet101", "vit_b", "deit, small", "mixer", 'say "hi"')


def synthetic() -> Floats:
    score = np.random.default_rng(0).uniform(1.0, 4.0, (6, 6))
    score = (score + score.T) / 2
    np.fill_diagonal(score, MAX_SAT)
    return score


def file_of(folder: Path, text: str) -> Path:
    path = folder / "sat.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_matrix_survives_the_file_bit_by_bit(tmp_path: Path) -> None:
    score = synthetic()
    write_matrix_csv(tmp_path / "sat.csv", NAMES, score)
    names, read = read_matrix_csv(tmp_path / "sat.csv")
    assert names == NAMES
    assert np.array_equal(read, score)


def test_the_layout_is_an_empty_corner_a_header_row_and_names_down_the_first_column(tmp_path: Path) -> None:
    write_matrix_csv(tmp_path / "sat.csv", ("a", "b"), np.array([[4.5, 2.0], [2.0, 4.25]]))
    assert (tmp_path / "sat.csv").read_text() == ",a,b\na,4.5,2.0\nb,2.0,4.25\n"


def test_a_byte_order_mark_windows_line_ends_and_spaces_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sat.csv"
    path.write_bytes(b"\xef\xbb\xbf,a, b\r\na,4.6,2.0\r\nb ,2.0,4.6\r\n\r\n")
    names, score = read_matrix_csv(path)
    assert names == ("a", "b")
    assert score.tolist() == [[4.6, 2.0], [2.0, 4.6]]


def test_nine_decimals_of_the_largest_score_are_read(tmp_path: Path) -> None:
    _, score = read_matrix_csv(file_of(tmp_path, ",a,b\na,4.605170186,2\nb,2,4.605170186\n"))
    assert score[0, 0] == 4.605170186


def test_an_imported_matrix_is_enough_for_every_analysis_of_scores(tmp_path: Path) -> None:
    names = tuple("abcdef")
    families = ["cnn", "cnn", "cnn", "vit", "vit", "vit"]
    same = np.equal.outer(families, families)
    random = np.random.default_rng(0)
    score = np.where(same, 3.0, 1.5) + random.uniform(0, 0.2, (6, 6))
    score = (score + score.T) / 2
    np.fill_diagonal(score, 4.6)
    write_matrix_csv(tmp_path / "sat.csv", names, score)
    names, read = read_matrix_csv(tmp_path / "sat.csv")

    off = read[~np.eye(6, dtype=bool)]
    assert summarise(names, read).mean == pytest.approx(off.mean())
    assert separate_families(read, families).auc == 1.0
    assert spectral_clusters(read, 2).members(names) == [["a", "b", "c"], ["d", "e", "f"]]
    assert {frozenset(dendrogram(read).order[:3].tolist())} <= {frozenset({0, 1, 2}), frozenset({3, 4, 5})}
    assert embed(read).points.shape == (6, 2)
    assert separate_families(center(read), families).within > 0 > separate_families(center(read), families).between
    assert [name for name, _ in suggest_teacher(names, read, families, "a").same_family] in (["b", "c"], ["c", "b"])
    differs = np.stack([~same, random.integers(0, 2, (6, 6))], axis=-1).astype(float)
    importance = feature_importance(
        read, differs, ["base architecture", "chance"], settings=BoostedTrees(20, 2, 4, 0.3)
    )
    assert importance.features[0] == "base architecture"


BAD = {
    "the file is empty": "\n\n",
    r":1: the first row names 0 networks after its empty first cell; separate the columns by commas": ";a;b\na;4;2\n",
    r":1: the first row names 1 networks after its empty first cell; give at least two": ",a\na,4\n",
    r":1: the first cell is 'model'; leave it empty": "model,a,b\na,4,2\nb,2,4\n",
    r":1: the name 'a' appears twice": ",a,a\na,4,2\na,2,4\n",
    r"not square: 1 rows but 2 columns": ",a,b\na,4,2\n",
    r"not square: 3 rows but 2 columns": ",a,b\na,4,2\nb,2,4\nc,1,1\n",
    r":3: 1 values in a row of 2; not square": ",a,b\na,4,2\nb,2\n",
    r":3: 3 values in a row of 2; not square": ",a,b\na,4,2\nb,2,4,1\n",
    r":3: this row is named 'resnet5' where the columns have 'resnet50'; did you mean resnet50\?": (
        ",a,resnet50\na,4,2\nresnet5,2,4\n"
    ),
    r":2: this row is named 'zzz' where the columns have 'a'; rows and columns must name the same": (
        ",a,b\nzzz,4,2\nb,2,4\n"
    ),
    r":3, column a: 'high' is not a number": ",a,b\na,4,2\nb,high,4\n",
    r":2, column b: '' is not a number": ",a,b\na,4,\nb,2,4\n",
    r":2, column b: 'nan' is not a finite number": ",a,b\na,4,nan\nb,nan,4\n",
    r":2, column b: -1e\+308 is the log of no percentage": ",a,b\na,4,-1e308\nb,-1e308,4\n",
    r":1: a network has no name": ",a,\na,4,2\n,2,4\n",
    r":2, column a: 100 is above ln 100 = 4.6052": ",a,b\na,100,9.8\nb,9.8,100\n",
    r"not symmetric: a, c is 2 but c, a is 2\.5": ",a,b,c\na,4,3,2\nb,3,4,1\nc,2.5,1.5,4\n",
}


@pytest.mark.parametrize(("message", "text"), BAD.items())
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path: Path, message: str, text: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_matrix_csv(file_of(tmp_path, text))
    assert "sat.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_line_numbers_count_empty_lines(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sat\.csv:4, column a: 'x'"):
        read_matrix_csv(file_of(tmp_path, ",a,b\n\na,4,2\nb,x,4\n"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        read_matrix_csv(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory"):
        read_matrix_csv(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sat.csv"
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00")
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        read_matrix_csv(path)
