"""Side by side: every operator against the way it is usually written, and against copying as many bytes."""

from vtk_kernels.bench.cases import CASES, Case
from vtk_kernels.bench.timing import Measurement, measure

__all__ = ["CASES", "Case", "Measurement", "measure"]
