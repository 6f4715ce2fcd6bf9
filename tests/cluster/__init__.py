"""A real Slurm of two nodes on this machine, and the workflow on it."""
