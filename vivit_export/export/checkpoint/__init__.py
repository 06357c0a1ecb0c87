"""The eager side: a checkpoint, its contract and its network, the reference for everything else."""
