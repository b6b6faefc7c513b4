"""Annotation byproducts: where annotators clicked while they labelled images (arXiv 2303.17595).

from vtk_cli.data.byproducts.reading import read_byproducts
from vtk_cli.data.byproducts.matching import match_byproducts
from vtk_cli.data.byproducts.targets import PointTargets
"""
