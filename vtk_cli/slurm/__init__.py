"""`vtk slurm`: any command as a job of a Slurm cluster that is preempted, requeued and resumed without loss."""
