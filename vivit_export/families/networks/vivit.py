"""ViViT with joint attention; see `vivit_export.families.vivit`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers.models.vivit.modeling_vivit as modeling

from vivit_export.families.networks.network import Network
from vivit_export.records import JsonObject


class VivitNetwork(Network):
    """Transformers' own network; its pooler is left out: in a classification checkpoint, its weights do not exist."""

    @contextmanager
    def traceable(self, network: Any) -> Iterator[None]:
        """See `Network.traceable`.

        Transformers 5.9+ builds an all-true attention mask when traced; without it, attention is the same function
        and compilers can fuse it.
        """
        mask = getattr(modeling, "create_bidirectional_mask", None)
        with super().traceable(network):
            try:
                if mask is not None:
                    modeling.create_bidirectional_mask = lambda *_args, **_kwargs: None
                yield
            finally:
                if mask is not None:
                    modeling.create_bidirectional_mask = mask

    def _encoder_options(self) -> JsonObject:
        return {"add_pooling_layer": False}
