"""`vtk models`: every network that some command takes by name."""
