"""Instance masks from points: PointWSSIS (arXiv 2303.15062) on SOLOv2 (arXiv 2003.10152)."""
