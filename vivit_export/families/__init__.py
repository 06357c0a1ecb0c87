"""Model families: one adapter each, in two halves.

The modules here have no torch: they turn a config into a clip and an anatomy. Those of `networks` build, load and trace
the network. To add a family, write both and name it in `FAMILIES` and in `networks.NETWORKS`.
"""

from __future__ import annotations

from vivit_export.errors import CheckpointError
from vivit_export.families.family import Family
from vivit_export.families.timesformer import Timesformer
from vivit_export.families.videomae import VideoMae
from vivit_export.families.vivit import Vivit
from vivit_export.families.vivit_factorised import VivitFactorised
from vivit_export.families.vjepa2 import VJepa2
from vivit_export.records import shown

__all__ = ["FAMILIES", "Family", "find_family"]

FAMILIES: dict[str, Family] = {
    family.model_type: family for family in (Vivit(), VivitFactorised(), VideoMae(), Timesformer(), VJepa2())
}
"""Every family by its ``model_type``."""


def find_family(model_type: object, origin: str) -> Family:
    """Return the family of a config.

    Args:
        model_type: the config's.
        origin: whose it is, for the message.

    Raises:
        CheckpointError: none has it.
    """
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        found = "nameless" if model_type is None else shown(model_type).strip("'\"")
        raise CheckpointError(f"{origin} is a {found} checkpoint; vivit-export takes model_type {', '.join(FAMILIES)}")
    return family
