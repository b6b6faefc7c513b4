"""Active domain adaptation: a classifier moved to another domain with a few labels, in stages (`vtk adapt`)."""
