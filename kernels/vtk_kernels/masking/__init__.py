"""Random masking of patch tokens: keep a subset of tokens or patches in one pass."""

from vtk_kernels.masking.ops import keep_patches, keep_tokens, mask_patches, random_keep

__all__ = ["keep_patches", "keep_tokens", "mask_patches", "random_keep"]
