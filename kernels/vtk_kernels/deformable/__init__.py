"""Multi-scale deformable attention (arXiv 2010.04159)."""
