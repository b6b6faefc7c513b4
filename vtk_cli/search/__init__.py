"""Architecture search in a weight-sharing supernet, by the flatness of the loss surface (GeNAS, arXiv 2305.08611)."""
