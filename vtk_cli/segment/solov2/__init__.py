"""SOLOv2 (arXiv 2003.10152) and its inference at clicks (arXiv 2303.15062): the network, its losses, its files."""
