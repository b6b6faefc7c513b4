"""The picture of a ranking."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vtk_cli.search import rank_picture
from vtk_cli.search.rank_picture import RankedScore, draw_ranking, told
from vtk_cli.search.ranking import Estimate, agreement


def _ranked(name, values, truth):
    return RankedScore(name, values, agreement(values, truth, regret_of=5, draws=20))


def test_every_architecture_is_a_point_and_the_best_by_score_stand_out(tmp_path, monkeypatch) -> None:
    figures = []
    monkeypatch.setattr(rank_picture, "save", lambda figure, path: figures.append(figure))
    rng = np.random.default_rng(0)
    truth = rng.uniform(80, 90, 40)
    values = truth + rng.normal(size=40)
    values[3] = -np.inf
    draw_ranking(tmp_path / "x", [_ranked("flatness", values, truth), _ranked("loss", -truth, truth)], truth, title="t")
    first, second = figures[0].axes
    others, best = (points.get_offsets() for points in first.collections)
    assert (len(others), len(best)) == (34, 5)
    assert sorted(best[:, 0]) == sorted(values)[-5:]
    assert min(others[:, 1].max(), best[:, 1].max()) > 80
    assert second.texts[0].get_text() == "tau -1.00 [-1.00, -1.00]"


def test_panels_fill_rows_of_three_and_names_are_taken_literally(tmp_path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(80, 90, 30)
    sizes = []
    for count in (1, 3, 7):
        values = [truth * 1e-5 * number + rng.normal(size=30) * 1e-5 for number in range(count)]
        scores = [_ranked(f"score ${number}", each, truth) for number, each in enumerate(values)]
        picture = draw_ranking(tmp_path / f"{count}", scores, truth, title="Scores and $accuracy")
        with Image.open(picture.png) as image:
            sizes.append(image.size)
        assert picture.svg.is_file()
    one, three, seven = sizes
    assert three[0] > 2 * one[0]
    assert abs(seven[0] - three[0]) < 20
    assert seven[1] > 2 * three[1]


def test_an_undefined_correlation_is_called_so() -> None:
    assert told(Estimate(None)) == "undefined"
    assert told(Estimate(0.704, 0.61, 0.78)) == "0.70 [0.61, 0.78]"
    assert told(Estimate(0.5)) == "0.50"
