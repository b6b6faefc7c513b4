"""Ideal frequency filters of a clip along time and space, as low-rank linear maps."""

from vtk_kernels.frequency.bands import PassBand, band, high, low
from vtk_kernels.frequency.ops import frequency_filter, frequency_filter_frames

__all__ = ["PassBand", "band", "frequency_filter", "frequency_filter_frames", "high", "low"]
