"""TimeSformer; see `vivit_export.families.timesformer`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.models.timesformer.modeling_timesformer import TimesformerEmbeddings, TimesformerSelfAttention

from vivit_export.families.networks.network import Network, swap, swapped


class TimesformerNetwork(Network):
    """Transformers' own network, which writes attention out."""

    def attend(self, network: Any, kind: str) -> None:
        """See `Network.attend`; transformers has no SDPA for it, so that it is given some."""
        if kind == "sdpa":
            swap(network, TimesformerSelfAttention, _SplitAttention)

    @contextmanager
    def traceable(self, network: Any) -> Iterator[None]:
        """See `Network.traceable`.

        Attention becomes the same function through SDPA, with a Linear each for Q, K and V; the two tables of positions
        become one.
        """
        with (
            super().traceable(network),
            swapped(network, TimesformerSelfAttention, _SplitAttention),
            swapped(network, TimesformerEmbeddings, _JoinedEmbeddings),
        ):
            yield

    def _attention(self) -> str:
        return "eager"  # which is all that the class has


class _SplitAttention(torch.nn.Module):
    """``TimesformerSelfAttention`` with its one Linear cut into three; the weights are views of the same memory."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.heads, self.scale = whole.num_heads, whole.scale
        biases = (None,) * 3 if whole.qkv.bias is None else whole.qkv.bias.chunk(3)
        weights = whole.qkv.weight.chunk(3)
        self.query, self.key, self.value = (_linear(*pair) for pair in zip(weights, biases, strict=True))

    def forward(self, hidden_states: torch.Tensor, output_attentions: bool = False) -> tuple[torch.Tensor]:
        """Return the joined heads, (batch, tokens, hidden)."""
        del output_attentions
        batch, tokens, hidden = hidden_states.shape
        shape = (batch, tokens, self.heads, hidden // self.heads)
        q, k, v = (part(hidden_states).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value))
        context = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return (context.transpose(1, 2).reshape(batch, tokens, hidden),)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Linear:
    linear = torch.nn.Linear(1, 1, bias=bias is not None, device="meta")
    linear.weight = torch.nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = torch.nn.Parameter(bias, requires_grad=False)
    return linear


class _JoinedEmbeddings(torch.nn.Module):
    """``TimesformerEmbeddings`` with one table for positions in space and in time, and one convolution for all frames.

    Tokens are sorted by place, and by time within each.
    """

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.patch_embeddings = _Patches(whole.patch_embeddings.projection)
        self.cls_token = whole.cls_token
        first, places = whole.position_embeddings[:, :1], whole.position_embeddings[:, 1:]
        both = places[:, :, None] + whole.time_embeddings[:, None]
        self.table = torch.nn.Parameter(torch.cat((first, both.flatten(1, 2)), dim=1), requires_grad=False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return (batch, 1 + places times frames, hidden) for (batch, frames, 3, H, W)."""
        tokens = self.patch_embeddings(pixel_values)
        return torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1) + self.table


class _Patches(torch.nn.Module):
    def __init__(self, projection: torch.nn.Conv2d) -> None:
        super().__init__()
        height, width = projection.kernel_size
        size = (1, height, width)
        self.projection = torch.nn.Conv3d(3, projection.out_channels, size, size, device="meta")
        self.projection.weight = torch.nn.Parameter(projection.weight[:, :, None], requires_grad=False)
        self.projection.bias = projection.bias

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.projection(pixel_values.permute(0, 2, 1, 3, 4))
        return found.permute(0, 3, 4, 2, 1).flatten(1, 3)
