"""The factorised ViViTs; see `vivit_export.families.vivit_factorised`."""

from __future__ import annotations

from typing import Any

import torch

from vivit_export.families.networks import vivit_factorised_modeling as modeling
from vivit_export.families.networks.network import Network


class VivitFactorisedNetwork(Network):
    """Networks of this package, which pool as they were trained to: a class token, or the mean of all tokens."""

    def embedding(self, network: Any, pixels: torch.Tensor) -> torch.Tensor:
        """See `Network.embedding`."""
        embedding: torch.Tensor = self.encoder(network)(pixels).pooler_output
        return embedding

    def _class(self, name: str) -> Any:
        return getattr(modeling, name)
