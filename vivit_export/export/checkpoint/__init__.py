"""The eager side: a checkpoint, its contract and its network, the reference for everything else."""

import os

from vivit_export.errors import EnvironmentFault

try:
    os.getcwd()
except OSError as e:  # Intel's library ends the process that loads PyTorch there
    raise EnvironmentFault("the current folder was deleted, and PyTorch needs one; cd to another") from e
