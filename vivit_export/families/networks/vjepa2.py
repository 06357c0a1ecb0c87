"""V-JEPA 2; see `vivit_export.families.vjepa2`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2AttentivePooler, VJEPA2RopeAttention

from vivit_export.families.networks.network import Network, swapped
from vivit_export.records import JsonObject

_PREDICTOR = "predictor."


class VJepa2Network(Network):
    """Transformers' own network; its predictor, which neither labels nor embeddings need, never runs."""

    def load(self, config: JsonObject, state: Mapping[str, torch.Tensor], *, has_head: bool) -> tuple[Any, Any]:
        """See `Network.load`; a checkpoint may lack the predictor."""
        network, info = super().load(config, state, has_head=has_head)
        base = f"{self.family.base}." if has_head else ""
        info["missing_keys"] = {key for key in info["missing_keys"] if not key.startswith(f"{base}{_PREDICTOR}")}
        return network, info

    def embedding(self, network: Any, pixels: torch.Tensor) -> torch.Tensor:
        """See `Network.embedding`: what the pooler makes of all tokens, or their mean if there is no classifier."""
        tokens = self.encoder(network).encoder(pixels).last_hidden_state
        embedding: torch.Tensor = network.pooler(tokens) if hasattr(network, "pooler") else tokens.mean(1)
        return embedding

    @contextmanager
    def traceable(self, network: Any) -> Iterator[None]:
        """See `Network.traceable`.

        Rotations are constants, and the pooler's last layer projects one token instead of all.
        """
        encoder, tokens = self.encoder(network).encoder, _num_tokens(network.config)
        with (
            super().traceable(network),
            swapped(encoder, VJEPA2RopeAttention, lambda whole: _RotaryAttention(whole, tokens)),
            swapped(network, VJEPA2AttentivePooler, _Pooler),
        ):
            yield


def _num_tokens(config: Any) -> int:
    return int(config.frames_per_clip // config.tubelet_size * (config.crop_size // config.patch_size) ** 2)


class _RotaryAttention(torch.nn.Module):
    """``VJEPA2RopeAttention`` with constant rotations.

    Channels 2k and 2k + 1 of a head are rotated as a pair. Q and K may have their channels in any order, if it is the
    same: here, the first of all pairs come first, then the second of all. A rotation is then

        x * cos + (x with its halves swapped) * sin

    with one table each, (tokens, channels of a head). The angles of the two channels differ, as in the original
    (arXiv:2506.09985), so that ONNX's RotaryEmbedding cannot express it. Heads and tokens are swapped before: after it,
    TensorRT for RTX 1.7.1 copies V once per block (275 kernels for ViT-L in place of 252).
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, whole: Any, tokens: int) -> None:
        super().__init__()
        self.heads, self.size, self.scale = whole.num_attention_heads, whole.attention_head_size, whole.scaling
        self.value, self.proj = whole.value, whole.proj
        order = torch.arange(self.size).view(-1, 2).T.flatten()
        rows = torch.arange(self.heads * self.size).view(self.heads, -1)[:, order].flatten()
        self.query, self.key = _reordered(whole.query, rows), _reordered(whole.key, rows)
        cos, sin = _tables(whole, tokens)
        for name, table in (("cos", cos), ("sin", sin)):
            self.register_buffer(name, table[:, order].to(whole.query.weight.dtype), persistent=False)

    def forward(self, hidden_states: torch.Tensor, position_mask: None = None) -> tuple[torch.Tensor, None]:
        """Return the joined heads, (batch, tokens, hidden), after the output projection."""
        del position_mask
        batch, tokens, hidden = hidden_states.shape
        shape = (batch, tokens, self.heads, self.size)
        q, k, v = (part(hidden_states).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value))
        q, k = self._rotate(q), self._rotate(k)
        context = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(context.transpose(1, 2).reshape(batch, tokens, hidden)), None

    def _rotate(self, heads: torch.Tensor) -> torch.Tensor:
        first, second = heads.chunk(2, dim=-1)
        return heads * self.cos + torch.cat((second, first), dim=-1) * self.sin


def _tables(whole: Any, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each channel of a head is multiplied with, and what its partner: (tokens, channels) each, float64.

    They are read from the original's own function, by what it makes of units.
    """
    ids = whole.get_position_ids(torch.empty(1, tokens, 0))
    even = (torch.arange(whole.attention_head_size) % 2 == 0).double()
    from_even, from_odd = (
        whole.apply_rotary_embeddings(unit.expand(1, 1, tokens, -1), ids)[0, 0] for unit in (even, 1 - even)
    )
    return torch.where(even.bool(), from_even, from_odd), torch.where(even.bool(), from_odd, from_even)


class _Pooler(torch.nn.Module):
    """``VJEPA2AttentivePooler`` that projects what its query found, and not all that it looks at.

    With one learned query, scores and values are linear in the normalized tokens x:

        softmax((x W_k + b_k) q) (x W_v + b_v)  =  (softmax(x (W_k q)) x) W_v + b_v

    because a number that all tokens have in common (b_k q) leaves softmax as it is, and its rows sum to one. W_k q is a
    constant, and W_v multiplies one token instead of thousands. The affine part of the LayerNormalization before them
    goes into both.
    """

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.self_attention_layers = whole.self_attention_layers
        self.cross_attention_layer = _PoolingLayer(whole.cross_attention_layer, whole.query_tokens)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Return (batch, hidden) for (batch, tokens, hidden)."""
        for layer in self.self_attention_layers:
            hidden_state = layer(hidden_state, attention_mask=None)[0]
        pooled: torch.Tensor = self.cross_attention_layer(hidden_state)
        return pooled.squeeze(1)


class _PoolingLayer(torch.nn.Module):
    def __init__(self, whole: Any, token: torch.Tensor) -> None:
        super().__init__()
        norm = whole.layer_norm1
        self.layer_norm1 = torch.nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)
        self.cross_attn = _PoolingAttention(whole.cross_attn, norm, token)
        self.layer_norm2, self.mlp = whole.layer_norm2, whole.mlp
        self.token = token

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        pooled = self.token + self.cross_attn(self.layer_norm1(hidden_state))
        found: torch.Tensor = pooled + self.mlp(self.layer_norm2(pooled))
        return found


class _PoolingAttention(torch.nn.Module):
    def __init__(self, whole: Any, norm: torch.nn.LayerNorm, token: torch.Tensor) -> None:
        super().__init__()
        heads, size = whole.num_heads, whole.head_dim
        gain, shift = norm.weight.detach().double(), norm.bias.detach().double()
        weight = {name: getattr(whole, f"{name}_proj").weight.detach().double() for name in "qkv"}
        bias = {name: getattr(whole, f"{name}_proj").bias.detach().double() for name in "qv"}
        query = (weight["q"] @ token.detach().double().flatten() + bias["q"]).view(heads, size, 1)
        keys = (weight["k"].view(heads, size, -1) * query).sum(1) * whole.scale * gain
        values = (weight["v"] * gain).view(heads, size, -1).transpose(1, 2)
        self.keys = _parameter(keys.T, token)
        self.values = _parameter(values, token)
        self.bias = _parameter(weight["v"] @ shift + bias["v"], token)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return (batch, 1, hidden) for normalized (batch, tokens, hidden)."""
        # Over the last axis, TensorRT for RTX 1.7.1 would take 2 bytes for every two tokens and each channel (69 GB).
        shares = (tokens @ self.keys).softmax(1).transpose(1, 2)
        found = (shares @ tokens).transpose(0, 1) @ self.values  # (heads, batch, channels of a head)
        return found.transpose(0, 1).reshape(tokens.shape[0], 1, tokens.shape[2]) + self.bias


def _reordered(linear: torch.nn.Linear, rows: torch.Tensor) -> torch.nn.Linear:
    found = torch.nn.Linear(1, 1, bias=linear.bias is not None, device="meta")
    found.weight = _parameter(linear.weight.detach()[rows], linear.weight)
    if linear.bias is not None:
        found.bias = _parameter(linear.bias.detach()[rows], linear.bias)
    return found


def _parameter(values: torch.Tensor, like: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(values.to(like.dtype), requires_grad=False)
