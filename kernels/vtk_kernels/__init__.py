"""Operators for vision training that depend on torch alone."""

from vtk_kernels.deformable import deformable_attention, sample_levels
from vtk_kernels.dispatch import which
from vtk_kernels.frequency import PassBand, band, frequency_filter, frequency_filter_frames, high, low
from vtk_kernels.masking import keep_patches, keep_tokens, mask_patches, random_keep
from vtk_kernels.philox import philox4x32, uniform

__all__ = [
    "PassBand",
    "band",
    "deformable_attention",
    "frequency_filter",
    "frequency_filter_frames",
    "high",
    "keep_patches",
    "keep_tokens",
    "low",
    "mask_patches",
    "philox4x32",
    "random_keep",
    "sample_levels",
    "uniform",
    "which",
]
