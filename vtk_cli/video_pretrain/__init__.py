"""`vtk video-pretrain`: FreqAug (arXiv 2204.03865) and temporal self-supervision (TIME, arXiv 2207.09067)."""
