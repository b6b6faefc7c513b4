"""What every long job shares: run folders, checkpoints, signals, seeds, devices, the training loop.

The engine knows no method.
"""
