"""From a checkpoint to a bundle.

Only `checkpoint` and `graph.trace` import torch; `build` and `engine` work without it.
"""
