"""The fixtures of the spaces' own tests."""

from tests.models.spaces.conftest import rng, space

__all__ = ["rng", "space"]
