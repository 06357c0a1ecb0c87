"""The half of each family with torch: build, run and trace its network."""

from __future__ import annotations

from vivit_export.families.family import Family
from vivit_export.families.networks.network import Network
from vivit_export.families.networks.vivit import VivitNetwork

__all__ = ["Network", "network_of"]

_NETWORKS: dict[str, type[Network]] = {
    "vivit": VivitNetwork,
}


def network_of(family: Family) -> Network:
    """Return the half of a family with torch."""
    return _NETWORKS[family.model_type](family)
