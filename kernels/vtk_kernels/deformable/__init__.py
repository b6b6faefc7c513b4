"""Multi-scale deformable attention (arXiv 2010.04159)."""

from vtk_kernels.deformable.ops import deformable_attention, sample_levels

__all__ = ["deformable_attention", "sample_levels"]
