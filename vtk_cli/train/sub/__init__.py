"""The sub-model: the same weights, run with much of the input or of the network dropped (arXiv 2306.11339).

One file a way of dropping; `choose_sub` finds the one that suits a network.
"""

from vtk_cli.train.sub.choice import choose_sub
from vtk_cli.train.sub.model import SubDraw, SubModel
from vtk_cli.train.sub.ratio import SubRatio, kept_count, parse_ratio

__all__ = ["SubDraw", "SubModel", "SubRatio", "choose_sub", "kept_count", "parse_ratio"]
