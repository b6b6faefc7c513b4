"""Instance masks from points: PointWSSIS (arXiv 2303.15062) on SOLOv2 (arXiv 2003.10152).

The story is in `job.py`. Its rooms, each of which knows only those before it: `solov2` the network and its inference,
`labels` what people give, `training` of teacher and student, `pseudo` labels at clicks, `refine` the MaskRefineNet.
"""
