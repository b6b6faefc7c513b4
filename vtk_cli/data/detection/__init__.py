"""Images with boxes, masks and classes: COCO, YOLO, Pascal VOC, and what Roboflow exports of them."""

from vtk_cli.data.detection.opening import open_detection
from vtk_cli.data.detection.records import DetectionSet, ImageRecord, check_same_classes

__all__ = ["DetectionSet", "ImageRecord", "check_same_classes", "open_detection"]
