"""The half of each family with torch: build, run and trace its network."""

from __future__ import annotations

from vivit_export.families.family import Family
from vivit_export.families.networks.network import Network
from vivit_export.families.networks.timesformer import TimesformerNetwork
from vivit_export.families.networks.videomae import VideoMaeNetwork
from vivit_export.families.networks.vivit import VivitNetwork
from vivit_export.families.networks.vivit_factorised import VivitFactorisedNetwork
from vivit_export.families.networks.vjepa2 import VJepa2Network

__all__ = ["Network", "network_of"]

_NETWORKS: dict[str, type[Network]] = {
    "vivit": VivitNetwork,
    "vivit_factorised": VivitFactorisedNetwork,
    "videomae": VideoMaeNetwork,
    "timesformer": TimesformerNetwork,
    "vjepa2": VJepa2Network,
}


def network_of(family: Family) -> Network:
    """Return the half of a family with torch."""
    return _NETWORKS[family.model_type](family)
