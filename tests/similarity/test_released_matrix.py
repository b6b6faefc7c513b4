"""The matrix released with arXiv 2210.11407 has no licence and is not shipped; point VTK_SAT_RELEASE at your copy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from vtk_cli.models.names import PAPER69
from vtk_cli.similarity.clusters import spectral_clusters
from vtk_cli.similarity.matrix_file import read_matrix_csv
from vtk_cli.similarity.statistics import off_diagonal, separate_families, summarise

RELEASED = Path(os.environ.get("VTK_SAT_RELEASE", "SAT_release.csv"))

pytestmark = pytest.mark.skipif(not RELEASED.is_file(), reason="set VTK_SAT_RELEASE to the released SAT_release.csv")


def test_the_released_matrix_has_its_known_statistics() -> None:
    names, score = read_matrix_csv(RELEASED)
    summary = summarise(names, score)
    assert len(names) == 69
    assert summary.mean == pytest.approx(2.6649, abs=5e-5)
    assert summary.sd == pytest.approx(0.3275, abs=5e-5)
    assert summary.median == pytest.approx(2.6577, abs=5e-5)
    assert {summary.least.first, summary.least.second} == {"wide_resnet50_2", "vit_base_patch32_224"}
    assert {summary.most.first, summary.most.second} == {"swin_tiny_patch4_window7_224", "swin_s3_tiny_224"}
    assert np.exp(off_diagonal(score)).mean() == pytest.approx(15.2, abs=0.05)


def test_networks_of_one_base_architecture_are_closer_in_the_released_matrix() -> None:
    names, score = read_matrix_csv(RELEASED)
    family_of = {network.published: network.family for network in PAPER69}
    apart = separate_families(score, [family_of[name] for name in names])
    assert apart.within == pytest.approx(2.8835, abs=5e-5)
    assert apart.between == pytest.approx(2.5418, abs=5e-5)
    assert apart.nearest == pytest.approx(0.783, abs=0.01)


def test_ten_clusters_of_the_released_matrix_are_as_stable_as_known() -> None:
    _, score = read_matrix_csv(RELEASED)
    assert 0.68 <= spectral_clusters(score, 10).stability <= 0.88
    assert 0.74 <= spectral_clusters(score, 10, "exp").stability <= 1.0
