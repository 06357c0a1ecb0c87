"""VideoMAE; see `vivit_export.families.videomae`."""

from __future__ import annotations

import re
from typing import Any

import torch

from vivit_export.families.networks.network import Network, State

_OLD_BIAS = re.compile(r"\.attention\.([qv])_bias$")
_NEW_BIAS = {"q": ".attention.query.bias", "v": ".attention.value.bias"}


class VideoMaeNetwork(Network):
    """Transformers' own network."""

    def embedding(self, network: Any, pixels: torch.Tensor) -> torch.Tensor:
        """See `Network.embedding`: or the mean of all tokens, after ``fc_norm`` if there is a classifier."""
        if not network.config.use_mean_pooling:
            return super().embedding(network, pixels)
        mean: torch.Tensor = self.encoder(network)(pixels).last_hidden_state.mean(1)
        norm = getattr(network, "fc_norm", None)
        return mean if norm is None else norm(mean)

    def renamed(self, state: State) -> State:
        """See `Network.renamed`.

        Until transformers 5.0, the biases of Q and V were parameters beside the Linears. Versions 5.9 to 5.17 do not
        know the old names and would leave the biases random (transformers issue 48675).
        """
        return {_OLD_BIAS.sub(lambda found: _NEW_BIAS[found[1]], name): tensor for name, tensor in state.items()}
