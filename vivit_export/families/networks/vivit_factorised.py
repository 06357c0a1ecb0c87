"""Factorised ViViT; see `vivit_export.families.vivit_factorised`."""

from __future__ import annotations

from typing import Any

import torch

from vivit_export.families.networks import vivit_factorised_modeling as modeling
from vivit_export.families.networks.network import Network


class VivitFactorisedNetwork(Network):
    """Our own networks, of transformers' modules."""

    def embedding(self, network: Any, pixels: torch.Tensor) -> torch.Tensor:
        """See `Network.embedding`: the class token, or the mean of all tokens, after the last LayerNorm."""
        embedding: torch.Tensor = self.encoder(network)(pixels).pooler_output
        return embedding

    def _class(self, name: str) -> Any:
        return getattr(modeling, name)
