"""`vtk`: one command line for vision research, from a laptop to a cluster."""

__version__ = "0.1.0"
