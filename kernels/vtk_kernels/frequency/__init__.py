"""Ideal frequency filters of a clip along time and space, as low-rank linear maps."""
