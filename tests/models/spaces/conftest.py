"""A generator of genes, and every space in turn."""

from __future__ import annotations

import numpy as np
import pytest

from vtk_cli.models.spaces.catalog import SPACES


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=list(SPACES))
def space(request):
    return SPACES[request.param]
