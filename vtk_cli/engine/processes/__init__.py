"""One training by several processes: how they start, meet, share batches and weights, and speak with one voice."""
