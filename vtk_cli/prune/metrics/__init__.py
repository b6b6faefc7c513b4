"""How good generated images are: distances between sets of features, and the networks that embed the images.

`frechet`, `kernel` and `neighbours` are the mathematics on features (N, D); `embedders` makes features of images;
`summaries` collects them, cached by content for real images; `quality` puts the numbers together, each with the
embedder, its version, its preprocessing and the numbers of images behind it.
"""
