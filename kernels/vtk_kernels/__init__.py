"""Operators for vision training that depend on torch alone."""
