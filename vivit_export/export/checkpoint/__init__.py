"""The eager side: a checkpoint, its contract and its network, which everything else is compared with."""
