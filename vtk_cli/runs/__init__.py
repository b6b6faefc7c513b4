"""`vtk runs`: what runs left behind, side by side, as a page, and out of the way."""
