"""Supervised training with a masked sub-branch (arXiv 2306.11339) and annotation byproducts (arXiv 2303.17595)."""
