"""The MaskRefineNet (arXiv 2303.15062, Section 3.3): the network, its training, its use on pseudo labels."""
