"""`vtk doctor`: what this installation has, what it uses, and why."""
