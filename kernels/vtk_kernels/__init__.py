"""Operators for vision training that depend on torch alone."""

from vtk_kernels.dispatch import which
from vtk_kernels.philox import philox4x32, uniform

__all__ = ["philox4x32", "uniform", "which"]
