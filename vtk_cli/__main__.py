"""`python -m vtk_cli` and `torchrun -m vtk_cli`: the same program as the `vtk` script."""

import sys

from vtk_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
