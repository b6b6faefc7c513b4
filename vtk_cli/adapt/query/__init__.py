"""Which images to ask about: strategies over what a model says of the pool."""
