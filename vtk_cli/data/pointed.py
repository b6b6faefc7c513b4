"""An image with the points that its augmentation carries along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Points = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
NO_POINTS: Points = np.zeros((0, 2))
NO_FLAGS: Flags = np.zeros(0, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class PointedImage:
    """An image and points on it.

    Args:
        image: RGB.
        points: float64 (P, 2): x and y in pixels of `image`, continuous: the centre of the top-left pixel is
            (0.5, 0.5), the right bottom corner (width, height).
        present: bool (P,): which points lie on the image. What an absent one holds means nothing.
    """

    image: Image.Image
    points: Points
    present: Flags

    def painted(self, image: Image.Image) -> PointedImage:
        """Other pixels of the same size, in the same places."""
        return PointedImage(image, self.points, self.present)

    def moved(self, image: Image.Image, points: Points) -> PointedImage:
        """The result of a geometric operation; a point that has left `image` is absent from then on.

        Args:
            image: after it.
            points: (P, 2), where it took the points, in pixels of `image`.
        """
        if not len(points):
            return PointedImage(image, points, self.present)
        inside = ((points >= 0) & (points <= image.size)).all(axis=1)
        return PointedImage(image, points, self.present & inside)


def without_points(image: Image.Image) -> PointedImage:
    """An image that carries no points."""
    return PointedImage(image, NO_POINTS, NO_FLAGS)
