"""Images with one click an object (arXiv 2303.15062): COCO JSON, CSV, and what annotation tools export."""

from vtk_cli.data.points.clicks import Mode, click_of_mask
from vtk_cli.data.points.opening import open_points
from vtk_cli.data.points.records import Classes, PointImage, PointSet

__all__ = ["Classes", "Mode", "PointImage", "PointSet", "click_of_mask", "open_points"]
