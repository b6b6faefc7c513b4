"""`vtk proof` and `vtk bench`: the two families that every subcommand folder extends with a file of its own."""
