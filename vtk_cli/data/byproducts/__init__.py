"""Annotation byproducts: where annotators clicked while they labelled images (arXiv 2303.17595)."""
