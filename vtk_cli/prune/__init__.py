"""Strong lottery tickets in image generators: keep a part of random frozen weights, train none (arXiv 2212.08311)."""
