"""`vtk video-pretrain` in float64, for `run_together`.

Where few clips are normalised, rounding errors grow more than a thousandfold in 20 updates: float32 could not tell two
ways of computing the same from two different computations.
"""

import torch
import torch.distributed
import torch.nn.parallel

import vtk_cli.video_pretrain.use  # noqa: F401  (before the default changes)

torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double
