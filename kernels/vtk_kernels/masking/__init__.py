"""Random masking of patch tokens: keep a subset of tokens or patches in one pass."""
